"""The Fréchet distance against 50 digits, against the public implementations, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from gancore.api import DataError
from gancore_fidelity import frechet
from gancore_fidelity.frechet import Running, Statistics, class_distances, frechet_distance, statistics, too_few


def features(
    count: int, width: int, *, seed: int, shift: float = 0.0, rank: int = 0, scale: float = 1.0
) -> Tensor:
    """Correlated, half of them cut at zero, as a network's are; of a low rank where one is given."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank or width, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    rows = torch.randn(count, rank or width, generator=generator, dtype=torch.float64) + shift
    mixed = rows @ mixing / math.sqrt(rank or width)
    return scale * (mixed if rank else torch.where(torch.arange(width) % 2 == 0, mixed, mixed.clamp(min=0)))


def with_fifty_digits(first: Tensor, second: Tensor) -> float:
    """The definition, term by term, from the rows: loops, and eigenvalues with 50 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):

        def moments(rows: Tensor):
            count, width = rows.shape
            values = [[mpmath.mpf(float(x)) for x in row] for row in rows]
            mean = [sum(row[j] for row in values) / count for j in range(width)]
            covariance = mpmath.matrix(width, width)
            for i in range(width):
                for j in range(width):
                    products = ((row[i] - mean[i]) * (row[j] - mean[j]) for row in values)
                    covariance[i, j] = sum(products) / (count - 1)
            return mean, covariance

        (mean_1, cov_1), (mean_2, cov_2) = moments(first), moments(second)
        values, vectors = mpmath.eigsy(cov_1)
        roots = mpmath.diag([mpmath.sqrt(max(value, mpmath.mpf(0))) for value in values])
        root = vectors * roots * vectors.T
        inner = mpmath.eigsy(root * cov_2 * root, eigvals_only=True)
        trace = sum(mpmath.sqrt(max(value, mpmath.mpf(0))) for value in inner)
        width = len(mean_1)
        out = sum((a - b) ** 2 for a, b in zip(mean_1, mean_2, strict=True)) - 2 * trace
        return float(out + sum(cov_1[i, i] + cov_2[i, i] for i in range(width)))


CASES = {
    "plain": (features(40, 6, seed=1), features(30, 6, seed=2, shift=0.3)),
    "one feature": (features(12, 1, seed=1), features(9, 1, seed=2, shift=1)),
    "singular": (features(40, 7, seed=1, rank=3), features(30, 7, seed=2, rank=3, shift=0.5)),
    "one singular": (features(40, 7, seed=1), features(30, 7, seed=2, rank=2)),
    "few": (features(4, 7, seed=1), features(5, 7, seed=2, shift=0.5)),
    "few against many": (features(4, 7, seed=1), features(30, 7, seed=2)),
    "many against few": (features(30, 7, seed=1), features(4, 7, seed=2)),
    "two": (features(2, 6, seed=1), features(2, 6, seed=2)),
    "constant": (torch.full((9, 4), 2.0, dtype=torch.float64), features(20, 4, seed=2)),
    "far": (features(40, 5, seed=1), features(40, 5, seed=2) + 1e4),
    "huge": (features(40, 5, seed=1, scale=1e60), features(40, 5, seed=2, scale=1e60)),
    "small": (features(40, 5, seed=1, scale=1e-60), features(40, 5, seed=2, scale=1e-60)),
    "unlike scales": (features(40, 5, seed=1, scale=1e20), features(40, 5, seed=2, scale=1e-20)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_distance_equals_the_definition_with_fifty_digits(case: str) -> None:
    first, second = CASES[case]
    expected = with_fifty_digits(first, second)
    found = frechet_distance(statistics(first), statistics(second))
    scale = statistics(first).trace + statistics(second).trace
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-13 * scale)
    back = frechet_distance(statistics(second), statistics(first))
    assert back == pytest.approx(found, rel=1e-12, abs=1e-13 * scale)


def test_nearly_singular_covariances_take_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eigenvalues of the product are then too coarse: the sum of their roots says so, and another way is "
    "taken."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(20, 150, generator=generator, dtype=torch.float64)
    sides = []
    for spread in (1.0, 1.3):
        rows = torch.randn(400, 20, generator=generator, dtype=torch.float64) * spread
        sides.append(rows @ mixing + 1e-5 * torch.randn(400, 150, generator=generator, dtype=torch.float64))
    centred = [(rows - rows.mean(0)) / math.sqrt(399) for rows in sides]
    expected = float(torch.linalg.svdvals(centred[0] @ centred[1].T).sum())
    first, second = statistics(sides[0]), statistics(sides[1])
    scale = first.trace + second.trace
    precise = abs(frechet.trace_of_root(first, second) - expected)
    monkeypatch.setattr(frechet, "TRUSTED", math.inf)
    coarse = abs(frechet.trace_of_root(first, second) - expected)
    assert precise <= 1e-12 * scale
    assert coarse > 20 * precise


def of_torch_fidelity(first: Tensor, second: Tensor) -> float:
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    sides = [metric_fid.fid_features_to_statistics(rows) for rows in (first, second)]
    return metric_fid.fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]


def of_scipy(first: Tensor, second: Tensor) -> float:
    """The form of the first implementations: the root of a matrix."""
    means = [rows.numpy().mean(0) for rows in (first, second)]
    covariances = [np.atleast_2d(np.cov(rows.numpy(), rowvar=False)) for rows in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    return float(np.sum((means[0] - means[1]) ** 2) + traces - 2 * np.trace(root).real)


@pytest.mark.parametrize("public", [of_torch_fidelity, of_scipy])
@pytest.mark.parametrize(
    ("counts", "width", "rank"),
    [((900, 700), 96, 0), ((300, 400), 96, 20), ((60, 60), 96, 0), ((60, 400), 96, 0), ((300, 40), 96, 0)],
)
def test_the_distance_equals_the_public_implementations(public, counts, width, rank) -> None:
    first = features(counts[0], width, seed=1, rank=rank)
    second = features(counts[1], width, seed=2, rank=rank, shift=0.2)
    fitted = statistics(first), statistics(second)
    # Theirs takes roots of eigenvalues that are rounding where a covariance is singular: 1e-7 of the traces.
    singular = rank or min(counts) <= width
    allowed = 1e-6 * (fitted[0].trace + fitted[1].trace) if singular else 1e-6
    assert frechet_distance(*fitted) == pytest.approx(public(first, second), rel=1e-6, abs=allowed)


@pytest.mark.parametrize(("count", "width"), [(500, 40), (30, 40), (40, 1), (200, 80)])
def test_a_set_has_no_distance_to_itself(count: int, width: int) -> None:
    fitted = statistics(features(count, width, seed=1))
    found = frechet_distance(fitted, fitted)
    assert 0 <= found <= 1e-13 * fitted.trace


def test_rounding_below_zero_is_cut_and_nothing_else() -> None:
    values = [
        frechet_distance(fitted, fitted)
        for seed in range(30)
        for fitted in [statistics(features(60, 12, seed=seed, scale=10.0**seed))]
    ]
    assert min(values) == 0.0
    indefinite = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    mean = torch.zeros(2, dtype=torch.float64)
    fine = Statistics(10, mean, torch.eye(2, dtype=torch.float64))
    for sides in ((Statistics(10, mean, indefinite), fine), (fine, Statistics(10, mean, indefinite))):
        with pytest.raises(DataError, match="expected none below 0"):
            frechet_distance(*sides)


@pytest.mark.parametrize("parts", [[3000], [1] * 40 + [2960], [1100, 1100, 800], [5, 1500, 1495]])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_statistics_in_parts_equal_numpy(parts: list[int], offset: float) -> None:
    rows = features(3000, 30, seed=1) + offset
    running = Running(30)
    for part in rows.split(parts):
        running.add(part)
    found = running.statistics()
    assert len(running) == found.count == 3000
    assert found.rows is None
    np.testing.assert_allclose(found.mean.numpy(), rows.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.dense().numpy(), np.cov(rows.numpy(), rowvar=False), rtol=1e-10, atol=1e-10)
    assert torch.equal(found.dense(), found.dense().T)


def test_wide_statistics_equal_numpy() -> None:
    """More features than a block of columns has, and more samples than features."""
    rows = features(1500, 300, seed=1).float()
    found = statistics(rows)
    np.testing.assert_allclose(
        found.dense().numpy(), np.cov(rows.double().numpy(), rowvar=False), rtol=0, atol=1e-12
    )


def test_few_rows_are_kept_as_they_are() -> None:
    rows = features(20, 30, seed=1)
    found = statistics(rows)
    assert found.covariance is None
    np.testing.assert_allclose(found.dense().numpy(), np.cov(rows.numpy(), rowvar=False), rtol=1e-10, atol=1e-12)
    assert found.trace == pytest.approx(np.trace(np.cov(rows.numpy(), rowvar=False)), rel=1e-12)


@pytest.mark.parametrize("sizes", [(1500, 1200), (1500, 7), (7, 1500), (3, 4), (0, 1500), (1500, 0)])
def test_merged_statistics_equal_those_of_all_rows(sizes: tuple[int, int]) -> None:
    rows = features(sum(sizes), 25, seed=1)
    first, second = Running(25, "a"), Running(25, "b")
    first.add(rows[: sizes[0]])
    second.add(rows[sizes[0] :])
    before = second.statistics() if sizes[1] else None
    first.merge(second)
    found, expected = first.statistics(), statistics(rows)
    assert len(first) == sum(sizes)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-10, atol=1e-13)
    if before is not None:
        torch.testing.assert_close(second.statistics().dense(), before.dense(), rtol=0, atol=0)


def test_more_rows_may_follow_a_result_and_parts_may_be_overwritten() -> None:
    rows = features(2000, 8, seed=1)
    running = Running(8)
    memory = torch.empty(100, 8, dtype=torch.float64)
    for part in rows.split(100):
        memory.copy_(part)
        running.add(memory)
        memory.fill_(math.nan)
        if len(running) > 100:
            running.statistics()
    torch.testing.assert_close(running.statistics().dense(), statistics(rows).dense(), rtol=1e-11, atol=1e-13)


def test_fewer_samples_than_features_are_said_with_what_to_use() -> None:
    many, few = (
        statistics(features(50, 10, seed=1), "the reals"),
        statistics(features(10, 10, seed=2), "the samples"),
    )
    assert too_few(many, many) == ""
    said = too_few(many, few)
    assert "10 of the samples for 10 features" in said
    assert "kid" in said
    assert "more than 10 samples" in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused_by_name(value: float) -> None:
    rows = features(5000, 3, seed=1)
    rows[4100, 1] = value
    rows[4200, 0] = value
    with pytest.raises(DataError, match=r"the reals: 2 of \d+ rows hold NaN or infinity, the first is row 4100"):
        statistics(rows, "the reals")


@pytest.mark.parametrize("count", [0, 1])
def test_a_set_without_two_samples_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=r"the reference.*2 or more"):
        statistics(torch.ones(count, 4), "the reference")


def test_squares_that_overflow_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        statistics(features(20, 3, seed=1, scale=1e200))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5,\)"):
        statistics(torch.ones(5))
    with pytest.raises(ValueError, match="int64"):
        statistics(torch.ones(5, 2, dtype=torch.int64))
    for wrong in (lambda: Running(2).add(torch.ones(3, 3)), lambda: Running(2).merge(Running(3))):
        with pytest.raises(ValueError, match="3 in a row; expected 2"):
            wrong()
    with pytest.raises(ValueError, match="one backbone"):
        frechet_distance(statistics(features(9, 3, seed=1)), statistics(features(9, 4, seed=1)))
    with pytest.raises(ValueError, match="one of them"):
        Statistics(5, torch.zeros(3))


def test_distances_by_class_name_the_worst_and_those_left_out() -> None:
    names = ["ant", "bee", "cat", "dog"]
    real = torch.cat([features(60, 5, seed=index) for index in range(4)])
    real_labels = torch.arange(4).repeat_interleave(60)
    generated = torch.cat([features(40, 5, seed=9, shift=float(index)) for index in range(3)] + [real[:1]])
    labels = torch.tensor([0] * 40 + [1] * 40 + [2] * 40 + [3])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    found = class_distances(real, real_labels, generated[order], labels[order], names)
    expected = {
        name: with_fifty_digits(real[real_labels == index], generated[labels == index])
        for index, name in enumerate(names[:3])
    }
    assert found.distances == pytest.approx(expected, rel=1e-10)
    assert found.mean == pytest.approx(np.mean(list(expected.values())), rel=1e-10)
    assert found.worst == "cat"
    assert found.left_out == ("dog (60 real, 1 generated)",)
    assert found.note == ""


def test_classes_with_few_samples_are_noted_and_none_at_all_is_an_error() -> None:
    real, generated = features(20, 8, seed=1), features(20, 8, seed=2)
    labels = torch.arange(20) % 4
    assert "5 of the reals of a" in class_distances(real, labels, generated, labels, ["a", "b", "c", "d"]).note
    every = torch.arange(20)
    with pytest.raises(DataError, match=r"none of 20 classes has two.*0 \(1 real, 1 generated\)"):
        class_distances(real, every, generated, every, [str(index) for index in range(20)])
    with pytest.raises(ValueError, match="from 0 to 1"):
        class_distances(real, labels, generated, labels, ["a", "b"])
