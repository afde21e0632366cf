"""The heads: one linear map of a difference of features for each predicted operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

HeadKind = Literal["spectral", "linear", "equalised"]

SPREAD = 0.02
"""Standard deviation of the initial weights of ``spectral`` and ``linear`` heads."""


class EqualisedLinear(nn.Module):
    """(w / sqrt(in)) x + b with w ~ N(0, 1) and b = 0 at the start: the step size is equal for every width.

    Reference: Karras et al., 2018, arXiv:1710.10196, section 4.1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, values: Tensor) -> Tensor:
        """(B, in) to (B, out)."""
        return F.linear(values, self.weight * self.gain, self.bias)


class Heads(nn.Module):
    """(B, …) differences of features to name -> (B, K) predictions.

    Args:
        inputs: features of one sample. widths: head name -> K.
        kind: ``spectral`` a linear map with bias, its weight divided by its largest singular value;
            ``linear`` the same without the division; ``equalised`` :class:`EqualisedLinear`.
    """

    def __init__(self, inputs: int, widths: Mapping[str, int], kind: HeadKind) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: _head(inputs, outputs, kind) for name, outputs in widths.items()})

    def forward(self, difference: Tensor) -> dict[str, Tensor]:
        flat = difference.flatten(1)
        return {name: head(flat) for name, head in self.maps.items()}


def _head(inputs: int, outputs: int, kind: HeadKind) -> nn.Module:
    if kind == "equalised":
        return EqualisedLinear(inputs, outputs)
    head = nn.Linear(inputs, outputs)
    nn.init.normal_(head.weight, std=SPREAD)
    nn.init.zeros_(head.bias)
    # Registration iterates 15 times on the weight it finds, so it comes after the initialisation.
    return spectral_norm(head) if kind == "spectral" else head
