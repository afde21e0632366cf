"""The Fréchet distance between Gaussians fitted to two sets of features: exact, in float64, streamed.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; as a score of
generators, Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
2017, arXiv:1706.08500, equation 6:

    d^2 = ||mu_1 - mu_2||^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))

Let R_1^T R_1 = S_1. The eigenvalues of S_1 S_2 other than zero are those of R_1 S_2 R_1^T, which is symmetric: no
matrix is square-rooted and no number becomes complex. R_1 is a Cholesky factor; where the covariance is singular,
a root of its eigenvectors; where there are no more samples than features, the centred features themselves.

N is the number of samples, D that of features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gancore.api import DataError
from gancore_fidelity.checks import check_features, check_pair

EPSILON = torch.finfo(torch.float64).eps

TRUSTED = 1e-8
"""Error that eigenvalues of a product may leave, as a share of the traces; beyond, singular values are taken."""

_FOLD = 1024
_COLUMNS = 256


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of features, float64, on the CPU.

    Attributes:
        count: N, at least 2.
        mean: (D,).
        covariance: (D, D), divided by N - 1; None where ``rows`` stands for it.
        rows: (N, D), centred features over sqrt(N - 1), so that rows^T rows is the covariance; None where there
            are more samples than features.
        what: whose features these are, for messages.
    """

    count: int
    mean: Tensor
    covariance: Tensor | None = None
    rows: Tensor | None = None
    what: str = "the samples"

    def __post_init__(self) -> None:
        width = len(self.mean)
        expected = (width, width) if self.rows is None else (self.count, width)
        held = self.covariance if self.rows is None else self.rows
        if (self.covariance is None) == (self.rows is None) or held is None or held.shape != expected:
            raise ValueError(
                f"statistics of {self.what} with {width} features and {self.count} samples: expected a "
                f"covariance ({width}, {width}) or rows ({self.count}, {width}), one of them"
            )
        if not (torch.isfinite(self.mean).all() and math.isfinite(self.trace)):
            raise DataError(
                f"mean or covariance of {self.what} is not finite; expected features whose squares float64 can "
                "hold"
            )

    @property
    def trace(self) -> float:
        """tr(S), the total variance."""
        if self.rows is not None:
            return float(self.rows.square().sum())
        assert self.covariance is not None
        return float(self.covariance.trace())

    def dense(self) -> Tensor:
        """S, (D, D)."""
        if self.rows is not None:
            return self.rows.T @ self.rows
        assert self.covariance is not None
        return self.covariance


class Running:
    """Mean and covariance of features that come in parts; every row is looked at once.

    The parts may have any size: the result does not depend on it beyond rounding. Rows are kept until there are
    more than D (and 1,024), then folded together: a (D, D) update costs the same for one row as for many.

    Merging two parts with n_a and n_b rows: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances", 1979,

        M = M_a + M_b + (mu_b - mu_a)(mu_b - mu_a)^T n_a n_b / (n_a + n_b),    S = M / (N - 1)
    """

    def __init__(self, width: int, what: str = "the samples") -> None:
        """``width`` is D."""
        self.width = width
        self.what = what
        self._waiting: list[Tensor] = []
        self._folded = 0
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def __len__(self) -> int:
        return self._folded + sum(map(len, self._waiting))

    def add(self, features: Tensor) -> None:
        """Take a part: (B, D), any B. Raises ValueError and DataError as ``check_features``."""
        check_features(features, self.what, len(self))
        self._check_width(features.shape[1])
        for start in range(0, len(features), self._most):
            # A copy: the caller may fill the same memory with the next part.
            self._waiting.append(features[start : start + self._most].detach().cpu().clone())
            if sum(map(len, self._waiting)) > self._most:
                self._fold()

    def merge(self, other: Running) -> None:
        """Take all rows of another one, which stays as it is."""
        self._check_width(other.width)
        if other._folded:
            self._scatter += other._scatter
            self._join(other._folded, other._mean)
        for part in other._waiting:
            self.add(part)

    def statistics(self) -> Statistics:
        """Of all rows so far; more may follow. Raises DataError for fewer than two rows."""
        count = len(self)
        if count < 2:
            raise DataError(
                f"{self.what}: {count} found, and a covariance needs 2 or more; for {self.width} features the "
                f"Fréchet distance needs more than {self.width}"
            )
        if not self._folded and count <= self.width:
            rows = torch.cat(self._waiting).double()
            mean = rows.mean(0)
            return Statistics(count, mean, rows=(rows - mean) / math.sqrt(count - 1), what=self.what)
        self._fold()
        lower = self._scatter.tril() / (count - 1)
        return Statistics(count, self._mean.clone(), lower + lower.tril(-1).T, what=self.what)

    @property
    def _most(self) -> int:
        """Rows that may wait."""
        return max(self.width, _FOLD)

    def _fold(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat(self._waiting).double()
        self._waiting = []
        mean = rows.mean(0)
        rows -= mean
        for start in range(0, self.width, _COLUMNS):
            # The lower triangle alone, in columns: the other half is its mirror.
            columns = slice(start, start + _COLUMNS)
            self._scatter[start:, columns].addmm_(rows[:, start:].T, rows[:, columns])
        self._join(len(rows), mean)

    def _join(self, count: int, mean: Tensor) -> None:
        """Count in a part whose own scatter has been added."""
        total = self._folded + count
        apart = mean - self._mean
        self._scatter.addr_(apart, apart, alpha=self._folded * count / total)
        self._mean += apart * (count / total)
        self._folded = total

    def _check_width(self, found: int) -> None:
        if found != self.width:
            raise ValueError(
                f"features of {self.what}: {found} in a row; expected {self.width} as in other parts"
            )


def statistics(features: Tensor, what: str = "the samples") -> Statistics:
    """Mean and covariance of features (N, D). Raises ValueError and DataError as :class:`Running`."""
    check_features(features, what)
    running = Running(features.shape[1], what)
    running.add(features)
    return running.statistics()


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """d^2, equation 6, at least 0. Symmetric up to rounding.

    Its error is about 1e-14 of the two traces, and below 1e-8 of them for nearly singular covariances.

    Raises:
        ValueError: another number of features on both sides.
        DataError: a covariance with a negative eigenvalue, which no set of features has.
    """
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f"{first.what} have {len(first.mean)} features and {second.what} {len(second.mean)}; "
            "expected the features of one backbone"
        )
    apart = float((first.mean - second.mean).square().sum())
    value = apart + first.trace + second.trace - 2 * trace_of_root(first, second)
    # What is negative here is rounding: matrices that are no covariances were refused on the way.
    return max(value, 0.0)


def trace_of_root(first: Statistics, second: Statistics) -> float:
    """tr((S_1 S_2)^(1/2)) = the sum of the roots of the eigenvalues of R_1 S_2 R_1^T."""
    scales = first.trace, second.trace
    if not min(scales) > 0:
        return 0.0
    # Eigenvalues of a product are fourth powers of the features: without scales they overflow early.
    scale = math.sqrt(scales[0]) * math.sqrt(scales[1])
    if first.rows is None or (second.rows is not None and second.count < first.count):
        first, second, scales = second, first, (scales[1], scales[0])
    if first.rows is not None:
        root = first.rows / math.sqrt(scales[0])
        product = _around(root, second, scales[1])
    else:
        lower, failed = torch.linalg.cholesky_ex(first.dense() / scales[0])
        if failed:
            root = _root(first)
            product = _around(root, second, scales[1])
        else:
            product = _between(lower, second.dense() / scales[1])
    values = torch.linalg.eigvalsh(product)
    _refuse_negative(values, f"the product of the covariances of {first.what} and {second.what}")
    # An eigenvalue w is known to some roundings of the largest, so its root to that over sqrt(w). Many small
    # ones, of singular covariances, add up; the singular values of R_1 R_2^T have no such error and take longer.
    values = values.clamp(min=0)
    error = 8 * EPSILON * values[-1]
    if float((error / (values.sqrt() + error.sqrt())).sum()) <= TRUSTED:
        return scale * float(values.sqrt().sum())
    return scale * float(torch.linalg.svdvals(_root(first) @ _root(second).T).sum())


def _around(root: Tensor, other: Statistics, scale: float) -> Tensor:
    """R S R^T / scale."""
    if other.rows is not None:
        cross = root @ other.rows.T / math.sqrt(scale)
        return cross @ cross.T
    return root @ (other.dense() / scale) @ root.T


def _between(lower: Tensor, other: Tensor) -> Tensor:
    """The lower triangle of L^T S L: a third of the work of two products of whole matrices."""
    out = torch.zeros_like(other)
    for start in range(0, len(other), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        out[start:, columns] = lower[start:, start:].T @ (other[start:, start:] @ lower[start:, columns])
    return out


def _root(of: Statistics) -> Tensor:
    """R with R^T R = S / tr(S), (r, D), where r is the rank up to rounding."""
    if of.rows is not None:
        return of.rows / math.sqrt(of.trace)
    values, vectors = torch.linalg.eigh(of.dense() / of.trace)
    _refuse_negative(values, f"the covariance of {of.what}")
    kept = values > len(values) * EPSILON * values[-1]
    root: Tensor = (vectors[:, kept] * values[kept].sqrt()).T
    return root


def _refuse_negative(values: Tensor, what: str) -> None:
    if values[0] < -1e3 * len(values) * EPSILON * values[-1].abs():
        raise DataError(
            f"{what} has eigenvalues from {float(values[0]):.3g} to {float(values[-1]):.3g} (in parts of the "
            "trace); expected none below 0, as features have. Compute the statistics again"
        )


def too_few(first: Statistics, second: Statistics) -> str:
    """What a reader has to know where a set has no more samples than features; "" where both have."""
    width = len(first.mean)
    few = [f"{side.count} of {side.what}" for side in (first, second) if side.count <= width]
    if not few:
        return ""
    return (
        f"Fréchet distance with {' and '.join(few)} for {width} features: the covariance has no full rank and "
        "the value is too large; compare it only at equal counts. Use kid, which has no such bias, or more than "
        f"{width} samples"
    )


@dataclass(frozen=True)
class ClassDistances:
    """Fréchet distances class by class.

    Attributes:
        distances: by class name, in the order of the classes.
        mean: over these classes, each counted once.
        worst: the class with the largest distance.
        left_out: what has fewer than two samples on a side: "cat (1 real, 50 generated)".
        note: :func:`too_few` for the smallest class, or "".
    """

    distances: dict[str, float]
    mean: float
    worst: str
    left_out: tuple[str, ...]
    note: str


def class_distances(
    real: Tensor, real_labels: Tensor, generated: Tensor, generated_labels: Tensor, names: Sequence[str]
) -> ClassDistances:
    """The Fréchet distance between reals and generated samples of one class, for each class.

    Args:
        real, generated: features, (N, D) and (M, D). real_labels, generated_labels: int64 (N,) and (M,), from 0
            to ``len(names) - 1``.

    Raises:
        ValueError: labels that do not fit. DataError: no class with two samples on both sides.
    """
    check_pair(real, generated, "the reals", "the generated samples")
    for what, features, labels in (("real", real, real_labels), ("generated", generated, generated_labels)):
        if labels.shape != (len(features),) or (
            len(labels) and not 0 <= labels.min() <= labels.max() < len(names)
        ):
            raise ValueError(
                f"{what} labels are {tuple(labels.shape)} for {len(features)} rows; expected one for each, from "
                f"0 to {len(names) - 1}"
            )
    distances: dict[str, float] = {}
    left_out = []
    note, fewest = "", math.inf
    for index, name in enumerate(names):
        sides = real[real_labels == index], generated[generated_labels == index]
        counts = len(sides[0]), len(sides[1])
        if min(counts) < 2:
            left_out.append(f"{name} ({counts[0]} real, {counts[1]} generated)")
            continue
        fitted = statistics(sides[0], f"the reals of {name}"), statistics(sides[1], f"the samples of {name}")
        distances[name] = frechet_distance(*fitted)
        if min(counts) < fewest:
            fewest, note = min(counts), too_few(*fitted)
    if not distances:
        raise DataError(
            f"Fréchet distance by class: none of {len(names)} classes has two reals and two generated samples "
            f"({', '.join(left_out[:5])}{', …' if len(left_out) > 5 else ''}); expected at least one. Use more "
            "samples"
        )
    worst = max(distances, key=lambda name: distances[name])
    mean = sum(distances.values()) / len(distances)
    return ClassDistances(distances, mean, worst, tuple(left_out), note)
