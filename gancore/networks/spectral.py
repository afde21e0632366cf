"""When spectral normalisation iterates.

torch's parametrisation runs a power iteration at every read of the weight while it is in training mode, so
two views of one phase would see two weights. The trainer instead calls :func:`power_iterate` at the start
of a phase: each weight gets one iteration, and until the next call every read divides W by the same
``u^T W v``, with gradient. Concatenated and one-by-one execution then agree. :func:`iterate_at_every_read`
is the other behaviour.

``module.train()`` and ``module.eval()`` set the parametrisations' mode too: call these functions after them.
torch runs 15 warm-up iterations when it registers the parametrisation, so the first phase starts near the
norm.

Reference: Miyato et al., 2018, arXiv:1802.05957, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize


@dataclass(frozen=True, eq=False)
class SpectralNorm:
    """A spectrally normalised tensor: ``module.<tensor_name>``, the chain that computes it, and its link."""

    module: nn.Module
    tensor_name: str
    chain: parametrize.ParametrizationList
    parametrisation: nn.Module


def spectral_norms(module: nn.Module) -> list[SpectralNorm]:
    """Every spectrally normalised tensor in ``module``, in order. Find them once and keep the list."""
    found = []
    for layer in module.modules():
        if not parametrize.is_parametrized(layer):
            continue
        for name, chain in cast(nn.ModuleDict, layer.parametrizations).items():
            found += [
                SpectralNorm(layer, name, cast(parametrize.ParametrizationList, chain), part)
                for part in chain.children()
                if isinstance(part, parametrizations._SpectralNorm)
            ]
    return found


@torch.no_grad()
def power_iterate(norms: Sequence[SpectralNorm]) -> None:
    """One power iteration for each tensor; then every read sees one same weight until the next call.

    The iteration runs in the weight's own precision, also inside an autocast region.
    """
    for norm in norms:
        norm.parametrisation.train()
        with torch.autocast(norm.chain.original.device.type, enabled=False):
            norm.chain()
        norm.parametrisation.eval()


def iterate_at_every_read(norms: Sequence[SpectralNorm]) -> None:
    """Let every read of a weight run a power iteration of its own, as torch does in training mode."""
    for norm in norms:
        norm.parametrisation.train()
