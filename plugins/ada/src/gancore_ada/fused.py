"""ADA in fused operations.

For a fixed draw, geometry, colour and cutout are affine in the images: T(x) = M (C (G x) + o). The operation
``warp`` computes T(x), its linear part, or the transpose of that; each is the gradient of another, so that any
order of derivative is there. See ``csrc/geometry.h`` for G. The operation ``compose`` makes a draw of random
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gancore.ops import define, ready
from gancore_ada.library import LIBRARY
from gancore_ada.sampling import BLIT, COLOR, GEOMETRY, OPS, Strengths

WARPS = {"geometry": (3, 3), "color": (4, 4), "cutout": (4,)}
"""Parts of a draw that ``warp`` applies, in this order, and their shape for one image."""

LONGEST = 4096
"""Pixels of a side up to which places of fine pixels are counted in 32 bits."""


def _fake(images: Tensor, *rest: Any) -> Tensor:
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty_like(images, memory_format=layout)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:4])
    ctx.transposed = inputs[4]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return warp(gradient, *ctx.saved_tensors, not ctx.transposed, False), *[None] * 5


warp = define(
    LIBRARY,
    "warp(Tensor images, Tensor geometry, Tensor colour, Tensor cutout, bool transposed, bool offset) -> Tensor",
    fake=_fake,
    setup_context=_save,
    backward=_backward,
)


def _fake_matrices(uniforms: Tensor, normals: Tensor, p: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    dtype = torch.float64 if settings[-1] else torch.float32
    shapes = ((3, 3), (3, 3), (4, 4), (4,), (), (4,))
    return tuple(uniforms.new_empty((len(uniforms), *shape), dtype=dtype) for shape in shapes)


matrices = define(
    LIBRARY,
    "compose(Tensor uniforms, Tensor normals, Tensor p, float[] multipliers, float[] strengths, int height, "
    "int width, bool exact, bool doubles) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake=_fake_matrices,
)


def compose(
    uniforms: Tensor,
    normals: Tensor,
    p: Tensor,
    multipliers: Mapping[str, float],
    strengths: Strengths,
    shape: tuple[int, ...],
    *,
    exact: bool,
    doubles: bool,
) -> dict[str, Tensor]:
    """A draw, but for the noise itself, see :func:`gancore_ada.functional.compose`; without a gradient.

    Args:
        uniforms, normals: from :func:`gancore_ada.sampling.numbers`. p: 0-d, float32. shape: (B, C, H, W).
        exact: flips, quarter turns and whole shifts get a matrix of their own. doubles: in float64.
    """
    s = strengths
    still = ("hue", "saturation") if shape[1] == 1 else ()  # they leave grey as it is
    given = {op: float(value) for op, value in multipliers.items() if value > 0 and op not in still}
    found = matrices(
        uniforms,
        normals,
        p,
        [given.get(op, 0.0) for op in OPS],
        [
            *(s.xint, s.scale, math.pi * s.rotate, s.aniso, s.xfrac),
            *(s.brightness, s.contrast, math.pi * s.hue, s.saturation),
            *(*s.bands, s.imgfilter, s.noise, s.cutout),
        ],
        *shape[2:],
        exact,
        doubles,
    )
    moves = BLIT if exact else ()
    made_of = {
        "blit": moves,
        "geometry": tuple(op for op in GEOMETRY if op not in moves),
        "color": COLOR,
        "bands": ("imgfilter",),
        "sigma": ("noise",),
        "cutout": ("cutout",),
    }
    return {
        name: value
        for (name, ops), value in zip(made_of.items(), found, strict=True)
        if any(op in given for op in ops)
    }


def composes(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether :func:`compose` is there for this device, and makes parameters of this type."""
    return dtype in (torch.float32, torch.float64) and ready(LIBRARY, torch.empty(0, device=device, dtype=dtype))


def takes(images: Tensor, parts: Mapping[str, Tensor]) -> bool:
    """Whether :func:`apply` can be taken, and is there.

    Not for parts of which a gradient is asked, nor for images with a side above :data:`LONGEST`.
    """
    fits = max(images.shape[2:]) <= LONGEST and not any(part.requires_grad for part in parts.values())
    return fits and ready(LIBRARY, images)


def apply(images: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """Geometry, colour and cutout, as far as ``parts`` has them.

    Args:
        images: (B, C, H, W). parts: entries of :data:`WARPS`, in float64 for images in float64, else float32.
    """
    given = [
        parts[name] if name in parts else next(iter(parts.values())).new_empty((0, *shape))
        for name, shape in WARPS.items()
    ]
    warped: Tensor = warp(images, *given, False, True)
    return warped
