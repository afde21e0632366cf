"""Adaptive discriminator augmentation as pure functions; every random draw comes from a generator.

The pipeline in stages, each of which can be replaced on its own::

    parameters = sample(shape, p, multipliers, generator=...)   gates resolved, a value an image and op
    drawn = compose(parameters, shape)                          a 3x3 inverse and a 4x4 colour matrix an image
    images = apply(images, drawn)                               geometry, colour, filter, noise, cutout

:func:`draw` is the first two at once. B is the batch, images are (B, C, H, W) in [-1, 1], C = 1 or 3. Nothing
reads a value on the host and no shape depends on one. All of ``apply`` is affine in the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from gancore_ada import fused
from gancore_ada.color import apply_color, color_matrix
from gancore_ada.geometry import apply_blit, apply_geometry, bilinear, blit_inverse, geometry_inverse
from gancore_ada.sampling import (
    BAND_POWER,
    BLIT,
    COLOR,
    GEOMETRY,
    NORMALS,
    OPS,
    PAPER,
    UNIFORMS,
    Strengths,
    noise,
    numbers,
    sample,
    wanted_ops,
)
from gancore_ada.wavelets import SYM2, SYM6, octave_bands

__all__ = [
    "BAND_POWER",
    "BLIT",
    "COLOR",
    "GEOMETRY",
    "NORMALS",
    "OPS",
    "PAPER",
    "SYM2",
    "SYM6",
    "UNIFORMS",
    "Strengths",
    "apply",
    "apply_blit",
    "apply_color",
    "apply_cutout",
    "apply_filter",
    "apply_geometry",
    "apply_noise",
    "augment",
    "bilinear",
    "blit_inverse",
    "color_matrix",
    "compose",
    "count_signs",
    "draw",
    "geometry_inverse",
    "next_strength",
    "numbers",
    "octave_bands",
    "sample",
]


def compose(
    parameters: Mapping[str, Tensor], shape: tuple[int, ...], *, blit: Literal["wavelet", "exact"] = "wavelet"
) -> dict[str, Tensor]:
    """What :func:`apply` needs of the parameters: every value (B, …).

    Args:
        shape: (B, C, H, W). blit: ``"wavelet"`` puts flips, quarter turns and whole shifts into the geometry's
        matrix;
            ``"exact"`` keeps a matrix of their own for them, by which pixels are moved before.

    Returns:
        ``blit`` (B, 3, 3), ``geometry`` (B, 3, 3), ``color`` (B, 4, 4), ``bands`` (B, 4), ``sigma`` (B,),
        ``cutout`` (B, 4), ``noise`` (B, C, H, W).

    Raises:
        ValueError: exact quarter turns of images whose height and width differ by an odd number.
    """
    geometry = dict(parameters)
    draw: dict[str, Tensor | None] = {}
    with _full_precision(parameters):
        if blit == "exact":
            check_exact(shape, "rotate90" in parameters)
            draw["blit"] = blit_inverse(parameters)
            geometry = {name: value for name, value in parameters.items() if name not in BLIT}
        draw["geometry"] = geometry_inverse(geometry)
        draw["color"] = color_matrix(parameters)
    draw.update({name: parameters.get(name) for name in ("bands", "sigma", "cutout", "noise")})
    return {name: value for name, value in draw.items() if value is not None}


def check_exact(shape: tuple[int, ...], quarter_turns: bool) -> None:
    """Refuse exact quarter turns that would put pixels between pixels."""
    height, width = shape[-2:]
    if quarter_turns and (height - width) % 2:
        raise ValueError(
            f"an exact quarter turn of {height} x {width} puts pixels between pixels: take the wavelet path for "
            "blits, or rotate90 = 0, or images whose height and width differ by an even number"
        )


def apply(images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
    """Augment: blit, geometry, colour, filter, noise, cutout, as far as ``draw`` has them. Pure.

    Args:
        images: (B, C, H, W). draw: from :func:`compose`.

    Returns:
        As ``images``; computed in float32 or wider, whatever autocast says.

    Raises:
        ValueError: C is neither 1 nor 3.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images are {tuple(images.shape)}; expected (B, C, H, W) with 1 (grey) or 3 (RGB) channels"
        )
    dtype = torch.promote_types(images.dtype, torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        parts = {name: value.to(dtype) for name, value in draw.items()}
        filtered = "bands" in parts or "noise" in parts
        # What the fused operation does at once; cutout only where nothing stands between it and colour.
        together = {n: parts[n] for n in fused.WARPS if n in parts and not (filtered and n == "cutout")}
        wide = images.to(dtype) if filtered or "blit" in parts else images
        if "blit" in parts:
            wide = apply_blit(wide, parts.pop("blit"))
        if together and fused.takes(wide, together):
            wide = fused.apply(wide, together)
            parts = {name: value for name, value in parts.items() if name not in together}
        return (_reference(wide.to(dtype), parts) if parts else wide).to(images.dtype)


def _reference(images: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """The stages after the blit, in plain torch."""
    if "geometry" in parts:
        images = apply_geometry(images, parts["geometry"])
    if "color" in parts:
        images = apply_color(images, parts["color"])
    if "bands" in parts:
        images = apply_filter(images, parts["bands"])
    if "noise" in parts:
        images = apply_noise(images, parts["noise"], parts["sigma"])
    if "cutout" in parts:
        images = apply_cutout(images, parts["cutout"])
    return images


def draw(
    shape: tuple[int, ...],
    p: Tensor | float,
    multipliers: Mapping[str, float],
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    strengths: Strengths = PAPER,
    percentile: float | None = None,
    blit: Literal["wavelet", "exact"] = "wavelet",
) -> dict[str, Tensor]:
    """:func:`sample` and :func:`compose` at once, in one operation where it is built: the same draw.

    Args, Returns, Raises: as these.
    """
    wanted = wanted_ops(multipliers)
    if percentile is not None or not wanted or not fused.composes(device, dtype):
        parameters = sample(
            shape,
            p,
            multipliers,
            generator=generator,
            device=device,
            dtype=dtype,
            strengths=strengths,
            percentile=percentile,
        )
        return compose(parameters, shape, blit=blit)
    if blit == "exact":
        check_exact(shape, "rotate90" in wanted)
    strength = torch.as_tensor(p, dtype=torch.float32, device=device)
    drawn = fused.compose(
        *numbers(shape[0], generator=generator, device=device),
        strength,
        multipliers,
        strengths,
        shape,
        exact=blit == "exact",
        doubles=dtype == torch.float64,
    )
    if "noise" in wanted:
        drawn["noise"] = noise(shape, generator=generator, device=device).to(dtype)
    return drawn


def augment(
    images: Tensor,
    p: Tensor | float,
    multipliers: Mapping[str, float],
    *,
    generator: torch.Generator | None = None,
    strengths: Strengths = PAPER,
    percentile: float | None = None,
    blit: Literal["wavelet", "exact"] = "wavelet",
) -> Tensor:
    """All stages at once: :func:`sample`, :func:`compose`, :func:`apply`."""
    drawn = draw(
        tuple(images.shape),
        p,
        multipliers,
        generator=generator,
        device=images.device,
        dtype=torch.float64 if images.dtype == torch.float64 else torch.float32,
        strengths=strengths,
        percentile=percentile,
        blit=blit,
    )
    return apply(images, drawn)


def apply_filter(images: Tensor, bands: Tensor) -> Tensor:
    """Octave bands amplified, along rows and along columns, the image reflected at its border as often as needed.

    Args:
        images: (B, C, H, W), of any size, the 43 taps may reach far beyond. bands: (B, 4), gains, lowest band
        first.

    Reference: arXiv:2006.06676, appendix B, "image-space filtering".
    """
    rows, columns = (
        torch.tensordot(bands, _band_matrices(size, images.dtype, images.device), 1)[:, None]
        for size in images.shape[2:]
    )
    filtered: Tensor = rows @ images @ columns.mT
    return filtered


@lru_cache(maxsize=64)
def _band_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(4, size, size): each octave band as a matrix on an axis, reflection included."""
    with torch.inference_mode(False), torch.no_grad():
        taps = torch.tensor(octave_bands(), dtype=torch.float64, device="cpu")
        reach = taps.shape[1] // 2
        source = torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)
        period = max(2 * (size - 1), 1)
        folded = source % period
        pixel = torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(source)
        weights = torch.zeros(len(taps), size, size, dtype=torch.float64)
        weights.scatter_add_(2, pixel.expand(len(taps), -1, -1), taps[:, None].expand(-1, size, -1))
        return weights.to(dtype).to(device)


def apply_noise(images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x + sigma * noise, for images and noise (B, C, H, W) and sigma (B,).

    Reference: arXiv:2006.06676, appendix B, "corruptions".
    """
    return images + noise * sigma[:, None, None, None]


def apply_cutout(images: Tensor, cutout: Tensor) -> Tensor:
    """0 where a pixel's centre is nearer to the rectangle's centre than half its size, in both axes.

    Args:
        images: (B, C, H, W). cutout: (B, 4), centre (x, y) and size (x, y) as shares of the sides.

    Reference: arXiv:2006.06676, appendix B, "corruptions".
    """
    height, width = images.shape[2:]
    x, y = (
        (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size for size in (width, height)
    )
    kept_x = (x - cutout[:, 0:1]).abs() >= cutout[:, 2:3] / 2
    kept_y = (y - cutout[:, 1:2]).abs() >= cutout[:, 3:4] / 2
    return images * (kept_y[:, None, :, None] | kept_x[:, None, None, :]).to(images.dtype)


def count_signs(margin: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the signs of a margin (B,), and how many values were counted: all but NaN. Both 0-d."""
    counted = ~margin.isnan()
    signs = torch.where(counted, margin.sign(), torch.zeros_like(margin))
    return signs.sum(), counted.to(margin.dtype).sum()


def next_strength(
    p: Tensor, signs: Tensor, rows: Tensor, *, target: float, images: float, upper: float = float("inf")
) -> Tensor:
    """p + sign(signs / rows - target) * rows / images, held within [0, upper]; 0-d. With no rows, p.

    Args:
        signs: sum of the signs of the reals' margins since the last move. rows: how many there were.
        target: of the mean sign r_t. images: the reals in which p can go from 0 to 1.

    Reference: arXiv:2006.06676, section 3.1, r_t of eq. 1.
    Deviation: p is held below ``upper``; the authors' p may integrate above 1 (``upper`` infinite).
    """
    mean = signs / rows.clamp(min=1)
    step = (mean - target).sign() * (rows / images)
    return torch.where(rows > 0, (p + step).clamp(0, upper), p)


def _full_precision(parameters: Mapping[str, Tensor]) -> torch.autocast:
    """Matrices are composed in their own precision, whatever the context."""
    device = next((value.device.type for value in parameters.values()), "cpu")
    return torch.autocast(device, enabled=False)
