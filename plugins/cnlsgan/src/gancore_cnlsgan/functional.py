"""CN-LSGAN as pure functions: least squares without halves, the reconstruction term and its decay.

Symbols: x reals, G(z) fakes, D a logit, x^ a point between a real and a fake, B the batch. The two lines of
"CN-LSGAN"::

    L_D = E (D(x) - 1)^2 + E D(G(z))^2 + lambda_1 E (||grad D(x^)||_2 - 1)^2
    L_G = E (D(G(z)) - 1)^2 + lambda_2 E (G(z) - x)^2

x^ and the penalty are ``gancore.api.interpolate`` and ``gancore.api.gradient_norm``.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Reduction = Literal["mean", "sum"]
Decay = Literal["none", "linear", "cosine"]

MIDDLE = 0.5
"""D's best answer where reals and fakes are alike: half way between the targets 0 and 1."""


def adversarial_d(real: Tensor, fake: Tensor) -> Tensor:
    """E (D(x) - 1)^2 + E D(G(z))^2; 0-d.

    Args:
        real, fake: (B,) raw outputs of D.

    Reference: CN-LSGAN, line 1. LSGAN, arXiv:1611.04076, eq. 9, halves it.
    """
    return (real - 1).square().mean() + fake.square().mean()


def adversarial_g(fake: Tensor) -> Tensor:
    """E (D(G(z)) - 1)^2; 0-d.

    Args:
        fake: (B,) raw outputs of D.

    Reference: CN-LSGAN, line 2. LSGAN, arXiv:1611.04076, eq. 9, halves it.
    """
    return (fake - 1).square().mean()


def reconstruction(fake: Tensor, real: Tensor, reduction: Reduction = "mean") -> Tensor:
    """E (G(z) - x)^2, the i-th fake against the i-th real, which are independent; 0-d.

    Args:
        fake, real: (B, …). reduction: over the values of an image, ``mean`` or ``sum``; over the batch the mean.

    With n values an image its gradient with respect to G(z_i) is 2 (G(z_i) - x_i) / (n B), or with ``sum``
    2 (G(z_i) - x_i) / B. Since z and x are independent,

        E (G(z) - x)^2 = Var(x) + E (G(z) - E x)^2,

    so that the term pulls every fake towards the mean of the data.

    Reference: CN-LSGAN, line 2.
    """
    squares = (fake - real).square().flatten(1)
    return (squares.mean(1) if reduction == "mean" else squares.sum(1)).mean()


def decay(progress: float, kind: Decay = "none", share: float = 1.0) -> float:
    """Factor on lambda_2: from 1 at the start to 0 after ``share`` of the run, then 0.

    Args:
        progress: done share of the run, in [0, 1].
        kind: ``none`` is 1 throughout; ``linear``; ``cosine``, half a period.
        share: in (0, 1].
    """
    if kind == "none":
        return 1.0
    done = min(progress / share, 1.0)
    return 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
