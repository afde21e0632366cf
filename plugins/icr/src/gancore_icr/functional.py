"""Consistency regularisation as pure functions: the change T of images, and the differences that are penalised.

Symbols: x images, z latents, G(z) fakes, D any output of D, T a small random change, B the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Change:
    """The random choices of T for one batch; None leaves that part of T out.

    Args:
        flip: (B,) bool, which images are mirrored.
        shift: (B, 2) int64, how many pixels each image moves down and to the right.
    """

    flip: Tensor | None
    shift: Tensor | None


def reach(side: int, ratio: float) -> int:
    """The largest shift in pixels: ``ratio * side`` rounded down, whatever the rounding of the product."""
    return math.floor(ratio * side + 1e-9)


def draw_change(
    batch: int, height: int, width: int, generator: torch.Generator, *, flip: bool = True, ratio: float = 1 / 8
) -> Change:
    """Draw T for ``batch`` images: a coin of 1/2 each, and shifts uniform over all whole pixels in reach.

    Args:
        flip: whether T flips.
        ratio: largest shift as a share of height and width, >= 0; 0 for no shift.

    Returns:
        Tensors on the generator's device. Rows and columns are drawn apart, both ends included.
    """
    device = generator.device
    coins = torch.rand(batch, generator=generator, device=device) < 0.5 if flip else None
    if not ratio:
        return Change(coins, None)
    moves = [
        torch.randint(-most, most + 1, (batch,), generator=generator, device=device)
        for most in (reach(height, ratio), reach(width, ratio))
    ]
    return Change(coins, torch.stack(moves, 1))


def change(images: Tensor, drawn: Change) -> Tensor:
    """T(x): flip, then translate.

    Args:
        images: (B, C, H, W).

    Reference: CR, arXiv:1910.12027, and ICR, arXiv:2002.04724: flips, and shifts of a few pixels.
    """
    if drawn.flip is not None:
        images = torch.where(drawn.flip.reshape(-1, 1, 1, 1), images.flip(-1), images)
    return images if drawn.shift is None else translate(images, drawn.shift)


def translate(images: Tensor, shift: Tensor) -> Tensor:
    """Move each image by whole pixels; what enters is the image mirrored at its border pixel.

    ``out[b, c, i, j] = x[b, c, r(i - down, H), r(j - right, W)]`` with :func:`mirrored_index` as r. The border
    pixel is not repeated, as in ``torch.nn.functional.pad`` with ``mode="reflect"``, but a shift may be as
    large as one likes and a side as small as one pixel.

    Args:
        images: (B, C, H, W). shift: (B, 2) int64, (down, right).
    """
    batch, channels, height, width = images.shape
    down, right = shift[:, :1], shift[:, 1:]
    rows = mirrored_index(torch.arange(height, device=images.device) - down, height)
    columns = mirrored_index(torch.arange(width, device=images.device) - right, width)
    rows = rows[:, None, :, None].expand(batch, channels, height, width)
    columns = columns[:, None, None, :].expand(batch, channels, height, width)
    return images.gather(2, rows).gather(3, columns)


def mirrored_index(index: Tensor, size: int) -> Tensor:
    """Indices folded into [0, size) by reflection at 0 and at size - 1, as often as it takes.

    For size 4: ... 2 1 | 0 1 2 3 | 2 1 0 1 ...; for size 1 always 0.
    """
    if size == 1:
        return torch.zeros_like(index)
    folded = index.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)


def squared_distance(first: Tensor, second: Tensor, reduction: Reduction = "mean") -> Tensor:
    """||a - b||^2 of each sample; (B,).

    Args:
        first, second: (B,) or (B, …).
        reduction: over the values of a sample: ``mean``, or ``sum``, which is the norm as it is written.
    """
    squares = (first - second).square().reshape(len(first), -1)
    return squares.mean(1) if reduction == "mean" else squares.sum(1)


def consistency(first: Tensor, second: Tensor, reduction: Reduction = "mean") -> Tensor:
    """E ||D(a) - D(b)||^2, the mean over the batch; 0-d. Both sides receive a gradient.

    With b = T(a) it is L_CR on reals, and L_real and L_fake of bCR; with a = G(z), b = G(z') it is L_dis of zCR.

    Args:
        first, second: (B,) logits or (B, …) features. reduction: see :func:`squared_distance`; the same for
            logits.

    Reference: CR, arXiv:1910.12027; ICR, arXiv:2002.04724, algorithms 1 and 2.
    """
    return squared_distance(first, second, reduction).mean()


def near_latents(latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """z' = z + N(0, sigma^2).

    Args:
        latents: (B, Z). noise: (B, Z), N(0, 1).

    Reference: ICR, arXiv:2002.04724, algorithm 2.
    """
    return latents + sigma * noise.to(latents.dtype)


def spread(base: Tensor, near: Tensor, reduction: Reduction = "mean", bound: float = 0.0) -> Tensor:
    """L_gen = -E ||G(z) - G(z')||^2, or -E min(||G(z) - G(z')||^2, bound); 0-d.

    Args:
        base, near: (B, …), G(z) and G(z').
        reduction: see :func:`squared_distance`.
        bound: the most that a sample counts, on the scale of the reduction; 0 for no bound. A sample beyond it
            has no gradient. Without a bound the loss has no minimum, except where G's range is bounded: images
            in [-1, 1] reach -4 with ``mean``.

    Reference: ICR, arXiv:2002.04724, algorithm 2.
    Deviation: the bound is ours.
    """
    distance = squared_distance(base, near, reduction)
    return -(distance.clamp(max=bound) if bound else distance).mean()
