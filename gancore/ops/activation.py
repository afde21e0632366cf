"""Bias, activation, gain and clamp as one operation, with first and second derivatives.

y = clamp(act(x + b) * gain), the step after every convolution of StyleGAN2 and its relatives (Karras et al.,
"Analyzing and Improving the Image Quality of StyleGAN", 2020, arXiv:1912.04958, and its implementation notes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore.errors import nearest
from gancore.ops.core import LIBRARY
from gancore.ops.runtime import define, ready

__all__ = ["ACTIVATIONS", "bias_act", "reference"]

PIECEWISE, TANH, SIGMOID, ELU, SOFTPLUS, SWISH = range(6)
"""What the kernels tell apart."""

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One activation: its function, its second derivative, and defaults.

    Args:
        value, curvature: of u and alpha, in plain torch. curvature: None where it is 0.
        takes_alpha: whether a caller may choose alpha.
        scale: part of the gain that belongs to the activation itself, for the kernels.
    """

    kind: int
    value: Callable[[Tensor, float], Tensor]
    curvature: Callable[[Tensor, float], Tensor] | None = None
    alpha: float = 0.0
    takes_alpha: bool = False
    gain: float = 1.0
    scale: float = 1.0


def _elu_curvature(u: Tensor, alpha: float) -> Tensor:
    return torch.where(u > 0, 0.0, alpha * u.clamp(max=0).exp())


def _sigmoid_curvature(u: Tensor, alpha: float) -> Tensor:
    s = u.sigmoid()
    return s * (1 - s) * (1 - 2 * s)


def _tanh_curvature(u: Tensor, alpha: float) -> Tensor:
    t = u.tanh()
    return -2 * t * (1 - t * t)


def _softplus_curvature(u: Tensor, alpha: float) -> Tensor:
    s = u.sigmoid()
    return s * (1 - s)


def _swish_curvature(u: Tensor, alpha: float) -> Tensor:
    s = u.sigmoid()
    return s * (1 - s) * (2 + u * (1 - 2 * s))


ACTIVATIONS = {
    "linear": Activation(PIECEWISE, lambda u, alpha: u, alpha=1.0),
    "relu": Activation(PIECEWISE, lambda u, alpha: F.relu(u), gain=math.sqrt(2)),
    "lrelu": Activation(PIECEWISE, F.leaky_relu, alpha=0.2, takes_alpha=True, gain=math.sqrt(2)),
    "tanh": Activation(TANH, lambda u, alpha: u.tanh(), _tanh_curvature),
    "sigmoid": Activation(SIGMOID, lambda u, alpha: u.sigmoid(), _sigmoid_curvature),
    "elu": Activation(ELU, F.elu, _elu_curvature, alpha=1.0, takes_alpha=True),
    "selu": Activation(ELU, lambda u, alpha: F.selu(u), _elu_curvature, alpha=SELU_ALPHA, scale=SELU_SCALE),
    "softplus": Activation(SOFTPLUS, lambda u, alpha: F.softplus(u, threshold=50), _softplus_curvature),
    "swish": Activation(SWISH, lambda u, alpha: F.silu(u), _swish_curvature, gain=math.sqrt(2)),
}
"""By name: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish."""

CURVATURES = {chosen.kind: chosen.curvature for chosen in ACTIVATIONS.values()}


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    dim: int = 1,
) -> Tensor:
    """clamp(act(x + bias) * gain), in the dtype of ``x``; computed in float32 or wider.

    The gradient is 0 where the result reaches the clamp. Piecewise linear activations keep the result for the
    backward pass and not ``x``. Differentiable as often as needed.

    Args:
        x: of any shape with at least one dimension, in a floating-point type.
        bias: (x.shape[dim],), in any floating-point type.
        act: a name of :data:`ACTIVATIONS`.
        alpha: slope below 0 of ``lrelu`` (0.2), factor below 0 of ``elu`` (1).
        gain: by default sqrt(2) for ``relu``, ``lrelu`` and ``swish``, which keeps the variance about, else 1.
        clamp: largest magnitude of the result, at least 0; None does not clamp.
        dim: the dimension of the bias.

    Raises:
        ValueError: an unknown activation, alpha for one that has none, a bias of another shape, values that are
            not floating-point, a negative clamp.
        IndexError: ``x`` has no dimension ``dim``.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act = {act!r}{nearest(act, ACTIVATIONS)}; expected one of {', '.join(ACTIVATIONS)}")
    chosen = ACTIVATIONS[act]
    if alpha is not None and not chosen.takes_alpha:
        taking = ", ".join(name for name, known in ACTIVATIONS.items() if known.takes_alpha)
        raise ValueError(f"alpha = {alpha} for act = {act!r}, which has none; it is for {taking}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp = {clamp}; expected at least 0, or None")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; expected a floating-point type")
    if not -x.dim() <= dim < x.dim():
        raise IndexError(f"dim = {dim} for x of shape {tuple(x.shape)}")
    dim %= x.dim()
    if bias is not None and (bias.shape != x.shape[dim : dim + 1] or not bias.is_floating_point()):
        raise ValueError(
            f"bias is {tuple(bias.shape)} {bias.dtype} for x of shape {tuple(x.shape)}; expected "
            f"({x.shape[dim]},) in a floating-point type"
        )
    alpha = chosen.alpha if alpha is None else float(alpha)
    gain = chosen.gain if gain is None else float(gain)
    # The sign of the result tells that of x + bias where neither alpha nor gain turns it over.
    tells = chosen.kind != PIECEWISE or (alpha >= 0 and gain > 0)
    if tells and ready(LIBRARY, x) and (bias is None or bias.device == x.device):
        wide = None if bias is None else bias.to(_wide(x.dtype))
        limit = -1.0 if clamp is None else float(clamp)
        found: Tensor = _operation(x, wide, chosen.kind, alpha, gain * chosen.scale, limit, dim)
        return found
    return reference(x, bias, act, alpha, gain, clamp, dim)


def reference(
    x: Tensor, bias: Tensor | None, act: str, alpha: float, gain: float, clamp: float | None, dim: int
) -> Tensor:
    """:func:`bias_act` in plain torch, with nothing left to default."""
    u = _biased(x, bias, dim)
    return _clamped((ACTIVATIONS[act].value(u, alpha) * gain).to(x.dtype), clamp)


def _clamped(y: Tensor, clamp: float | None) -> Tensor:
    """The clamp, whose gradient is 0 at the limits too; ``torch.clamp`` passes it there."""
    if clamp is None:
        return y
    limit = y.new_full((), clamp)
    return torch.where(y >= limit, limit, torch.where(y <= -limit, -limit, y))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _biased(x: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    """x + bias, in float32 or wider."""
    wide = x.to(_wide(x.dtype))
    return wide if bias is None else wide + _along(bias, wide, dim)


def _along(bias: Tensor, x: Tensor, dim: int) -> Tensor:
    """(C,) with C along ``dim`` of x, in its dtype."""
    return bias.to(x.dtype).reshape([-1 if d == dim else 1 for d in range(x.dim())])


def _like(x: Tensor) -> Tensor:
    """What the kernels return for values like x: channels last for channels last, else contiguous."""
    if not x.is_contiguous():
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        layout = formats.get(x.dim(), torch.contiguous_format)
        if x.is_contiguous(memory_format=layout):
            return torch.empty_like(x, memory_format=layout)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, *settings = inputs
    kind, alpha, _, clamp, _ = settings
    ctx.settings = settings
    ctx.biased = bias is not None
    if kind != PIECEWISE:
        ctx.save_for_backward(x, bias)
    elif alpha == 1 and clamp < 0:  # linear: the gradient depends on nothing
        ctx.save_for_backward(None, None)
    else:
        ctx.save_for_backward(output, None)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    saved, bias = ctx.saved_tensors
    summed = ctx.biased and ctx.needs_input_grad[1]
    found, sums = _gradient(gradient, gradient if saved is None else saved, bias, summed, *ctx.settings)
    return found, sums if summed else None, *[None] * len(ctx.settings)


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    gradient, saved, bias, ctx.summed, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    smooth = ctx.settings[0] != PIECEWISE
    ctx.save_for_backward(gradient if smooth else None, saved, bias)


def _double_backward(ctx: Any, by_values: Tensor | None, by_sums: Tensor | None) -> tuple[Any, ...]:
    """``v``, what the gradient of x is weighted with, leads back to the gradient and, by act'', to x and bias."""
    gradient, saved, bias = ctx.saved_tensors
    kind, alpha, gain, clamp, dim = ctx.settings
    v = by_values
    if ctx.summed and by_sums is not None:
        spread = _along(by_sums, saved, dim).expand_as(saved)
        v = spread if v is None else v + spread
    nothing = [None] * (1 + len(ctx.settings))
    if v is None:
        return None, None, None, *nothing
    first, _ = _gradient(v, saved, bias, False, *ctx.settings)
    curvature = CURVATURES[kind]
    if curvature is None:
        return first, None, None, *nothing
    u = _biased(saved, bias, dim)
    second = curvature(u, alpha) * gain * gradient.to(u.dtype) * v.to(u.dtype)
    if clamp >= 0:
        limit = saved.new_full((), clamp)
        value = _operation(saved.detach(), None if bias is None else bias.detach(), kind, alpha, gain, clamp, dim)
        second = second.masked_fill(value.abs() >= limit, 0)
    others = [d for d in range(saved.dim()) if d != dim]
    sums = None
    if bias is not None:
        sums = second.sum(others) if others else second
    return first, second.to(saved.dtype), sums, *nothing


def _fake_gradient(
    gradient: Tensor, saved: Tensor, bias: Tensor | None, summed: bool, *settings: Any
) -> tuple[Tensor, Tensor]:
    count = saved.shape[settings[-1]] if summed else 0
    return _like(saved), saved.new_empty((count,), dtype=_wide(saved.dtype))


_SETTINGS = "int kind, float alpha, float gain, float clamp, int dim"

_operation = define(
    LIBRARY,
    f"bias_act(Tensor x, Tensor? bias, {_SETTINGS}) -> Tensor",
    fake=lambda x, bias, *settings: _like(x),
    setup_context=_save,
    backward=_backward,
)

_gradient = define(
    LIBRARY,
    f"bias_act_grad(Tensor gradient, Tensor saved, Tensor? bias, bool summed, {_SETTINGS}) -> (Tensor, Tensor)",
    fake=_fake_gradient,
    setup_context=_save_gradient,
    backward=_double_backward,
)
