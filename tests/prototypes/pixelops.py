"""Differentiable image operations shared by the prototypes; every random number is an argument."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gancore.api import Rng


def reflect(index: Tensor, size: int) -> Tensor:
    """Indices outside [0, size) mirrored at the border pixels, as often as needed."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index % period
    return torch.minimum(folded, period - folded)


def gather_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """out[b, :, i, j] = images[b, :, rows[b, i], columns[b, j]]."""
    batch, channels, height, width = images.shape
    rows = rows[:, None, :, None].expand(batch, channels, height, width)
    columns = columns[:, None, None, :].expand(batch, channels, height, width)
    return images.gather(2, rows).gather(3, columns)


def shift_reflect(images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Content moved by whole pixels, (B,) int64 each, with reflected borders."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + dy[:, None]
    columns = torch.arange(width, device=images.device) + dx[:, None]
    return gather_pixels(images, reflect(rows, height), reflect(columns, width))


def flip(images: Tensor, gate: Tensor) -> Tensor:
    """Left and right exchanged where ``gate`` (B,) is True."""
    return torch.where(per_sample(gate), images.flip(-1), images)


def per_sample(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values[:, None, None, None]


def draw_diffaugment(rng: Rng, count: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Parameters of DiffAugment's colour, translation and cutout for ``count`` images of (C, H, W)."""
    height, width = shape[-2:]
    sides = ((height, reach(height)), (width, reach(width)))
    cuts = ((height, cut(height)), (width, cut(width)))
    return {
        "color": rng.uniform(count, 3),
        "translation": torch.stack([rng.integers(-s, s + 1, count) for _, s in sides], 1),
        "cutout": torch.stack([rng.integers(0, size + 1 - c % 2, count) for size, c in cuts], 1),
    }


def diffaugment(images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
    """Brightness, saturation, contrast; translation with zero fill; a zeroed square of half the side."""
    b, s, k = (per_sample(part) for part in draw["color"].to(images.dtype).unbind(1))
    images = images + (b - 0.5)
    images = lerp_to(images, images.mean(1, keepdim=True), 2 * s)
    images = lerp_to(images, images.mean((1, 2, 3), keepdim=True), k + 0.5)
    height, width = images.shape[2:]
    ty, tx = draw["translation"].unbind(1)
    rows = torch.arange(height, device=images.device) + ty[:, None]
    columns = torch.arange(width, device=images.device) + tx[:, None]
    inside = _both((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    images = gather_pixels(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1)) * inside
    oy, ox = draw["cutout"].unbind(1)
    return images * ~_both(_in_cut(oy, height, images.device), _in_cut(ox, width, images.device))


def lerp_to(images: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """(x - centre) * factor + centre."""
    return (images - centre) * factor + centre


def reach(size: int) -> int:
    """Largest translation of DiffAugment."""
    return int(size / 8 + 0.5)


def cut(size: int) -> int:
    """Side of DiffAugment's cutout."""
    return int(size / 2 + 0.5)


def _in_cut(offset: Tensor, size: int, device: torch.device) -> Tensor:
    start = offset[:, None] - cut(size) // 2
    position = torch.arange(size, device=device)
    return (position >= start) & (position < start + cut(size))


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, None, :, None] & columns[:, None, None, :]
