"""KID against double loops, against the public implementation with the same draws, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import ConfigError, DataError
from gancore_fidelity import kernel_distance as kernel_distance_module
from gancore_fidelity.kernel_distance import draw_subsets, kernel_distance, squared_discrepancy


def features(count: int, width: int, *, seed: int, shift: float = 0.0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, width, generator=generator, dtype=torch.float64) + shift).clamp(min=-0.3).to(dtype)


def slow(first: Tensor, second: Tensor) -> float:
    """The definition, pair by pair."""
    x, y = first.tolist(), second.tolist()
    width, size = len(x[0]), len(x)

    def kernel(a: list[float], b: list[float]) -> float:
        return (math.fsum(p * q for p, q in zip(a, b, strict=True)) / width + 1) ** 3

    within = math.fsum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) for i in range(size) for j in range(size) if i != j
    )
    between = math.fsum(kernel(a, b) for a in x for b in y)
    return within / (size * (size - 1)) - 2 * between / size**2


@pytest.mark.parametrize(("size", "width"), [(2, 1), (7, 3), (12, 5)])
@pytest.mark.parametrize("block", [3, 4, 256])
def test_the_discrepancy_equals_the_double_loop(size, width, block, monkeypatch) -> None:
    monkeypatch.setattr(kernel_distance_module, "_BLOCK", block)
    first, second = features(size, width, seed=1), features(size, width, seed=2, shift=0.4)
    assert squared_discrepancy(first, second) == pytest.approx(slow(first, second), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_mean_over_subsets_equals_torch_fidelity_with_the_same_generator(dtype, tolerance) -> None:
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    first, second = features(300, 24, seed=1, dtype=dtype), features(260, 24, seed=2, shift=0.1, dtype=dtype)
    expected = metric_kid.kid_features_to_metric(
        first, second, kid_subsets=20, kid_subset_size=50, rng_seed=7, verbose=False
    )
    subsets = draw_subsets((300, 260), 50, 20, np.random.RandomState(7))
    found = kernel_distance(first, second, subsets)
    assert found.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=tolerance, abs=tolerance)
    assert found.std == pytest.approx(expected["kernel_inception_distance_std"], rel=tolerance, abs=tolerance)


def test_the_result_is_the_mean_and_the_spread_of_the_subsets_that_were_given() -> None:
    first, second = features(9, 4, seed=1), features(8, 4, seed=2)
    subsets = [(np.array([0, 3, 5]), np.array([7, 1, 2])), (np.array([8, 2, 1]), np.array([0, 4, 6]))]
    values = [slow(first[list(a)], second[list(b)]) for a, b in subsets]
    found = kernel_distance(first, second, subsets)
    assert found.mean == pytest.approx(sum(values) / 2, rel=1e-12)
    assert found.std == pytest.approx(abs(values[0] - values[1]) / 2, rel=1e-12)


def test_the_estimate_has_no_bias() -> None:
    """Over many small subsets of one distribution the mean is within four standard errors of zero."""
    values = [
        squared_discrepancy(features(5, 3, seed=2 * seed), features(5, 3, seed=2 * seed + 1))
        for seed in range(1500)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0


def test_long_rows_do_not_round_the_other_kernels() -> None:
    """Squared lengths stand on the diagonal, which is no part of the estimate."""
    first, second = 300 * torch.eye(40), 300 * torch.eye(40).flip(1)
    expected = slow(first.double(), second.double())
    assert squared_discrepancy(first, second) == pytest.approx(expected, rel=1e-6)


def test_subsets_are_drawn_without_replacement_from_the_generator_alone() -> None:
    drawn = list(draw_subsets((9, 12), 9, 5, np.random.default_rng(3)))
    again = list(draw_subsets((9, 12), 9, 5, np.random.default_rng(3)))
    assert len(drawn) == 5
    for (first, second), (same_first, same_second) in zip(drawn, again, strict=True):
        assert sorted(first) == list(range(9))
        assert len(set(second.tolist())) == 9
        assert second.max() < 12
        assert np.array_equal(first, same_first)
        assert np.array_equal(second, same_second)


def test_subsets_larger_than_a_set_are_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ConfigError, match="1000 from 5000 generated samples and 800 reals.*at most 800"):
        draw_subsets((5000, 800), 1000, 10, np.random.default_rng(0))
    for size, subsets in ((1, 10), (0, 10), (5, 0)):
        with pytest.raises(ConfigError, match="2 rows or more"):
            draw_subsets((10, 10), size, subsets, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_give_what_their_values_give(dtype: torch.dtype) -> None:
    random = np.random.default_rng(1)
    first, second = (torch.from_numpy(random.normal(size=(60, 16)) + 900).to(dtype) for _ in range(2))
    subsets = list(draw_subsets((60, 60), 40, 3, random))
    found = kernel_distance(first, second, subsets)
    assert np.isfinite(found.mean)
    assert found == kernel_distance(first.float(), second.float(), subsets)


def test_inputs_that_do_not_fit_are_refused() -> None:
    rows = features(5, 3, seed=1)
    pairs = [(np.arange(3), np.arange(3))]
    with pytest.raises(ValueError, match="one type"):
        kernel_distance(rows, rows.float(), pairs)
    with pytest.raises(ValueError, match="3 features and the reals 4"):
        kernel_distance(rows, features(5, 4, seed=1), pairs)
    with pytest.raises(ValueError, match="no subsets"):
        kernel_distance(rows, rows, [])
    with pytest.raises(ValueError, match="m >= 2"):
        kernel_distance(rows, rows, [(np.arange(3), np.arange(2))])
    rows = rows.clone()
    rows[2, 1] = math.nan
    with pytest.raises(DataError, match="the generated samples: 1 of 5 rows"):
        kernel_distance(rows, features(5, 3, seed=1), pairs)
