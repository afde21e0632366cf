"""Means and paired differences over seeds, each with its interval; p-values corrected for several comparisons.

Runs of one seed share their data order and latents as far as their methods allow, so arms are compared seed by
seed: the difference of each pair is one observation, and its mean is tested with Student's t. Intervals are for
one comparison at a time; Holm's correction is for p-values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Coverage of every interval."""

SIGNIFICANCE = 0.05
"""A difference counts as found when its corrected p-value lies below."""

ROUNDING = 1e-12
"""Spread, as a share of the values, below which all values count as one: rounding alone makes as much."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: the mean; of ratios the geometric mean.
        low, high: the interval; None where there is none: one seed, or no spread at all.
        p: two-sided, that the true mean is 0 (of ratios 1); None where there is no interval.
        count: how many seeds.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    count: int


@dataclass(frozen=True)
class Comparison:
    """An arm beside the baseline, over the seeds that both have.

    Attributes:
        difference: of arm minus baseline.
        ratio: of arm over baseline; None unless all values of both are above 0. An end of its interval is None
            where it is too large for a float.
        seeds: that both have, in order.
    """

    difference: Estimate
    ratio: Estimate | None
    seeds: tuple[int, ...]


def estimate(values: Sequence[float], *, scale: float | None = None, level: float = LEVEL) -> Estimate:
    """The mean of independent values with its Student t interval, mean ± t(level, n - 1) s / sqrt(n).

    Args:
        values: at least one, finite.
        scale: size of the numbers behind ``values``, for telling spread from rounding; by default their own.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"values = {list(values)}: expected at least one, all finite")
    numbers = np.asarray(values, dtype=np.float64)
    mean, count = float(numbers.mean()), len(numbers)
    size = float(np.abs(numbers).max()) if scale is None else scale
    if count < 2 or float(np.ptp(numbers)) <= ROUNDING * size:
        return Estimate(mean, None, None, None, count)
    from scipy import stats

    tested = stats.ttest_1samp(numbers, 0.0)
    interval = tested.confidence_interval(level)
    return Estimate(mean, float(interval.low), float(interval.high), float(tested.pvalue), count)


def compare(
    arm: Mapping[int, float], baseline: Mapping[int, float], *, level: float = LEVEL
) -> Comparison | None:
    """Paired difference and ratio over the seeds that both have; None when they share none.

    Args:
        arm, baseline: value by seed.
    """
    seeds = tuple(sorted(set(arm) & set(baseline)))
    if not seeds:
        return None
    pairs = [(arm[seed], baseline[seed]) for seed in seeds]
    size = max(abs(value) for pair in pairs for value in pair)
    difference = estimate([ours - theirs for ours, theirs in pairs], scale=size, level=level)
    ratio = None
    if all(value > 0 for pair in pairs for value in pair):
        differences = [math.log(ours) - math.log(theirs) for ours, theirs in pairs]
        logarithms = estimate(differences, scale=1.0, level=level)
        mean, low, high = (_exp(x) for x in (logarithms.value, logarithms.low, logarithms.high))
        if mean is not None:
            ratio = Estimate(mean, low, high, logarithms.p, logarithms.count)
    return Comparison(difference, ratio, seeds)


def _exp(value: float | None) -> float | None:
    """None for None, and where a float has no room: two seeds may give an interval of thousands of e-folds."""
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Corrected so that the chance of any false find among all of them stays below the level tested at.

    The i-th smallest of m is multiplied by m - i + 1 and is no smaller than those before it, and at most 1.

    Reference: Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for index, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - index) * p_values[name]))
        corrected[name] = largest
    return corrected
