"""DiffAugment in one operation: for a fixed draw T is affine in the images, T(x) = A x + b.

The operation ``affine`` computes A x + b, A x, and A^T g; each is the gradient of another, so that any order of
derivative is there. See ``csrc/diffaugment.h`` for A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gancore.ops import define, ready
from gancore_diffaugment.library import LIBRARY
from gancore_diffaugment.policy import COLOR, Strengths

SHIFT_BEFORE, SHIFT_AFTER, CUT_BEFORE, CUT_AFTER, CUT_FIRST = 1, 2, 4, 8, 16


def _fake(images: Tensor, colour: Tensor, place: Tensor, *settings: Any) -> Tensor:
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty_like(images, memory_format=layout)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, colour, place, *settings = inputs
    ctx.save_for_backward(colour, place)
    ctx.settings = settings


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *settings, transposed, _ = ctx.settings
    found = affine(gradient, *ctx.saved_tensors, *settings, not transposed, False)
    return found, None, None, *[None] * len(ctx.settings)


affine = define(
    LIBRARY,
    "affine(Tensor images, Tensor colour, Tensor place, float brightness, float saturation, float contrast, "
    "int cut_rows, int cut_columns, int spatial, bool transposed, bool offset) -> Tensor",
    fake=_fake,
    setup_context=_save,
    backward=_backward,
)


def takes(images: Tensor, names: tuple[str, ...]) -> bool:
    """Whether the fused path can do these operations, in this order, to these images, and is there.

    Translation and cutout may stand before and after the colours, not between two of them.
    """
    coloured = [index for index, name in enumerate(names) if name in COLOR]
    together = not coloured or coloured[-1] - coloured[0] + 1 == len(coloured)
    return bool(names) and together and ready(LIBRARY, images)


def augment(images: Tensor, draw: Mapping[str, Tensor], names: tuple[str, ...], strengths: Strengths) -> Tensor:
    """The operations ``names``, as :func:`gancore_diffaugment.functional.augment` has them."""
    count, _, height, width = images.shape
    half = images.new_full((count,), 0.5, dtype=torch.float64)
    colour = torch.stack([draw[name].double() if name in names else half for name in COLOR], dim=1)
    none = torch.zeros((count, 2), dtype=torch.int64, device=images.device)
    place = torch.cat([draw[name] if name in names else none for name in ("translation", "cutout")], dim=1)
    augmented: Tensor = affine(
        images,
        colour,
        place,
        *(float(getattr(strengths, name)) if name in names else 0.0 for name in COLOR),
        strengths.cut(height),
        strengths.cut(width),
        _spatial(names),
        False,
        True,
    )
    return augmented


def _spatial(names: tuple[str, ...]) -> int:
    """What stands on which side of the colours; without colours all is after them."""
    first = next((index for index, name in enumerate(names) if name in COLOR), -1)
    bits = 0
    for name, before, after in (
        ("translation", SHIFT_BEFORE, SHIFT_AFTER),
        ("cutout", CUT_BEFORE, CUT_AFTER),
    ):
        if name in names:
            bits |= before if names.index(name) < first else after
    if "translation" in names and "cutout" in names and names.index("cutout") < names.index("translation"):
        bits |= CUT_FIRST
    return bits
