"""The terms against slow loops in float64, gradients against finite differences, and what the rec term does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gancore_cnlsgan import functional as f

RNG = np.random.default_rng(0)


def test_the_adversarial_losses_equal_loops_without_halves() -> None:
    real, fake = RNG.normal(size=5), RNG.normal(size=5)
    d = f.adversarial_d(torch.from_numpy(real), torch.from_numpy(fake))
    assert float(d) == pytest.approx(
        math.fsum((x - 1) ** 2 for x in real) / 5 + math.fsum(x**2 for x in fake) / 5, rel=1e-14
    )
    g = f.adversarial_g(torch.from_numpy(fake))
    assert float(g) == pytest.approx(math.fsum((x - 1) ** 2 for x in fake) / 5, rel=1e-14)


def test_a_d_that_cannot_tell_them_apart_does_best_half_way() -> None:
    """The margin's zero: with equal reals and fakes D's loss has its minimum there."""
    logits = torch.full((4,), f.MIDDLE, dtype=torch.float64, requires_grad=True)
    f.adversarial_d(logits, logits).backward()
    assert torch.equal(logits.grad, torch.zeros(4, dtype=torch.float64))


def loop_reconstruction(fake: np.ndarray, real: np.ndarray, reduction: str) -> float:
    """The i-th fake against the i-th real, value by value."""
    images = []
    for g, x in zip(fake, real, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(g.ravel(), x.ravel(), strict=True)]
        images.append(math.fsum(squares) / (len(squares) if reduction == "mean" else 1))
    return math.fsum(images) / len(images)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 2, 5)])
def test_reconstruction_equals_a_loop(shape: tuple[int, ...], reduction: str) -> None:
    fake, real = RNG.normal(size=shape), RNG.normal(size=shape)
    got = f.reconstruction(torch.from_numpy(fake), torch.from_numpy(real), reduction)
    assert float(got) == pytest.approx(loop_reconstruction(fake, real, reduction), rel=1e-14)


@pytest.mark.parametrize(("reduction", "values"), [("mean", 30), ("sum", 1)])
def test_the_gradient_of_a_fake_is_twice_its_distance_from_its_real(reduction: str, values: int) -> None:
    """2 lambda_2 (G(z) - x) / pixels for each sample; the batch mean divides by B."""
    lambda_2 = 0.1
    fake = torch.from_numpy(RNG.normal(size=(4, 3, 2, 5))).requires_grad_()
    real = torch.from_numpy(RNG.normal(size=(4, 3, 2, 5)))
    (lambda_2 * f.reconstruction(fake, real, reduction)).backward()
    expected = 2 * lambda_2 * (fake.detach() - real) / values / 4
    torch.testing.assert_close(fake.grad, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_equal_finite_differences(reduction: str) -> None:
    fake, real = (torch.from_numpy(RNG.normal(size=(3, 2, 2))).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: f.reconstruction(a, b, reduction), (fake, real))
    logits = [torch.from_numpy(RNG.normal(size=4)).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(f.adversarial_d, logits)
    assert torch.autograd.gradcheck(f.adversarial_g, logits[:1])


def test_the_expectation_is_the_variance_of_the_data_and_the_distance_of_fakes_from_its_mean() -> None:
    """E (G(z) - x)^2 = Var(x) + E (G(z) - E x)^2 over all pairs of 7 fakes and 9 reals."""
    fakes, reals = RNG.normal(size=(7, 2, 3)), RNG.normal(loc=0.4, size=(9, 2, 3))
    g = torch.from_numpy(np.repeat(fakes, 9, axis=0))
    x = torch.from_numpy(np.tile(reals, (7, 1, 1)))
    variance = np.mean((reals - reals.mean(0)) ** 2)
    pull = np.mean((fakes - reals.mean(0)) ** 2)
    assert float(f.reconstruction(g, x)) == pytest.approx(variance + pull, rel=1e-13)


def test_pairs_by_rank_have_that_expectation() -> None:
    """One shuffled pairing is an unbiased estimate; its mean over many shuffles gets there."""
    fakes, reals = RNG.normal(size=(16, 2)), RNG.normal(loc=0.4, size=(16, 2))
    shuffled = [
        f.reconstruction(torch.from_numpy(fakes), torch.from_numpy(RNG.permutation(reals))) for _ in range(4000)
    ]
    expected = np.mean((reals - reals.mean(0)) ** 2) + np.mean((fakes - reals.mean(0)) ** 2)
    error = np.std(np.array(shuffled)) / math.sqrt(4000)
    assert abs(np.mean(np.array(shuffled)) - expected) < 4 * error


def test_the_term_alone_takes_every_fake_to_the_mean_of_the_data() -> None:
    """Its expected gradient is 2 (G(z) - E x) / n, so that descent ends at one image: no diversity is left."""
    reals = torch.from_numpy(RNG.normal(loc=0.4, size=(9, 6)))
    fakes = torch.from_numpy(RNG.normal(size=(7, 6))).requires_grad_()
    pairs = fakes.repeat_interleave(9, 0), reals.repeat(7, 1)
    (7 * f.reconstruction(*pairs)).backward()
    torch.testing.assert_close(fakes.grad, 2 * (fakes.detach() - reals.mean(0)) / 6)
    moved = fakes.detach() - fakes.grad * 3
    torch.testing.assert_close(moved, reals.mean(0).expand(7, 6))


@pytest.mark.parametrize(
    ("kind", "share", "expected"),
    [
        ("none", 1.0, [1, 1, 1, 1, 1]),
        ("linear", 1.0, [1, 0.75, 0.5, 0.25, 0]),
        ("linear", 0.5, [1, 0.5, 0, 0, 0]),
        ("cosine", 1.0, [1, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5), 0]),
        ("cosine", 0.5, [1, 0.5, 0, 0, 0]),
    ],
)
def test_decay(kind: str, share: float, expected: list[float]) -> None:
    assert [f.decay(i / 4, kind, share) for i in range(5)] == pytest.approx(expected, abs=1e-12)
