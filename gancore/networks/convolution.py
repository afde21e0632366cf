"""Convolutions that a CPU computes fast in bfloat16, and resampling folded into their weights.

torch's library for the CPU is slow where feature maps are small: its tiles are rows of pixels, and a map of 4x4
fills a quarter of one. There the same sums are taken as one matrix product over all pixels of the batch, with
what each pixel sees copied side by side. Everywhere else torch's own convolutions are called; :class:`Conv2d` and
:class:`ConvTranspose2d` are drop-in replacements for torch's, with the same parameters.

A convolution is bilinear in images and weights, so three maps are closed under differentiation of any order::

    y = conv(x, w)      x' = spread(y', w) = d<y', y>/dx      w' = correlate(x, y') = d<y', y>/dw
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

FEW, SOME, WIDE = 16, 64, 256
"""Pixels of an output map and channels. Up to ``FEW`` pixels weight gradients are matrix products, and image
gradients of strided convolutions; from ``WIDE`` channels on weight gradients up to ``SOME`` pixels. Measured:
``tests/benchmarks/bench_convolution.py``."""


class Geometry(NamedTuple):
    """Kernel side, stride and padding, the same along both axes."""

    size: int
    stride: int
    padding: int


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` with square kernels; see the module."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W)`` to ``(N, out, h, w)``."""
        return conv2d(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` with square kernels; see the module."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(N, in, h, w)`` to ``(N, out, H, W)``."""
        return conv_transpose2d(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """:func:`torch.nn.functional.conv2d`: the same function of the same arguments.

    Args:
        x: (N, C, H, W). weight: (O, C, k, k). bias: (O,) or None.
    """
    if not _half_on_cpu(x):
        return F.conv2d(x, weight, bias, stride, padding)
    geometry = Geometry(weight.shape[-1], stride, padding)
    x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    y: Tensor = _Conv.apply(x, weight, None if bias is None else bias.to(torch.bfloat16), geometry)
    return y


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """:func:`torch.nn.functional.conv_transpose2d`: the same function of the same arguments.

    Args:
        x: (N, O, h, w). weight: (O, C, k, k). bias: (C,) or None.
    """
    if not _half_on_cpu(x):
        return F.conv_transpose2d(x, weight, bias, stride, padding)
    geometry = Geometry(weight.shape[-1], stride, padding)
    x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    height, width = ((side - 1) * stride - 2 * padding + geometry.size for side in x.shape[2:])
    y: Tensor = _Spread.apply(
        x, weight, None if bias is None else bias.to(torch.bfloat16), geometry, (height, width)
    )
    return y


def conv_and_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution with padding 1, then the mean of 2x2 pixels, as one 4x4 convolution of stride 2.

    The mean is taken of the weights: 16 products an output pixel instead of 36.

    Args:
        x: (N, C, H, W), H and W even. weight: (O, C, 3, 3). bias: (O,) or None.
    """
    return conv2d(x, _widened(weight, pooled=True).permute(0, 3, 1, 2), bias, stride=2, padding=1)


def upsample_and_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each pixel four times, then a 3x3 convolution with padding 1, as a transposed 4x4 one of stride 2.

    Args:
        x: (N, C, h, w). weight: (O, C, 3, 3). bias: (O,) or None.
    """
    return conv_transpose2d(x, _widened(weight, pooled=False).permute(3, 0, 1, 2), bias, stride=2, padding=1)


def _widened(weight: Tensor, *, pooled: bool) -> Tensor:
    """(O, C, 3, 3) to (O, 4, 4, C): the mean of four neighbours, or, mirrored, their sum."""
    rows = weight.permute(0, 2, 3, 1).flatten(1, 2)
    wide: Tensor = _neighbours(pooled, weight.dtype, weight.device) @ rows
    return wide.view(len(wide), 4, 4, -1)


@lru_cache(maxsize=8)
def _neighbours(pooled: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(16, 9): which of 3x3 weights make each of 4x4."""
    with torch.inference_mode(False), torch.no_grad():
        along = torch.zeros(4, 3, dtype=torch.float64, device="cpu")
        for near in range(3):
            along[near : near + 2, near] = 0.5 if pooled else 1.0
        if not pooled:
            along = along.flip(0)
        return torch.kron(along, along).to(dtype).to(device)


def laid_out_as(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` (N, C, H, W) in the layout of a convolution's weight, so that no layer after it mixes two."""
    last = weight.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def flattened(x: Tensor) -> Tensor:
    """``x.flatten(1)`` of feature maps (N, C, H, W), whose gradient has the layout of ``x``."""
    flat: Tensor = _Flatten.apply(x)
    return flat


def _half_on_cpu(x: Tensor) -> bool:
    """Whether the convolution will be in bfloat16 on a CPU, and not inside a compiler, which has its own ways."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.dtype in (torch.float32, torch.bfloat16)
    return x.dtype == torch.bfloat16


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        ctx.last = x.is_contiguous(memory_format=torch.channels_last)
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].view(ctx.shape)
        return gradient.contiguous(memory_format=torch.channels_last) if ctx.last else gradient


# The three maps. Each is the gradient of the others.


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return F.conv2d(x, weight, bias, geometry.stride, geometry.padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (y,), (x, weight) = gradients, ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _Spread.apply(y, weight, None, ctx.geometry, tuple(x.shape[2:])) if of_x else None,
            _Correlate.apply(x, y, ctx.geometry) if of_weight else None,
            y.sum((0, 2, 3)) if of_bias else None,
            None,
        )


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, sides: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.geometry = geometry
        return spread(y, weight, bias, geometry, sides)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (y, weight) = gradients, ctx.saved_tensors
        of_y, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _Conv.apply(x, weight, None, ctx.geometry) if of_y else None,
            _Correlate.apply(x, y, ctx.geometry) if of_weight else None,
            x.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.geometry = geometry
        return correlate(x, y, geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y = ctx.saved_tensors
        of_x, of_y, _ = ctx.needs_input_grad
        return (
            _Spread.apply(y, gradients[0], None, ctx.geometry, tuple(x.shape[2:])) if of_x else None,
            _Conv.apply(x, gradients[0], None, ctx.geometry) if of_y else None,
            None,
        )


def spread(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, sides: tuple[int, int]) -> Tensor:
    """A transposed convolution, which is the gradient of a convolution with respect to its input.

    Args:
        y: (N, O, h, w). weight: (O, C, k, k). bias: (C,) or None. sides: H and W of the result.

    Returns:
        (N, C, H, W).
    """
    size, stride, padding = geometry
    reach = [(side + 2 * padding - size) % stride for side in sides]
    few = stride > 1 and y.shape[2] * y.shape[3] <= FEW
    if few and size % stride == 0 and not any(reach):
        x = _spread_by_products(y, weight, geometry, sides)
        return x if bias is None else x + bias[:, None, None]
    return F.conv_transpose2d(y, weight, bias, stride, padding, output_padding=reach)


def correlate(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of a convolution with respect to its weight.

    Args:
        x: (N, C, H, W). y: (N, O, h, w).

    Returns:
        (O, C, k, k).
    """
    size, stride, padding = geometry
    shape = (y.shape[1], x.shape[1], size, size)
    few = SOME if x.shape[1] >= WIDE else FEW
    if y.shape[2] * y.shape[3] > few or 0 in (*x.shape, *y.shape):
        return conv2d_weight(x, shape, y, stride, padding)  # type: ignore[no-untyped-call, no-any-return]
    of_pixels = y.permute(1, 0, 2, 3).reshape(y.shape[1], -1)
    weight = of_pixels @ _windows(_padded(x, padding), size, stride)
    return weight.view(shape[0], size, size, shape[1]).permute(0, 3, 1, 2)


def _spread_by_products(y: Tensor, weight: Tensor, geometry: Geometry, sides: tuple[int, int]) -> Tensor:
    """Pixel q stride + s of the padded input is the sum over a of y[q - a] w[a stride + s], for all s at once."""
    size, stride, padding = geometry
    (count, outer, *_), inner = y.shape, weight.shape[1]
    steps = size // stride
    parts = weight.permute(0, 2, 3, 1).reshape(outer, steps, stride, steps, stride, inner)
    back = range(steps - 1, -1, -1)
    matrix = torch.stack([parts[:, a, :, b] for a in back for b in back]).view(-1, stride * stride * inner)
    blocks = [side + steps - 1 for side in y.shape[2:]]
    found = _windows(_padded(y, steps - 1), steps, 1) @ matrix
    found = found.view(count, *blocks, stride, stride, inner).permute(0, 1, 3, 2, 4, 5)
    rows = found.reshape(count, blocks[0] * stride, blocks[1] * stride, inner)
    height, width = sides
    rows = rows[:, padding : padding + height, padding : padding + width]
    return rows.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _padded(x: Tensor, padding: int) -> Tensor:
    """(N, C, H, W) to (N, H + 2 p, W + 2 p, C), channels innermost in memory."""
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4)).contiguous()


def _windows(rows: Tensor, size: int, stride: int) -> Tensor:
    """(N, H, W, C) to (N h w, k k C): what each output pixel sees. Valid until the next call in this thread."""
    count, channels = rows.shape[0], rows.shape[3]
    height, width = ((side - size) // stride + 1 for side in rows.shape[1:3])
    image, row, column, _ = rows.stride()
    view = rows.as_strided(
        (count, height, width, size, size * channels), (image, stride * row, stride * column, row, 1)
    )
    copied = _scratch(view.numel(), rows.dtype).view(view.shape).copy_(view)
    return copied.view(count * height * width, size * size * channels)


def _scratch(count: int, dtype: torch.dtype) -> Tensor:
    """Memory that stays: the first touch of fresh memory costs more than the copy."""
    known: Tensor | None = getattr(_kept, "tensor", None)
    if known is None or known.numel() < count or known.dtype != dtype:
        known = _kept.tensor = torch.empty(count, dtype=dtype)
    return known[:count]


_kept = threading.local()
