"""AdaptiveMix against slow loops in float64; gradients against finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gancore_adaptivemix import functional as f

B, SHAPE = 4, (2, 3)
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(B, *SHAPE))
OF_MIXED = RNG.normal(size=(B, *SHAPE))
NOISE = RNG.normal(size=(B, *SHAPE)) * 0.3
PERMUTATION = [2, 0, 1, 3]
LAMBDAS = {"one a batch": 0.3, "one a sample": [0.0, 0.25, 0.8, 1.0]}


def loop_mix(values: np.ndarray, lam) -> np.ndarray:
    """lambda x_i + (1 - lambda) x_pi(i), element by element."""
    out = np.zeros_like(values)
    for i in range(B):
        weight = lam[i] if isinstance(lam, list) else lam
        for place in itertools.product(*map(range, values.shape[1:])):
            out[(i, *place)] = weight * values[(i, *place)] + (1 - weight) * values[(PERMUTATION[i], *place)]
    return out


def loop_loss(
    target: np.ndarray, mixed: np.ndarray, noise, distance: str, noise_on: str, reduction: str
) -> float:
    """L_ada as written, sample by sample."""
    values, elements = [], 0
    for i in range(B):
        a, b = mixed[i].ravel().copy(), target[i].ravel().copy()
        if noise is not None:
            if noise_on == "mixed":
                a = a + noise[i].ravel()
            else:
                b = b + noise[i].ravel()
        pairs = list(zip(a, b, strict=True))
        if distance == "cosine":
            dot = math.fsum(x * y for x, y in pairs)
            values.append(-dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b)))
        elif distance == "l2":
            values.append(math.sqrt(math.fsum((x - y) ** 2 for x, y in pairs)))
        else:
            elements = len(pairs)
            power = 1 if distance == "l1" else 2
            values.append(math.fsum(abs(x - y) ** power for x, y in pairs))
    total = math.fsum(values)
    return total if reduction == "sum" else total / (B * (elements or 1))


@pytest.mark.parametrize("which", LAMBDAS)
def test_mix_equals_a_loop(which: str) -> None:
    lam = LAMBDAS[which]
    got = f.mix(torch.from_numpy(FEATURES), torch.tensor(PERMUTATION), torch.tensor(lam, dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), loop_mix(FEATURES, lam), rtol=1e-14)


@pytest.mark.parametrize("distance", ["l1", "l2", "mse", "cosine"])
@pytest.mark.parametrize("noise_on", ["mixed", "target", "none"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_shrinkage_equals_a_loop(distance: str, noise_on: str, reduction: str) -> None:
    noise = None if noise_on == "none" else NOISE
    got = f.shrinkage(
        torch.from_numpy(FEATURES),
        torch.from_numpy(OF_MIXED),
        None if noise is None else torch.from_numpy(noise),
        distance=distance,
        noise_on="mixed" if noise_on == "none" else noise_on,
        reduction=reduction,
    )
    expected = loop_loss(FEATURES, OF_MIXED, noise, distance, noise_on, reduction)
    assert float(got) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("distance", ["l1", "l2", "mse", "cosine"])
def test_gradients_and_double_gradients(distance: str) -> None:
    target = torch.from_numpy(FEATURES).requires_grad_()
    mixed = torch.from_numpy(OF_MIXED).requires_grad_()

    def loss(target: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return f.shrinkage(target, mixed, torch.from_numpy(NOISE), distance=distance)

    assert torch.autograd.gradcheck(loss, (target, mixed))
    assert torch.autograd.gradgradcheck(loss, (target, mixed))


def test_a_detached_target_gets_no_gradient() -> None:
    target = torch.from_numpy(FEATURES).requires_grad_()
    mixed = torch.from_numpy(OF_MIXED).requires_grad_()
    f.shrinkage(target, mixed, torch.from_numpy(NOISE), detach_target=True, noise_on="target").backward()
    assert target.grad is None
    assert mixed.grad is not None


def test_features_of_a_permuted_batch_are_the_permuted_features() -> None:
    """Why one extra view a side is enough: the released code forwards the permuted batch again."""
    trunk = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.LeakyReLU(0.2), torch.nn.Flatten()).double()
    images = torch.randn(B, 1, 6, 6, dtype=torch.float64)
    order = torch.tensor(PERMUTATION)
    torch.testing.assert_close(trunk(images)[order], trunk(images[order]), rtol=0, atol=0)


def test_official_form_by_hand() -> None:
    """l = -cos(h, sg(m) + noise) and logits J(m) + J(h), from images to numbers."""
    g = torch.Generator().manual_seed(0)
    images = torch.randn(B, 5, dtype=torch.float64, generator=g)
    trunk = torch.randn(5, 6, dtype=torch.float64, generator=g, requires_grad=True)
    head = torch.randn(6, dtype=torch.float64, generator=g)
    lam, order = torch.tensor(0.7, dtype=torch.float64), torch.tensor(PERMUTATION)
    noise = 0.05 * torch.randn(B, 6, dtype=torch.float64, generator=g)
    h = f.mix(images, order, lam) @ trunk
    m = f.mix(images @ trunk, order, lam)
    loss = f.shrinkage(m, h, noise, distance="cosine", noise_on="target", detach_target=True)
    expected = []
    for i in range(B):
        a, b = h[i].detach().numpy(), (m[i].detach() + noise[i]).numpy()
        expected.append(-float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    assert float(loss.detach()) == pytest.approx(sum(expected) / B, rel=1e-13)
    scores = f.mixed_scores(m @ head, h @ head, "mixed_sum").detach()
    assert scores.tolist() == pytest.approx([float(((m[i] + h[i]) @ head).detach()) for i in range(B)])
    assert torch.equal(f.mixed_scores(m @ head, h @ head, "mixed_mean").detach(), scores / 2)


@pytest.mark.parametrize("size", [2, 3, 8, 65])
def test_a_derangement_has_no_fixed_point(size: int) -> None:
    for seed in range(20):
        permutation = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        deranged = f.derangement(permutation)
        assert sorted(deranged.tolist()) == list(range(size))
        assert not (deranged == torch.arange(size)).any()
