"""Mixing, and distances to mixed rows, in one operation each.

Mixing is linear in the values, M v with row i of M holding lambda_i at i and 1 - lambda_i at pi(i); its transpose
is a mix by the inverse permutation, so that ``mix`` is its own derivative of any order. ``distances`` makes sums
over the elements of each row, from which plain torch makes the loss; see ``csrc/adaptivemix.h``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gancore.ops import define, ready
from gancore_adaptivemix.library import LIBRARY

KINDS = {"l1": 0, "l2": 1, "mse": 1, "cosine": 2}
"""Sums of a row: of |d|, of d^2, or a·t, a·a and t·t, with d = a - t."""

SMALLEST = 1e-8
"""The least norm that a cosine is divided by, as in ``torch.nn.functional.cosine_similarity``."""


def takes(values: Tensor, permutation: Tensor, lam: Tensor, *others: Tensor) -> bool:
    """Whether the fused path can do this, and is there. Neither lambda nor noise gets a gradient from it."""
    return (
        values.dim() > 0
        and not lam.requires_grad
        and permutation.device == values.device == lam.device
        and permutation.dtype == torch.int64
        and permutation.shape == values.shape[:1]
        and lam.shape in ((), values.shape[:1])
        and all(other.shape == values.shape for other in others)
        and ready(LIBRARY, values, *others)
    )


def mixed(values: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """:func:`gancore_adaptivemix.functional.mix`."""
    result: Tensor = mix(values, permutation, *_weights(values, lam))
    return result


def shrinkage(
    features: Tensor,
    permutation: Tensor,
    lam: Tensor,
    features_of_mixed: Tensor,
    noise: Tensor | None,
    distance: str,
    noise_on: str,
    reduction: str,
) -> Tensor:
    """:func:`gancore_adaptivemix.functional.mixed_shrinkage`, with the stop-gradient taken."""
    weights = _weights(features, lam)
    kind = KINDS[distance]
    sums = distances(features, features_of_mixed, noise, permutation, *weights, kind, noise_on == "target")
    if distance == "cosine":
        dot, first, second = sums.unbind(1)
        values = -dot / (first.clamp_min(SMALLEST**2) * second.clamp_min(SMALLEST**2)).sqrt()
    elif distance == "l2":
        apart = sums[:, 0] > 0  # the norm of zeros has gradient 0
        values = torch.where(apart, torch.where(apart, sums[:, 0], 1.0).sqrt(), 0.0)
    else:
        values = sums[:, 0]
    total: Tensor = values.sum()
    if reduction == "mean":
        total = total / (features.numel() if distance in ("l1", "mse") else features.shape[0])
    return total.to(features.dtype)


def _weights(values: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """lambda and 1 - lambda, each (B,) float64, of the numbers that the reference has in the values' dtype."""
    lam = lam.to(values.dtype).expand(values.shape[:1])
    return lam.double(), (1 - lam).double()


def _like(x: Tensor) -> Tensor:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


def _save_mix(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _transposed(values: Tensor, order: Tensor, own: Tensor, other: Tensor) -> Tensor:
    inverse = order.argsort()
    result: Tensor = mix(values, inverse, own, other[inverse])
    return result


def _mix_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return _transposed(gradient, *ctx.saved_tensors), None, None, None


mix = define(
    LIBRARY,
    "mix(Tensor values, Tensor order, Tensor own, Tensor other) -> Tensor",
    fake=lambda values, *_: _like(values),
    setup_context=_save_mix,
    backward=_mix_backward,
)


def _fake_distances(features: Tensor, *rest: Any) -> Tensor:
    columns = 3 if rest[-2] == KINDS["cosine"] else 1
    return features.new_empty((features.shape[0], columns), dtype=torch.float64)


def _save_distances(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.kind, ctx.noisy_target = inputs
    ctx.save_for_backward(*tensors)


def _distances_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    wants_target, wants_mixed = ctx.needs_input_grad[:2]
    of_features, of_mixed = distances_grad(gradient, *ctx.saved_tensors, ctx.kind, ctx.noisy_target, wants_target)
    return of_features if wants_target else None, of_mixed if wants_mixed else None, *[None] * 6


distances = define(
    LIBRARY,
    "distances(Tensor features, Tensor of_mixed, Tensor? noise, Tensor order, Tensor own, Tensor other, "
    "int kind, bool noisy_target) -> Tensor",
    fake=_fake_distances,
    setup_context=_save_distances,
    backward=_distances_backward,
)


def _fake_gradient(gradient: Tensor, features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _like(features) if rest[-1] else features.new_empty((0,)), _like(features)


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.kind, ctx.noisy_target, ctx.target = inputs
    ctx.save_for_backward(*tensors)


def _double_backward(ctx: Any, by_features: Tensor, by_mixed: Tensor) -> tuple[Tensor | None, ...]:
    """In plain torch, for penalties on the loss. u and w weight the gradients of a = F(x^) and of the target."""
    gradient, features, of_mixed, noise, order, own, other = ctx.saved_tensors
    u, a, t = by_mixed, of_mixed, mix(features, order, own, other)
    if noise is not None and ctx.noisy_target:
        t = t + noise
    elif noise is not None:
        a = a + noise
    w = mix(by_features, order, own, other) if ctx.target else torch.zeros_like(u)
    places = [1] * (features.dim() - 1)
    s = [column.to(u.dtype).reshape(-1, *places) for column in gradient.unbind(1)]
    back_a: Tensor | None = None
    back_t: Tensor | None = None
    if ctx.kind == KINDS["cosine"]:
        parts = [u * t + w * a, 2 * u * a, 2 * w * t]
        back_a, back_t = s[0] * w + 2 * s[1] * u, s[0] * u + 2 * s[2] * w
    elif ctx.kind == KINDS["l1"]:
        parts = [(a - t).sign() * (u - w)]
    else:
        parts = [2 * (a - t) * (u - w)]
        back_a = 2 * s[0] * (u - w)
        back_t = -back_a
    sums = torch.stack([part.double().flatten(1).sum(1) for part in parts], dim=1)
    back = _transposed(back_t, order, own, other) if back_t is not None and ctx.target else None
    return sums, back, back_a, *[None] * 7


distances_grad = define(
    LIBRARY,
    "distances_grad(Tensor gradient, Tensor features, Tensor of_mixed, Tensor? noise, Tensor order, Tensor own, "
    "Tensor other, int kind, bool noisy_target, bool target) -> (Tensor, Tensor)",
    fake=_fake_gradient,
    setup_context=_save_gradient,
    backward=_double_backward,
)
