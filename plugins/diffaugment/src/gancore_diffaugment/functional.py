"""DiffAugment as pure functions: all random numbers in one dict, then images to images.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv:2006.10738.

Images are (B, C, H, W), float of any width, 0 is mid-grey. C is arbitrary: all channels are treated alike, so
that an alpha channel would be augmented as a colour. For a fixed draw every operation is affine in the images
and can be differentiated as often as needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from . import fused
from .policy import COLOR, WORDS, Policy, Strengths, effective, operations, words

__all__ = [
    "COLOR",
    "WORDS",
    "Policy",
    "Strengths",
    "augment",
    "brightness",
    "contrast",
    "cutout",
    "draw",
    "effective",
    "operations",
    "saturation",
    "translation",
    "words",
]

DEFAULTS = Strengths()


def draw(
    generator: torch.Generator,
    count: int,
    shape: tuple[int, int, int],
    policy: Policy,
    strengths: Strengths = DEFAULTS,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """The random parameters of ``count`` images, one entry an operation of the policy.

    Everything is drawn whatever the strengths, in the order of the policy, rows before columns.

    Args:
        shape: (C, H, W) of one image. device: where the result lies; by default where the generator draws.

    Returns:
        ``brightness``, ``saturation``, ``contrast``: (count,) float32, the uniforms r in [0, 1).
        ``translation``: (count, 2) int64, row and column shift in [-S, S] with S = int(size * ratio + 0.5).
        ``cutout``: (count, 2) int64, row and column of the centre, in [0, size + 1 - cut % 2) with
        cut = int(size * ratio + 0.5).

    Raises:
        ValueError: an unknown or doubled word in the policy.
    """
    at = generator.device

    def integers(bounds: list[tuple[int, int]]) -> Tensor:
        drawn = [torch.randint(low, high, (count,), generator=generator, device=at) for low, high in bounds]
        return torch.stack(drawn, dim=1)

    result: dict[str, Tensor] = {}
    for name in operations(policy):
        if name == "translation":
            reaches = [strengths.reach(size) for size in shape[1:]]
            drawn = integers([(-reach, reach + 1) for reach in reaches])
        elif name == "cutout":
            drawn = integers([(0, size + 1 - strengths.cut(size) % 2) for size in shape[1:]])
        else:
            drawn = torch.rand((count,), generator=generator, device=at)
        result[name] = drawn if device is None else drawn.to(device)
    return result


def augment(
    images: Tensor, draw: Mapping[str, Tensor], policy: Policy, strengths: Strengths = DEFAULTS
) -> Tensor:
    """T(x): the operations of the policy, one after the other.

    Operations that cannot change an image (:func:`effective`) are left out, so that strength 0 returns the
    very same bits.

    Args:
        images: (B, C, H, W). draw: from :func:`draw` for B images of this shape, policy and strengths.

    Returns:
        (B, C, H, W) in the dtype of ``images``. Colour is computed in float32 or wider.

    Raises:
        ValueError: images that are not four-dimensional floats, a draw that lacks an operation or has other
            rows, an unknown or doubled word in the policy.

    Reference: DiffAugment, T in the losses of D and of G ("Differentiable Augmentation for GANs").
    """
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are {tuple(images.shape)} {images.dtype}; expected (B, C, H, W) in a floating-point type"
        )
    count, channels, height, width = images.shape
    names = effective(policy, strengths, (channels, height, width))
    for name in names:
        if name not in draw:
            held = ", ".join(draw) or "nothing"
            raise ValueError(f"the draw holds no '{name}' (it holds {held}); draw with the same policy")
        if len(draw[name]) != count:
            raise ValueError(
                f"the draw of {name} has {len(draw[name])} rows for {count} images; expected one an image"
            )
    if fused.takes(images, names):
        return fused.augment(images, draw, names, strengths)
    return reference(images, draw, names, strengths)


def reference(
    images: Tensor, draw: Mapping[str, Tensor], names: tuple[str, ...], strengths: Strengths = DEFAULTS
) -> Tensor:
    """:func:`augment` in plain torch: the operations ``names`` one after the other."""
    dtype = images.dtype
    height, width = images.shape[2:]
    for name in names:
        drawn = draw[name]
        if name == "translation":
            images = translation(images, drawn)
        elif name == "cutout":
            images = cutout(images, drawn, (strengths.cut(height), strengths.cut(width)))
        else:
            wide = images.to(torch.promote_types(dtype, torch.float32))
            images = _COLOR_FUNCTIONS[name](wide, drawn, getattr(strengths, name))
    return images.to(dtype)


def brightness(images: Tensor, uniform: Tensor, strength: float = 1.0) -> Tensor:
    """x + (r - 0.5) * strength; (B, C, H, W), r (B,)."""
    return images + (_each(uniform, images) - 0.5) * strength


def saturation(images: Tensor, uniform: Tensor, strength: float = 1.0) -> Tensor:
    """(x - m) * s + m with m the pixel's mean over channels and s = (2r - 1) * strength + 1."""
    grey = images.mean(dim=1, keepdim=True)
    return (images - grey) * ((2 * _each(uniform, images) - 1) * strength + 1) + grey


def contrast(images: Tensor, uniform: Tensor, strength: float = 1.0) -> Tensor:
    """(x - mu) * k + mu with mu the mean of the image over C, H, W and k = (r - 0.5) * strength + 1."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * ((_each(uniform, images) - 0.5) * strength + 1) + mean


def translation(images: Tensor, shifts: Tensor) -> Tensor:
    """out[i, j] = in[i + t_row, j + t_column], 0 outside; ``shifts`` (B, 2) int64.

    A positive shift moves the content up and left.
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device) + shifts[:, 1:]
    inside = _rectangle((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    place = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    place = place.reshape(count, 1, height * width).expand(-1, channels, -1)
    moved = images.reshape(count, channels, height * width).gather(2, place)
    return moved.reshape(images.shape).masked_fill(~inside, 0)


def cutout(images: Tensor, centres: Tensor, cut: tuple[int, int]) -> Tensor:
    """0 in a rectangle of ``cut`` = (rows, columns) pixels around ``centres`` (B, 2) int64.

    Along a side the rectangle covers centre - cut // 2 to centre - cut // 2 + cut - 1, as far as that lies in
    the image; with the range of :func:`draw` at least one pixel does.
    """
    height, width = images.shape[2:]
    erased = []
    for size, part, centre in zip((height, width), cut, centres.unbind(1), strict=True):
        distance = torch.arange(size, device=images.device) - (centre[:, None] - part // 2)
        erased.append((distance >= 0) & (distance < part))
    return images.masked_fill(_rectangle(*erased), 0)


_COLOR_FUNCTIONS = {"brightness": brightness, "saturation": saturation, "contrast": contrast}


def _each(uniform: Tensor, images: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1), in the dtype of the images."""
    return uniform.to(images.dtype)[:, None, None, None]


def _rectangle(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, H) and (B, W) bool as (B, 1, H, W): where both hold."""
    return rows[:, None, :, None] & columns[:, None, None, :]
