"""The kernel distance: squared maximum mean discrepancy with a cubic kernel, without bias.

Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", 2018, arXiv:1801.01401: for
subsets of m rows each, with k(x, y) = (<x, y> / D + 1)^3,

    MMD^2 = sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2

and the mean over subsets. It may be below zero, where both sets are of one distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gancore.api import ConfigError
from gancore_fidelity.checks import at_least_float32, check_pair

_BLOCK = 256


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over subsets, which is no standard error of the mean: subsets share rows."""

    mean: float
    std: float


def draw_subsets(
    counts: tuple[int, int], size: int, subsets: int, random: np.random.Generator | np.random.RandomState
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of both sets, int64 (size,) each, ``subsets`` times, without replacement inside a subset.

    Raises:
        ConfigError: a subset larger than a set, or of one row, or no subset.
    """
    _check(counts, size, subsets)
    return (
        (random.choice(counts[0], size, False), random.choice(counts[1], size, False)) for _ in range(subsets)
    )


def kernel_distance(
    first: Tensor,
    second: Tensor,
    subsets: Iterator[tuple[np.ndarray, np.ndarray]] | Sequence[tuple[np.ndarray, np.ndarray]],
) -> KernelDistance:
    """KID of features (N, D) and (M, D), of one floating type.

    Kernels are computed in the type of the features, of half types in float32. With float32 the result is off by
    some 1e-8 of the mean kernel.

    Args:
        subsets: rows of the first and of the second set, m each; from :func:`draw_subsets`.

    Raises:
        ValueError: shapes, types or subsets that do not fit. DataError: features that are not finite.
    """
    check_pair(first, second, "the generated samples", "the reals")
    if first.dtype != second.dtype:
        raise ValueError(f"features are {first.dtype} and {second.dtype}; expected one type")
    first, second = at_least_float32(first), at_least_float32(second)
    values = [
        squared_discrepancy(
            first.index_select(0, torch.from_numpy(x)), second.index_select(0, torch.from_numpy(y))
        )
        for x, y in subsets
    ]
    if not values:
        raise ValueError("no subsets; expected at least one")
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def squared_discrepancy(first: Tensor, second: Tensor) -> float:
    """MMD^2 of two sets of m >= 2 rows, (m, D) each. Raises ValueError for other shapes."""
    size = len(first)
    if first.shape != second.shape or size < 2:
        raise ValueError(
            f"subsets are {tuple(first.shape)} and {tuple(second.shape)}; expected (m, D), m >= 2, twice"
        )
    within = _sum_within(first) + _sum_within(second)
    return within / (size * (size - 1)) - 2 * _sum_of_cubes(_inner(first, second)) / size**2


def _sum_within(rows: Tensor) -> float:
    """sum_{i != j} k(x_i, x_j): pairs of rows of two blocks are computed once and count twice."""
    total = 0.0
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        inner = _inner(block, rows[start:])
        # Before the power: it holds squared lengths, the largest numbers, which would round all others.
        inner.fill_diagonal_(0)
        total += _sum_of_cubes(inner[:, : len(block)]) + 2 * _sum_of_cubes(inner[:, len(block) :])
    return total


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """<x, y> / D + 1."""
    return torch.addmm(first.new_ones(1), first, second.T, alpha=1 / first.shape[1])


def _sum_of_cubes(values: Tensor) -> float:
    return float(torch.linalg.vecdot(values.square(), values).sum(dtype=torch.float64))


def _check(counts: tuple[int, int], size: int, subsets: int) -> None:
    if size > min(counts):
        raise ConfigError(
            f"KID subsets of {size} from {counts[0]} generated samples and {counts[1]} reals; expected at most "
            f"{min(counts)}. Use smaller subsets, or more samples"
        )
    if size < 2 or subsets < 1:
        raise ConfigError(f"{subsets} KID subsets of {size}; expected at least one, of 2 rows or more")
