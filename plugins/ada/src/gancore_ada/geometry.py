"""Geometry: one inverse matrix an image, from output pixels to input pixels, and how it is executed.

Coordinates are in pixels from the centre of the image, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore_ada.matrices import matrix, product
from gancore_ada.sampling import BLIT
from gancore_ada.wavelets import SYM6

_SUPPORT = len(SYM6) // 4
"""Pixels beyond the border at which the lowpass still sees the image, on either side."""


def geometry_inverse(parameters: Mapping[str, Tensor]) -> Tensor | None:
    """All geometric ops as one homogeneous matrix from output to input, (B, 3, 3); None when there are none.

    The product, in the order of the pipeline, of the inverses of: mirror (1 - 2i, 1), rotate by -pi/2 a turn,
    shift, scale (s, s), rotate by -theta, scale (s, 1/s), rotate by -theta, shift.

    Args:
        parameters: from :func:`~gancore_ada.sampling.sample`.

    Reference: arXiv:2006.06676, appendix B, "pixel blitting" and "general geometric transformations".
    """
    steps = []
    if "xflip" in parameters:
        mirror = 1 - 2 * parameters["xflip"]
        steps.append(_scaling(mirror, torch.ones_like(mirror)))
    if "rotate90" in parameters:
        steps.append(_turning(*_quarter(parameters["rotate90"])))
    if "xint" in parameters:
        steps.append(_shifting(-parameters["xint"]))
    if "scale" in parameters:
        inverse = 1 / parameters["scale"]
        steps.append(_scaling(inverse, inverse))
    if "pre_rotation" in parameters:
        steps.append(_rotating(parameters["pre_rotation"]))
    if "aniso" in parameters:
        steps.append(_scaling(1 / parameters["aniso"], parameters["aniso"]))
    if "post_rotation" in parameters:
        steps.append(_rotating(parameters["post_rotation"]))
    if "xfrac" in parameters:
        steps.append(_shifting(-parameters["xfrac"]))
    if not steps:
        return None
    total = steps[0]
    for step in steps[1:]:
        total = product(total, step)
    return total


def blit_inverse(parameters: Mapping[str, Tensor]) -> Tensor | None:
    """The same of xflip, rotate90 and xint alone; its entries are whole numbers. None when there are none."""
    return geometry_inverse({name: value for name, value in parameters.items() if name in BLIT})


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return matrix(x, [[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _turning(cosine: Tensor, sine: Tensor) -> Tensor:
    return matrix(cosine, [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _rotating(angle: Tensor) -> Tensor:
    return _turning(angle.cos(), angle.sin())


def _quarter(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 0 … 3 quarter turns, without rounding."""
    return (turns - 2).abs() - 1, 1 - (turns - 1).abs()


def _shifting(by: Tensor) -> Tensor:
    x, y = by.unbind(1)
    return matrix(x, [[1, 0, x], [0, 1, y], [0, 0, 1]])


def apply_blit(images: Tensor, inverse: Tensor) -> Tensor:
    """Move whole pixels; what comes from outside is the image reflected at its border pixels, once, then 0.

    Args:
        images: (B, C, H, W). inverse: (B, 3, 3) of whole numbers, from :func:`blit_inverse`. A quarter turn needs
            H - W to be even, so that pixels fall on pixels.
    """
    batch, channels, height, width = images.shape
    x, y = _centred(width, inverse), _centred(height, inverse)
    columns, inside_x = _reflected_once(_line(inverse[:, 0], x, y, offset=(width - 1) / 2), width)
    rows, inside_y = _reflected_once(_line(inverse[:, 1], x, y, offset=(height - 1) / 2), height)
    index = (rows * width + columns).round().to(torch.int64).reshape(batch, 1, -1).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, index).reshape(images.shape)
    return moved * (inside_x & inside_y)[:, None].to(images.dtype)


def apply_geometry(images: Tensor, inverse: Tensor) -> Tensor:
    """Resample: up by 2 with sym6, look up bilinearly, down by 2 with sym6.

    What lies outside is the image reflected at its border pixels, once, up to size - 1 pixels on each side,
    then 0.

    Args:
        images: (B, C, H, W). inverse: (B, 3, 3), pixels from the centre, output to input.

    Returns:
        (B, C, H, W). The identity gives images of 7 pixels and more back up to rounding, for sym6 is
        orthogonal. A mirrored image is not the exact mirror image, for sym6 is not symmetric.

    Reference: arXiv:2006.06676, appendix B, "general geometric transformations".
    Deviation: the released code pads by as much as the farthest corner of the batch needs, so that the host
    waits for a number and shapes vary. Here every image has all of its reflection.
    """
    rows, columns = (axis(size, images.dtype, images.device) for size in images.shape[2:])
    inverse = inverse.to(images.dtype)
    if images.device.type != "cpu":
        return _resample(images, inverse, rows, columns)
    # Some images at a time: large blocks of memory are new at every call on a CPU, and their first touch is slow.
    fine = images.shape[1] * len(rows.up) * len(columns.up) * images.element_size()
    count = max(_BLOCK // fine, 1)
    parts = zip(torch.split(images, count), torch.split(inverse, count), strict=True)
    return torch.cat([_resample(*part, rows, columns) for part in parts])


_BLOCK = 1 << 24
"""Bytes of fine images that a CPU works on at a time."""


def _resample(images: Tensor, inverse: Tensor, rows: Axis, columns: Axis) -> Tensor:
    fine = rows.up @ images @ columns.up.mT
    return rows.down @ bilinear(fine, _lookup(inverse, rows, columns)) @ columns.down.mT


def _lookup(inverse: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Where each fine pixel of the output lies in the fine image, as ``grid_sample`` wants it: (B, h, w, 2)."""
    x, y = columns.outputs(inverse), rows.outputs(inverse)
    # A shift by one pixel is one by two fine pixels.
    return torch.stack(
        [
            _line(inverse[:, i], x, y, scale=along.scale, shift=2 * along.scale, offset=along.centre)
            for i, along in enumerate((columns, rows))
        ],
        -1,
    )


def _line(row: Tensor, x: Tensor, y: Tensor, *, scale: float = 1.0, shift: float = 1.0, offset: float) -> Tensor:
    """scale * (row_0 x + row_1 y) + shift * row_2 + offset for all x and y: (B, len(y), len(x))."""
    a, b, c = (row * scale)[:, 0], (row * scale)[:, 1], row[:, 2] * shift + offset
    return a[:, None, None] * x + (b[:, None] * y + c[:, None])[:, :, None]


def _centred(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2


def _reflected_once(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Indices reflected at 0 and size - 1, and which of them one reflection brings inside."""
    last = size - 1
    inside = (index >= -last) & (index <= 2 * last)
    return (last - (last - index.abs()).abs()).clamp(min=0), inside


@dataclass(frozen=True)
class Axis:
    """Resampling along one axis of N pixels, as constant matrices.

    Reflection makes 3 N - 2 pixels of them, sampling up 6 N - 4 fine ones. Rows of zeros fill these up to a
    power of two: the coordinates of ``grid_sample`` are fractions of that length, and so those of whole fine
    pixels are exact.

    Attributes:
        up: (T, N), reflect and sample up by 2. down: (N, 2 N + 12), sample down by 2.
        scale: 2 / T, of fine pixels to coordinates. centre: the coordinate of the centre of the image, less half
            a fine pixel.
    """

    up: Tensor
    down: Tensor
    scale: float
    centre: float

    def outputs(self, like: Tensor) -> Tensor:
        """Fine pixels of the output, from the centre of the image and half a fine pixel on."""
        # Even fine pixels lie on pixels of the image, so the fine grid as a whole lies half a fine pixel to one
        # side; the half that is added here is taken off in ``centre``.
        count = self.down.shape[1]
        return torch.arange(count, device=like.device, dtype=like.dtype) + (1 - count / 2)


@lru_cache(maxsize=64)
def axis(size: int, dtype: torch.dtype, device: torch.device) -> Axis:
    """The matrices of an axis of ``size`` pixels; made once."""
    with torch.inference_mode(False), torch.no_grad():
        up, down = _up(size), _down(size)
        fine = len(up)
        total = 1 << (fine - 1).bit_length()
        up = F.pad(up, (0, 0, 0, total - fine))
        up, down = (part.to(dtype).to(device) for part in (up, down))
    return Axis(up, down, 2 / total, (fine - 1) / total - 1)


def _lowpass() -> Tensor:
    taps = torch.tensor(SYM6, dtype=torch.float64, device="cpu")
    return taps / taps.sum()


def _up(size: int) -> Tensor:
    """(6 N - 4, N): reflect by N - 1 on both sides, put zeros between, convolve with twice the lowpass."""
    extended = 3 * size - 2
    taps = _lowpass() * 2
    fine = torch.arange(2 * extended)[:, None]
    double = fine + len(SYM6) // 2 - 1 - torch.arange(len(SYM6))
    source = double.div(2, rounding_mode="floor")
    used = (double % 2 == 0) & (source >= 0) & (source < extended)
    pixel = _reflected_once(source - (size - 1), size)[0].clamp(max=size - 1)
    weights = torch.zeros(2 * extended, size, dtype=torch.float64)
    return weights.scatter_add_(1, pixel, torch.where(used, taps, 0.0))


def _down(size: int) -> Tensor:
    """(N, 2 N + 12): correlate with the lowpass, take every other, without the margin on either side."""
    count = 2 * (size + 2 * _SUPPORT)
    tap = torch.arange(count) - 2 * torch.arange(size)[:, None] - 1
    used = (tap >= 0) & (tap < len(SYM6))
    return torch.where(used, _lowpass()[tap.clamp(0, len(SYM6) - 1)], 0.0)


def bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """:func:`torch.nn.functional.grid_sample` with zeros outside; the gradient is that of ``images`` alone.

    It is linear in the images, so its own adjoint is all that derivatives of any order need.

    Args:
        images: (B, C, H, W). grid: (B, h, w, 2), x and y in [-1, 1] from edge to edge.
    """
    sampled: Tensor = _Bilinear.apply(images, grid)
    return sampled


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape[2:]
        return F.grid_sample(images, grid, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _BilinearAdjoint.apply(gradients[0], ctx.saved_tensors[0], ctx.size), None


class _BilinearAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(grid)
        with torch.enable_grad():
            images = values.new_zeros(*values.shape[:2], *size).requires_grad_(True)
            total = (F.grid_sample(images, grid, align_corners=False) * values).sum()
            (spread,) = torch.autograd.grad(total, images)
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Bilinear.apply(gradients[0], ctx.saved_tensors[0]), None, None
