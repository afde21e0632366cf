"""Each objective against float64 loops, its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.builtins import objectives as o


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def relu(x: float) -> float:
    return max(x, 0.0)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


REAL = np.random.default_rng(0).normal(0.7, 2.0, size=7)
FAKE = np.random.default_rng(1).normal(-0.4, 2.0, size=7)


def average(f, sign_a: float, sign_b: float) -> float:
    above = mean([f(sign_a * (r - mean(list(FAKE)))) for r in REAL])
    below = mean([f(sign_b * (k - mean(list(REAL)))) for k in FAKE])
    return above + below


CASES = {
    "nonsaturating_d": (
        o.nonsaturating_d,
        lambda: mean([softplus(-r) for r in REAL]) + mean([softplus(f) for f in FAKE]),
    ),
    "hinge_d": (o.hinge_d, lambda: mean([relu(1 - r) for r in REAL]) + mean([relu(1 + f) for f in FAKE])),
    "least_squares_d": (
        o.least_squares_d,
        lambda: 0.5 * mean([(r - 1) ** 2 for r in REAL]) + 0.5 * mean([f**2 for f in FAKE]),
    ),
    "least_squares_d, factor 1, targets 2 and -3": (
        lambda r, f: o.least_squares_d(r, f, factor=1.0, real_target=2.0, fake_target=-3.0),
        lambda: mean([(r - 2) ** 2 for r in REAL]) + mean([(f + 3) ** 2 for f in FAKE]),
    ),
    "wasserstein_d": (o.wasserstein_d, lambda: mean(list(FAKE)) - mean(list(REAL))),
    "relativistic_d": (
        o.relativistic_d,
        lambda: mean([softplus(-(r - f)) for r, f in zip(REAL, FAKE, strict=True)]),
    ),
    "relativistic_d, paired hinge": (
        lambda r, f: o.relativistic_d(r, f, loss="hinge"),
        lambda: mean([relu(1 - (r - f)) for r, f in zip(REAL, FAKE, strict=True)]),
    ),
    "relativistic_d, average": (
        lambda r, f: o.relativistic_d(r, f, form="average"),
        lambda: average(softplus, -1, 1),
    ),
    "relativistic_d, average hinge": (
        lambda r, f: o.relativistic_d(r, f, form="average", loss="hinge"),
        lambda: (
            (
                mean([relu(1 - (r - mean(list(FAKE)))) for r in REAL])
                + mean([relu(1 + (f - mean(list(REAL)))) for f in FAKE])
            )
            / 2
        ),
    ),
    "relativistic_g": (
        o.relativistic_g,
        lambda: mean([softplus(-(f - r)) for r, f in zip(REAL, FAKE, strict=True)]),
    ),
    "relativistic_g, average hinge": (
        lambda r, f: o.relativistic_g(r, f, form="average", loss="hinge"),
        lambda: (
            (
                mean([relu(1 - (f - mean(list(REAL)))) for f in FAKE])
                + mean([relu(1 + (r - mean(list(FAKE)))) for r in REAL])
            )
            / 2
        ),
    ),
    "nonsaturating_g": (lambda r, f: o.nonsaturating_g(f), lambda: mean([softplus(-f) for f in FAKE])),
    "hinge_g": (lambda r, f: o.hinge_g(f), lambda: -mean(list(FAKE))),
    "least_squares_g": (
        lambda r, f: o.least_squares_g(f),
        lambda: 0.5 * mean([(f - 1) ** 2 for f in FAKE]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_in_float64(name: str) -> None:
    function, oracle = CASES[name]
    got = function(torch.from_numpy(REAL), torch.from_numpy(FAKE))
    assert got.dim() == 0
    assert float(got) == pytest.approx(oracle(), rel=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, _ = CASES[name]
    inputs = [torch.from_numpy(REAL).requires_grad_(), torch.from_numpy(FAKE).requires_grad_()]
    used = [x for x in inputs if _reaches(function, inputs, x)]

    def call(*given: Tensor) -> Tensor:
        values = iter(given)
        return function(*[next(values) if any(x is u for u in used) else x.detach() for x in inputs])

    assert used
    assert torch.autograd.gradcheck(call, tuple(used))
    assert torch.autograd.gradgradcheck(call, tuple(used))


def _reaches(function, inputs: list[Tensor], one: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(function(*inputs), one, allow_unused=True)
    return gradient is not None


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_softplus_losses_stay_finite_on_extreme_logits(scale: float) -> None:
    logits = torch.full((3,), scale)
    assert torch.isfinite(o.nonsaturating_d(logits, logits))
    assert torch.isfinite(o.nonsaturating_g(logits))
    assert torch.isfinite(o.relativistic_d(logits, -logits))
