"""The Inception score against loops, against the public implementation, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import ConfigError, DataError
from gancore_fidelity.inception_score import inception_score


def logits(count: int, classes: int, *, seed: int = 1, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)


def slow(rows: list[list[float]]) -> float:
    """One split, term by term."""
    given = []
    for row in rows:
        powers = [math.exp(value) for value in row]
        given.append([power / math.fsum(powers) for power in powers])
    mean = [math.fsum(row[y] for row in given) / len(given) for y in range(len(given[0]))]
    divergence = math.fsum(p * math.log(p / mean[y]) for row in given for y, p in enumerate(row)) / len(given)
    return math.exp(divergence)


@pytest.mark.parametrize(("count", "splits"), [(20, 1), (20, 3), (23, 10), (5, 5)])
def test_the_score_equals_the_loop(count: int, splits: int) -> None:
    rows = logits(count, 6)
    scores = [slow(rows[i * count // splits : (i + 1) * count // splits].tolist()) for i in range(splits)]
    found = inception_score(rows, splits)
    assert found.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert found.std == pytest.approx(np.std(scores), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_score_equals_torch_fidelity_in_the_same_order(dtype: torch.dtype) -> None:
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    rows = logits(503, 50).to(dtype)
    expected = metric_isc.isc_features_to_metric(rows, splits=10, shuffle=True, rng_seed=5)
    order = torch.from_numpy(np.random.RandomState(5).permutation(503))
    found = inception_score(rows, 10, order)
    assert found.mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert found.std == pytest.approx(expected["inception_score_std"], rel=1e-9)


def test_the_score_lies_between_one_and_the_number_of_classes() -> None:
    certain = 1e4 * torch.eye(7).repeat(4, 1)
    assert inception_score(certain, 1).mean == pytest.approx(7, rel=1e-12)
    assert inception_score(torch.zeros(9, 7), 1).mean == pytest.approx(1, rel=1e-12)
    assert inception_score(certain[:1].repeat(8, 1), 2).mean == pytest.approx(1, rel=1e-12)


def test_a_class_of_probability_zero_adds_nothing() -> None:
    """Logits so far apart that a probability is 0 in float64, in every row."""
    rows = torch.cat((logits(12, 4), torch.full((12, 1), -5000.0, dtype=torch.float64)), 1)
    assert inception_score(rows, 2).mean == pytest.approx(inception_score(rows[:, :4], 2).mean, rel=1e-12)


def test_splits_and_order_that_do_not_fit_are_refused() -> None:
    rows = logits(8, 3)
    for splits in (0, 9):
        with pytest.raises(ConfigError, match=f"{splits} splits of 8 samples; expected 1 to 8"):
            inception_score(rows, splits)
    with pytest.raises(ValueError, match="a permutation of the 8 rows"):
        inception_score(rows, 2, torch.zeros(8, dtype=torch.int64))
    rows[3, 0] = math.inf
    with pytest.raises(DataError, match=r"logits.*1 of 8 rows"):
        inception_score(rows, 2)
