"""AugSelf-GAN as pure functions: targets from the random parameters, and the losses of D and of G.

Hou et al., "Augmentation-Aware Self-Supervision for Data-Efficient GAN Training", NeurIPS 2023,
arXiv:2205.15677.

Symbols: T(x; w) the augmentation with parameters w, phi the features of D, and for each head a linear
function of phi(T(x; w)) - phi(x) that predicts w+ = w for reals and w- = -w for fakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum_dims"]

SIZES = {"translation": 2, "cutout": 2}
"""Parameters of an operation that has more than one."""


def width(operations: tuple[str, ...]) -> int:
    """How many numbers a head predicts for these operations."""
    return sum(SIZES.get(name, 1) for name in operations)


def target(
    draw: Mapping[str, Tensor],
    operations: tuple[str, ...],
    reach: tuple[int, int],
    span: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """w of one head, in [0, 1] and not centred: with w >= 0, -w is never the parameter of an augmentation.

    Args:
        draw: as ``gancore_diffaugment.functional.draw`` returns it: uniforms (B,), shifts and centres (B, 2).
        operations: those that the head predicts, in order.
        reach: S, the largest shift of rows and of columns.
        span: the largest centre of cutout for rows and for columns, size - cut % 2.

    Returns:
        (B, :func:`width`) in ``dtype``. Colour: the uniforms themselves, whatever the strengths. Translation:
        shift / (2 S) + 0.5. Cutout: centre / span. Rows before columns. Where S or span is 0 there is
        nothing to predict: then shift / 2 + 0.5 = 0.5 and centre / 1 = 0.

    Reference: the released code of AugSelf-GAN.
    """
    parts = []
    for name in operations:
        drawn = draw[name]
        if name == "translation":
            parts += [drawn[:, i].to(dtype) / (2 * max(reach[i], 1)) + 0.5 for i in (0, 1)]
        elif name == "cutout":
            parts += [drawn[:, i].to(dtype) / max(span[i], 1) for i in (0, 1)]
        else:
            parts.append(drawn.to(dtype))
    return torch.stack(parts, dim=1)


def error(predicted: Tensor, wanted: Tensor, reduction: Reduction = "mean") -> Tensor:
    """E |p - w|^2 of one head; 0-d.

    Args:
        predicted, wanted: (B, K), in one dtype.
        reduction: ``mean`` over batch and parameters (released code), ``sum_dims`` the squared norm, averaged
            over the batch (presentation): K times as much.
    """
    squares = (predicted - wanted).square()
    return squares.mean() if reduction == "mean" else squares.sum(1).mean()


def predict_loss(predicted: Tensor, w: Tensor, sign: Literal[1, -1], reduction: Reduction = "mean") -> Tensor:
    """D's loss of one head on one side: the error against sign * w, +1 for reals and -1 for fakes.

    Reference: AugSelf-GAN, the self-supervised loss of the discriminator.
    """
    return error(predicted, sign * w, reduction)


def fool_loss(predicted: Tensor, w: Tensor, reduction: Reduction = "mean") -> Tensor:
    """G's loss of one head on fakes: error against +w less error against -w, which is -4 E p w.

    Linear in the prediction and unbounded below.

    Reference: AugSelf-GAN, the self-supervised loss of the generator.
    """
    return error(predicted, w, reduction) - error(predicted, -w, reduction)
