"""Precision, recall, density and coverage against loops, against the public implementations, and at their "
"edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import ConfigError, DataError
from gancore_fidelity import manifolds
from gancore_fidelity.manifolds import ManifoldScores, manifold_scores, neighbour_distances


def features(count: int, width: int, *, seed: int, shrink: float = 1.0, offset: float = 0.0) -> Tensor:
    """On a manifold of few dimensions, half of the numbers cut at zero, as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(4, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    rows = torch.randn(count, 4, generator=generator, dtype=torch.float64) * shrink @ mixing
    rows = rows + 0.3 * torch.randn(count, width, generator=generator, dtype=torch.float64)
    return torch.where(torch.arange(width) % 2 == 0, rows, rows.clamp(min=0)) + offset


def whole_numbers(count: int, width: int, *, seed: int, most: int = 2) -> Tensor:
    """Many equal distances and copies, all exact in floating point: rows come with their negatives, so means "
    "are 0."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(-most, most + 1, (count // 2, width), generator=generator).double()
    return torch.cat((half, -half))


def slow(real: Tensor, generated: Tensor, k_precision: int, k_coverage: int) -> ManifoldScores:
    """The definitions, pair by pair, from differences."""
    x, y = real.double().numpy(), generated.double().numpy()

    def squared(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - b) ** 2).sum())

    def radii(rows: np.ndarray, k: int) -> list[float]:
        near = [sorted(squared(a, b) for j, b in enumerate(rows) if i != j) for i, a in enumerate(rows)]
        return [distances[k - 1] for distances in near]

    closed_x, closed_y, open_x = radii(x, k_precision), radii(y, k_precision), radii(x, k_coverage)
    between = [[squared(a, b) for b in y] for a in x]
    pairs = list(itertools.product(range(len(x)), range(len(y))))
    precise = {j for i, j in pairs if between[i][j] <= closed_x[i]}
    recalled = {i for i, j in pairs if between[i][j] <= closed_y[j]}
    held = [(i, j) for i, j in pairs if between[i][j] < open_x[i]]
    return ManifoldScores(
        len(precise) / len(y),
        len(recalled) / len(x),
        len(held) / (k_coverage * len(y)),
        len({i for i, _ in held}) / len(x),
    )


@pytest.fixture(params=[5, 16, 512])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tiles smaller than the sets, with a rest, and one tile for all."""
    monkeypatch.setattr(manifolds, "_BLOCK", request.param)
    return request.param


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("counts", "k_precision", "k_coverage"), [((40, 33), 3, 5), ((33, 40), 5, 3), ((16, 20), 1, 1)]
)
def test_scores_equal_the_loop(block, precision, counts, k_precision, k_coverage) -> None:
    real, generated = features(counts[0], 6, seed=1), features(counts[1], 6, seed=2, shrink=0.6)
    found = manifold_scores(real, generated, k_precision=k_precision, k_coverage=k_coverage, precision=precision)
    assert found == slow(real, generated, k_precision, k_coverage)
    assert 0 < found.precision < 1 or 0 < found.recall < 1


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equal_distances_and_copies_count_as_defined(block: int, k: int) -> None:
    """Closed balls for precision and recall, open ones for density and coverage; a copy is another row."""
    real, generated = whole_numbers(40, 3, seed=1), whole_numbers(34, 3, seed=2)
    for precision in ("float64", "float32"):
        found = manifold_scores(real, generated, k_precision=k, k_coverage=k, precision=precision)
        assert found == slow(real, generated, k, k)


def test_neighbours_equal_sorted_distances(block: int) -> None:
    rows = features(37, 5, seed=1)
    apart = (rows[:, None] - rows).square().sum(2)
    expected = torch.stack([torch.cat((row[:i], row[i + 1 :])).sort().values[:4] for i, row in enumerate(apart)])
    found = neighbour_distances(rows, 4, precision="float64")
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert neighbour_distances(rows, 4).dtype == torch.float32


def test_a_copy_is_a_neighbour_and_a_row_is_not_its_own(block: int) -> None:
    rows = whole_numbers(12, 4, seed=1, most=40)
    twice = torch.cat((rows, rows))
    found = neighbour_distances(twice, 2, precision="float64")
    assert torch.equal(found[:, 0], torch.zeros(24, dtype=torch.float64))
    assert torch.equal(found[:, 1], neighbour_distances(rows, 1, precision="float64")[:, 0].repeat(2))


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_counts_equal_the_package_of_the_authors_of_density_and_coverage(
    k, precision, monkeypatch, capsys
) -> None:
    prdc = pytest.importorskip("prdc")
    monkeypatch.setattr(manifolds, "_BLOCK", 128)
    real, generated = features(700, 48, seed=1), features(600, 48, seed=2, shrink=0.8)
    expected = prdc.compute_prdc(real.numpy(), generated.numpy(), k)
    found = manifold_scores(real, generated, k_precision=k, k_coverage=k, precision=precision)
    for name, rows in (("precision", 600), ("recall", 700), ("density", 600 * k), ("coverage", 700)):
        assert round(getattr(found, name) * rows) == round(expected[name] * rows), name
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-12)


def test_precision_and_recall_equal_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    monkeypatch.setattr(manifolds, "_BLOCK", 128)
    real, generated = features(500, 48, seed=1), features(450, 48, seed=2, shrink=0.8)
    expected = metric_prc.calculate_precision_recall_full(generated, real, 3)
    found = manifold_scores(real, generated, precision="float64")
    assert (found.precision, found.recall) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_set_against_itself(precision: str) -> None:
    """Every row lies in its own ball; density is k of k, because the k-th neighbour is on an open ball's edge."""
    rows = whole_numbers(400, 8, seed=1, most=500)
    assert manifold_scores(rows, rows.clone(), precision=precision) == ManifoldScores(1.0, 1.0, 1.0, 1.0)


def test_sets_that_do_not_meet_score_nothing() -> None:
    rows = features(60, 5, seed=1)
    assert manifold_scores(rows, rows + 1e3) == ManifoldScores(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_float32_is_shifted_before_products_cancel(offset: float) -> None:
    """Far from the origin, rows that are rounded to float32 score as the same rows in float64."""
    real, generated = (
        features(300, 32, seed=seed, shrink=shrink, offset=offset).float()
        for seed, shrink in ((1, 1.0), (2, 0.7))
    )
    assert manifold_scores(real, generated) == manifold_scores(real, generated, precision="float64")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_give_what_their_values_give(dtype: torch.dtype) -> None:
    random = np.random.default_rng(1)
    first, second = (
        torch.from_numpy(random.normal(size=(count, 16)) * np.r_[1e3, np.ones(15)] + 500).to(dtype)
        for count in (120, 150)
    )
    assert manifold_scores(first, second) == manifold_scores(first.float(), second.float())
    assert torch.equal(neighbour_distances(first, 4), neighbour_distances(first.float(), 4))


def test_the_stated_error_of_float32_holds() -> None:
    rows = features(600, 512, seed=1, offset=3.0)
    exact = neighbour_distances(rows, 5, precision="float64")
    centred = rows - rows.mean(0)
    allowed = 2e-6 * (centred.square().sum(1) + centred.square().sum(1).max())
    error = (neighbour_distances(rows, 5) - exact).abs()
    assert (error <= allowed[:, None]).all()


def test_kept_neighbours_of_the_reals_give_the_same_scores() -> None:
    real, generated = features(80, 6, seed=1), features(70, 6, seed=2)
    expected = manifold_scores(real, generated)
    for k in (5, 8):
        kept = neighbour_distances(real, k)
        assert manifold_scores(real, generated, real_neighbours=kept) == expected
    with pytest.raises(ValueError, match=r"\(80, 4\); expected \(80, 5 or more\)"):
        manifold_scores(real, generated, real_neighbours=neighbour_distances(real, 4))


def test_inputs_are_left_as_they_are() -> None:
    real, generated = features(30, 6, seed=1), features(20, 6, seed=2)
    kept = real.clone(), generated.clone()
    manifold_scores(real, generated, precision="float64")
    assert torch.equal(real, kept[0])
    assert torch.equal(generated, kept[1])


def test_neighbours_that_do_not_exist_are_refused_with_both_numbers() -> None:
    real, generated = features(30, 6, seed=1), features(5, 6, seed=2)
    with pytest.raises(ConfigError, match="k = 5 neighbours among 5 of the generated samples; expected 1 to 4"):
        manifold_scores(real, generated, k_precision=5)
    with pytest.raises(ConfigError, match="k = 5 neighbours among 4 of the reals"):
        manifold_scores(real[:4], generated)
    with pytest.raises(ConfigError, match="k_coverage = 0"):
        manifold_scores(real, generated, k_coverage=0)
    with pytest.raises(ConfigError, match="among 0 of the samples"):
        neighbour_distances(real[:0], 1)


def test_features_that_do_not_fit_are_refused() -> None:
    real, generated = features(30, 6, seed=1), features(20, 5, seed=2)
    with pytest.raises(ValueError, match="6 features and the generated samples 5"):
        manifold_scores(real, generated)
    real[3, 2] = math.nan
    with pytest.raises(DataError, match="the reals: 1 of 30 rows hold NaN"):
        manifold_scores(real, features(20, 6, seed=2))
