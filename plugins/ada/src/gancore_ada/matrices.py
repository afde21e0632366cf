"""Small matrices, one an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def matrix(like: Tensor, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    """(B, n, m) of entries that are numbers or (B,) tensors as ``like``."""
    entries = [
        entry if isinstance(entry, Tensor) else torch.full_like(like, float(entry))
        for row in rows
        for entry in row
    ]
    return torch.stack(entries, -1).reshape(-1, len(rows), len(rows[0]))


def product(first: Tensor, second: Tensor) -> Tensor:
    """first @ second by multiplication and addition, which no setting of matrix products makes coarser."""
    return (first.unsqueeze(-1) * second.unsqueeze(-3)).sum(-2)
