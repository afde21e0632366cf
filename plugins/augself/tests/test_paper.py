"""AugSelf-GAN against slow loops in float64; gradients against finite differences and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gancore_augself import functional as f
from gancore_augself.heads import EqualisedLinear, Heads
from gancore_diffaugment.functional import Strengths, draw

RNG = np.random.default_rng(0)
B, K = 5, 3
P, W = RNG.normal(size=(B, K)), RNG.uniform(size=(B, K))
COLOR = ("brightness", "saturation", "contrast")


def loop_error(p: np.ndarray, w: np.ndarray, reduction: str) -> float:
    total = 0.0
    for i in range(p.shape[0]):
        for k in range(p.shape[1]):
            total += (p[i, k] - w[i, k]) ** 2
    return total / p.shape[0] / (p.shape[1] if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum_dims"])
def test_losses_equal_loops(reduction: str) -> None:
    p, w = torch.from_numpy(P), torch.from_numpy(W)
    assert float(f.predict_loss(p, w, 1, reduction)) == pytest.approx(loop_error(P, W, reduction), rel=1e-14)
    assert float(f.predict_loss(p, w, -1, reduction)) == pytest.approx(loop_error(P, -W, reduction), rel=1e-14)
    game = loop_error(P, W, reduction) - loop_error(P, -W, reduction)
    assert float(f.fool_loss(p, w, reduction)) == pytest.approx(game, rel=1e-13)
    size = 1 if reduction == "mean" else K
    assert float(f.fool_loss(p, w, reduction)) == pytest.approx(-4 * size * float((P * W).mean()), rel=1e-13)


def test_gs_gradient_is_minus_four_w_over_the_count() -> None:
    """The game is linear in the prediction: D's answer for "real" is rewarded without bound."""
    p, w = torch.from_numpy(P).requires_grad_(), torch.from_numpy(W)
    (gradient,) = torch.autograd.grad(f.fool_loss(p, w), p)
    torch.testing.assert_close(gradient, -4 * w / (B * K))
    far = torch.from_numpy(P + 1e6 * W)
    assert float(f.fool_loss(far, w)) < -1e5


@pytest.mark.parametrize("reduction", ["mean", "sum_dims"])
def test_gradients_and_double_gradients(reduction: str) -> None:
    p, w = torch.from_numpy(P).requires_grad_(), torch.from_numpy(W)
    for loss in (
        lambda p: f.predict_loss(p, w, 1, reduction),
        lambda p: f.predict_loss(p, w, -1, reduction),
        lambda p: f.fool_loss(p, w, reduction).square(),
    ):
        assert torch.autograd.gradcheck(loss, p)
        assert torch.autograd.gradgradcheck(loss, p)


@pytest.mark.parametrize("size", [(16, 16), (9, 31), (32, 8), (5, 5)], ids=str)
@pytest.mark.parametrize(
    "strengths", [Strengths(), Strengths(translation=0.25, cutout=0.75)], ids=["plain", "plus"]
)
def test_targets_are_raw_parameters_that_fill_the_unit_interval(
    size: tuple[int, int], strengths: Strengths
) -> None:
    drawn = draw(torch.Generator().manual_seed(0), 3000, (3, *size), "color,translation,cutout", strengths)
    reach = tuple(int(side * strengths.translation + 0.5) for side in size)
    cuts = tuple(int(side * strengths.cutout + 0.5) for side in size)
    span = tuple(side - cut % 2 for side, cut in zip(size, cuts, strict=True))
    got = {
        name: f.target(drawn, names, reach, span, torch.float64).numpy()
        for name, names in {"color": COLOR, "translation": ("translation",), "cutout": ("cutout",)}.items()
    }
    for i in range(0, 3000, 37):
        for k, name in enumerate(COLOR):
            assert got["color"][i, k] == float(drawn[name][i])
        for k in (0, 1):
            shift, centre = int(drawn["translation"][i, k]), int(drawn["cutout"][i, k])
            assert got["translation"][i, k] == pytest.approx(shift / (2 * reach[k]) + 0.5, abs=1e-15)
            assert got["cutout"][i, k] == pytest.approx(centre / (size[k] - cuts[k] % 2), abs=1e-15)
    for values in (got["translation"], got["cutout"]):
        np.testing.assert_array_equal(values.min(0), 0)
        np.testing.assert_array_equal(values.max(0), 1)
    assert 0 <= got["color"].min() < 0.01 < 0.99 < got["color"].max() < 1


def test_a_shift_of_no_pixel_and_a_cut_of_one_place_are_guarded() -> None:
    """3 px at 1/8 cannot move: S = 0. One pixel has one place for a cut of one pixel: span 0."""
    drawn = {"translation": torch.zeros(2, 2, dtype=torch.int64), "cutout": torch.zeros(2, 2, dtype=torch.int64)}
    got = f.target(drawn, ("translation", "cutout"), (0, 0), (0, 0))
    assert got.tolist() == [[0.5, 0.5, 0.0, 0.0]] * 2


def test_colour_targets_do_not_depend_on_strengths() -> None:
    weak = Strengths(brightness=0.1, saturation=0.0, contrast=0.3)
    draws = [draw(torch.Generator().manual_seed(0), 4, (3, 8, 8), "color", s) for s in (Strengths(), weak)]
    assert torch.equal(*[f.target(drawn, COLOR, (1, 1), (8, 8)) for drawn in draws])


def test_parts_of_colour_have_heads_of_their_width() -> None:
    drawn = draw(torch.Generator().manual_seed(0), 4, (3, 8, 8), "color,translation")
    assert f.width(("contrast",)) == 1
    assert f.width((*COLOR, "translation", "cutout")) == 7
    assert torch.equal(f.target(drawn, ("contrast",), (1, 1), (8, 8))[:, 0], drawn["contrast"])


def heads(kind: str) -> Heads:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Heads(24, {"color": 3, "cutout": 2}, kind).double()


def test_heads_are_linear_maps_with_bias_of_the_flat_difference() -> None:
    difference = torch.from_numpy(RNG.normal(size=(B, 2, 3, 4)))
    for kind in ("spectral", "linear", "equalised"):
        module = heads(kind).eval()
        with torch.no_grad():
            for head in module.maps.values():
                head.bias += 0.5
            got = module(difference)
            for name, head in module.maps.items():
                weight = head.weight.numpy()
                if kind == "equalised":
                    weight = weight / np.sqrt(24)
                for i in range(B):
                    flat = difference[i].numpy().ravel()
                    expected = [sum(weight[k] * flat) + 0.5 for k in range(len(weight))]
                    np.testing.assert_allclose(got[name][i].numpy(), expected, rtol=1e-12)


def test_kinds_of_heads_start_as_their_source_says() -> None:
    spectral, plain, equal = (heads(kind).maps["color"] for kind in ("spectral", "linear", "equalised"))
    assert float(torch.linalg.matrix_norm(spectral.eval().weight.detach(), 2)) == pytest.approx(1, abs=1e-3)
    assert float(plain.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert isinstance(equal, EqualisedLinear)
    assert float(equal.weight.detach().std()) == pytest.approx(1, rel=0.3)
    assert not any(head.bias.any() for head in (spectral, plain, equal))


def test_two_heads_in_the_squared_norm_are_the_norm_of_the_whole_w() -> None:
    """The presentation's one omega is the sum over the heads with reduction = sum_dims."""
    p, w = torch.from_numpy(P), torch.from_numpy(W)
    parts = f.error(p[:, :1], w[:, :1], "sum_dims") + f.error(p[:, 1:], w[:, 1:], "sum_dims")
    torch.testing.assert_close(parts, (p - w).norm(dim=1).square().mean())
