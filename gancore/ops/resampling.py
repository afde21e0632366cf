"""Upsampling, filtering and downsampling of images as one operation, with derivatives of any order.

Zeros between the samples, padding, a finite impulse response, every n-th sample: the resampling of StyleGAN2
(Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, arXiv:1912.04958) and of ADA.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore.ops.core import LIBRARY
from gancore.ops.runtime import define, ready

__all__ = ["reference", "upfirdn2d"]

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def upfirdn2d(
    x: Tensor,
    taps: Tensor | None,
    *,
    up: int | Pair = 1,
    down: int | Pair = 1,
    padding: int | Sides = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, filter, keep every n-th sample; in the dtype of ``x``, computed in float32 or wider.

    Along each side, with z the input after ``up - 1`` zeros behind each sample and after padding, and n taps f::

        out[o] = gain * sum_k f[n - 1 - k] z[o * down + k]        (flip: f[k])

    That is a convolution with f where it covers z, or with ``flip`` a correlation. With one image row and
    ``padding = (n - 1, n - up, 0, 0)`` it is ``scipy.signal.upfirdn``.

    Args:
        x: (B, C, H, W), in a floating-point type, H and W at least 1.
        taps: (n,) for the same filter along both sides, or (rows, columns); float32 or float64, on the device of
            ``x``, without gradient. None for no filter.
        up, down: factors, at least 1: one for both sides, or (columns, rows).
        padding: zeros around the image with inserted zeros: one number, or (left, right, top, bottom), as
            ``torch.nn.functional.pad`` has them. Negative ones crop.
        gain: factor on the result. Inserted zeros make images darker: up ** 2 makes up for it.

    Returns:
        (B, C, (H * up + top + bottom - n) // down + 1, the same of W).

    Raises:
        ValueError: other dimensions or types, factors below 1, a result without pixels, padding that crops all.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x is {tuple(x.shape)} {x.dtype}; expected (B, C, H, W) in a floating-point type")
    wide = torch.promote_types(x.dtype, torch.float32)
    if taps is None:
        taps = x.new_ones((1,), dtype=wide)
    _check_taps(taps, x)
    ups, downs = _pair("up", up), _pair("down", down)
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if len(sides) != 4:
        raise ValueError(f"padding = {padding}; expected a number or (left, right, top, bottom)")
    sizes = []
    for name, size, count, u, d, before, after in (
        ("width", x.shape[3], taps.shape[-1], ups[0], downs[0], *sides[:2]),
        ("height", x.shape[2], taps.shape[0], ups[1], downs[1], *sides[2:]),
    ):
        left = size * u + min(before, 0) + min(after, 0)
        out = (size * u + before + after - count) // d + 1
        if size < 1 or left < 1 or out < 1:
            raise ValueError(
                f"{name} {size} times up {u} with padding {before} and {after}, {count} taps and down {d} leaves "
                "no pixel; expected at least 1"
            )
        sizes.append(out)
    taps = taps.to(wide)
    if ready(LIBRARY, x):
        settings = (*ups, *downs, sides[0], sides[2], *sizes, bool(flip), float(gain))
        found: Tensor = _operation(x, taps, *settings)
        return found
    return reference(x, taps, ups, downs, sides, flip, gain)


def reference(
    x: Tensor, taps: Tensor, up: Pair, down: Pair, padding: tuple[int, ...], flip: bool, gain: float
) -> Tensor:
    """:func:`upfirdn2d` in plain torch, with nothing left to default."""
    count, channels, height, width = x.shape
    z = x.to(taps.dtype)
    if up != (1, 1):
        z = F.pad(z.reshape(count, channels, height, 1, width, 1), (0, up[0] - 1, 0, 0, 0, up[1] - 1))
        z = z.reshape(count, channels, height * up[1], width * up[0])
    z = F.pad(z, padding)
    if not flip:
        taps = taps.flip((0,) if taps.dim() == 1 else (0, 1))
    if taps.dim() == 2:
        passes = [(taps * gain, down)]
    else:
        passes = [(taps[None, :] * gain, (down[0], 1)), (taps[:, None], (1, down[1]))]
    for kernel, kept in passes:
        z = F.conv2d(z, kernel.expand(channels, 1, -1, -1), groups=channels, stride=kept[::-1])
    return z.to(x.dtype)


def _check_taps(taps: Tensor, x: Tensor) -> None:
    if taps.dim() not in (1, 2) or taps.numel() == 0 or taps.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"taps are {tuple(taps.shape)} {taps.dtype}; expected (n,) or (rows, columns) in float32 or float64"
        )
    if taps.device != x.device:
        raise ValueError(f"taps are on {taps.device} and x on {x.device}; expected one device")
    if taps.requires_grad:
        raise ValueError("taps require a gradient, and a filter has none here; detach them")


def _pair(name: str, factor: int | Pair) -> Pair:
    both = (factor, factor) if isinstance(factor, int) else tuple(factor)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f"{name} = {factor}; expected at least 1, one number or (columns, rows)")
    return both[0], both[1]


def _fake(x: Tensor, taps: Tensor, *settings: Any) -> Tensor:
    width, height = settings[6:8]
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (x.shape[0], x.shape[1], height, width), dtype=x.dtype, device=x.device, memory_format=layout
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, *ctx.settings = inputs
    ctx.size = x.shape[3], x.shape[2]
    ctx.save_for_backward(taps)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """The transpose has the same form: up and down exchanged, the filter reversed, other padding."""
    (taps,) = ctx.saved_tensors
    up_x, up_y, down_x, down_y, left, top, _, _, flip, gain = ctx.settings
    before = taps.shape[-1] - 1 - left, taps.shape[0] - 1 - top
    found = _operation(gradient, taps, down_x, down_y, up_x, up_y, *before, *ctx.size, not flip, gain)
    return found, None, *[None] * len(ctx.settings)


_operation = define(
    LIBRARY,
    "upfirdn2d(Tensor x, Tensor taps, int up_x, int up_y, int down_x, int down_y, int left, int top, int width, "
    "int height, bool flip, float gain) -> Tensor",
    fake=_fake,
    setup_context=_save,
    backward=_backward,
)
