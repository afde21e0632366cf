"""The forwards of a pair of networks, as they are or compiled, whole or in pieces of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gancore.networks.protocols import Discriminator, Generator


class Passes:
    """What the trainer calls instead of the networks.

    Args:
        compiled: compile with :func:`torch.compile`, at the first pass of each kind. A pass that is
            differentiated twice stays as it is: torch's compiled backward has no derivative.

    """

    def __init__(self, generator: Generator, discriminator: Discriminator, compiled: bool = False) -> None:
        self._generator, self._discriminator = generator, discriminator
        self._compiled: dict[str, Callable[..., Any]] = {}
        if compiled:
            self._compiled = {
                "generate": torch.compile(generator),
                "features": torch.compile(discriminator.features),
                "head": torch.compile(discriminator.head),
            }

    def generate(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """G's images."""
        images: Tensor = self._compiled.get("generate", self._generator)(latents, labels)
        return images

    def features(self, images: Tensor, labels: Tensor | None, twice: bool) -> Mapping[str, Tensor]:
        """D's taps. ``twice``: whether a penalty differentiates through its gradient."""
        if twice or not self._compiled:
            return self._discriminator.features(images, labels)
        taps: Mapping[str, Tensor] = self._compiled["features"](images, labels)
        return taps

    def head(self, taps: Mapping[str, Tensor], labels: Tensor | None, twice: bool) -> Tensor:
        """D's logits."""
        if twice or not self._compiled:
            return self._discriminator.head(taps, labels)
        logits: Tensor = self._compiled["head"](taps, labels)
        return logits


def in_pieces(forward: Callable[..., Any], rows: Tensor, labels: Tensor | None, size: int) -> Any:
    """``forward`` on all rows, in pieces of at most ``size`` rows that are recomputed in the backward."""
    if not size or len(rows) <= size:
        return forward(rows, labels)
    pieces = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        part_labels = None if labels is None else labels[start : start + size]
        if torch.is_grad_enabled():
            piece = checkpoint(forward, part, part_labels, use_reentrant=False, preserve_rng_state=False)
        else:
            piece = forward(part, part_labels)
        pieces.append(piece)
    if isinstance(pieces[0], Tensor):
        return torch.cat(pieces)
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))
