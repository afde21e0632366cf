"""Estimates against formulas written out, their coverage and power against simulated ablations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from gancore.statistics import LEVEL, compare, estimate, holm

SEEDS = 5
ROUNDS = 2000


def student_quantile(probability: float, freedom: int) -> float:
    """By bisection of the integral of Student's density."""

    def density(t: float) -> float:
        scale = special.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / special.gamma(freedom / 2)
        return scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)

    low, high = 0.0, 200.0
    for _ in range(80):
        middle = (low + high) / 2
        below = 0.5 + integrate.quad(density, 0, middle, limit=200)[0]
        low, high = (middle, high) if below < probability else (low, middle)
    return low


def interval_by_hand(values: list[float]) -> tuple[float, float, float]:
    count = len(values)
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_quantile(0.5 + LEVEL / 2, count - 1) * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_interval_equals_the_formula(count):
    values = list(np.random.default_rng(count).normal(30, 4, count))
    found = estimate(values)
    mean, low, high = interval_by_hand(values)
    assert found.value == pytest.approx(mean, rel=1e-12)
    assert found.low == pytest.approx(low, rel=1e-8)
    assert found.high == pytest.approx(high, rel=1e-8)
    assert found.count == count


def test_p_is_the_level_at_which_the_interval_touches_zero():
    values = [0.4, 1.3, -0.2, 0.9]
    found = estimate(values)
    assert found.p is not None
    touching = estimate(values, level=1 - found.p)
    assert touching.low == pytest.approx(0, abs=1e-12)
    assert touching.high == pytest.approx(2 * touching.value)


def test_one_value_has_no_interval():
    assert estimate([3.5]) == estimate([3.5], level=0.5)
    assert estimate([3.5]).low is None
    assert estimate([3.5]).p is None


@pytest.mark.parametrize("values", [[8.0, 8.0, 8.0], [0.1 + 0.2, 0.3], [0.0, 0.0]])
def test_values_without_spread_have_no_interval(values):
    found = estimate(values)
    assert found.value == pytest.approx(values[0])
    assert (found.low, found.high, found.p) == (None, None, None)


def test_differences_that_rounding_makes_are_no_spread():
    """Ours are 0.1 above theirs, as exactly as float64 can say it."""
    theirs = {seed: 1000.0 + seed / 7 for seed in range(5)}
    found = compare({seed: value + 0.1 for seed, value in theirs.items()}, theirs)
    assert found is not None
    assert found.difference.p is None
    assert found.difference.value == pytest.approx(0.1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_that_are_no_numbers(values):
    with pytest.raises(ValueError, match="expected at least one, all finite"):
        estimate(values)


def test_comparison_is_paired_over_shared_seeds():
    ours, theirs = {0: 9.0, 1: 22.0, 2: 28.0, 7: 1e9}, {3: 5e8, 2: 30.0, 1: 20.0, 0: 10.0}
    found = compare(ours, theirs)
    assert found is not None
    assert found.seeds == (0, 1, 2)
    mean, low, high = interval_by_hand([-1.0, 2.0, -2.0])
    assert found.difference.value == pytest.approx(mean)
    assert found.difference.low == pytest.approx(low)
    assert found.difference.high == pytest.approx(high)
    assert found.ratio is not None
    mean, low, high = interval_by_hand([math.log(0.9), math.log(1.1), math.log(28 / 30)])
    assert found.ratio.value == pytest.approx((0.9 * 1.1 * 28 / 30) ** (1 / 3))
    assert found.ratio.low == pytest.approx(math.exp(low))
    assert found.ratio.high == pytest.approx(math.exp(high))


def test_no_ratio_where_a_value_is_not_positive():
    found = compare({0: 1.0, 1: -0.5}, {0: 1.0, 1: 2.0})
    assert found is not None
    assert found.ratio is None


def test_nothing_to_compare_without_a_shared_seed():
    assert compare({0: 1.0}, {1: 1.0}) is None


def closed_test(p_values: list[float], index: int) -> float:
    """Holm as the closure of Bonferroni: the largest Bonferroni p of any set of hypotheses that has it."""
    others = [i for i in range(len(p_values)) if i != index]
    sets = [
        {index, *chosen} for size in range(len(others) + 1) for chosen in itertools.combinations(others, size)
    ]
    return max(min(1.0, len(members) * min(p_values[i] for i in members)) for members in sets)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_holm_equals_the_closed_test(count):
    generator = np.random.default_rng(count)
    for _ in range(50):
        p_values = list(generator.uniform(0, 0.5, count) ** 2)
        found = holm({str(index): p for index, p in enumerate(p_values)})
        for index in range(count):
            assert found[str(index)] == pytest.approx(closed_test(p_values, index))


def test_holm_on_ties_and_nothing():
    assert holm({}) == {}
    assert holm({"a": 0.02, "b": 0.02, "c": 0.9}) == pytest.approx({"a": 0.06, "b": 0.06, "c": 0.9})


def simulated(generator: np.random.Generator, effect: float) -> tuple[dict[int, float], dict[int, float]]:
    """Metrics of a baseline and an arm: seeds share a part, each run has noise of its own of deviation 1."""
    shared = generator.normal(30, 5, SEEDS)
    theirs, ours = shared + generator.normal(0, 1, SEEDS), shared + effect + generator.normal(0, 1, SEEDS)
    return dict(enumerate(ours)), dict(enumerate(theirs))


def within(share: float, nominal: float) -> bool:
    """Four standard errors of a binomial share."""
    return abs(share - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / ROUNDS)


@pytest.mark.slow
def test_a_null_arm_covers_zero_at_the_nominal_rate():
    generator = np.random.default_rng(0)
    covered, ratio_covered = 0, 0
    for _ in range(ROUNDS):
        found = compare(*simulated(generator, 0.0))
        assert found is not None
        assert found.ratio is not None
        covered += found.difference.low <= 0 <= found.difference.high
        ratio_covered += found.ratio.low <= 1 <= found.ratio.high
    assert within(covered / ROUNDS, LEVEL)
    assert within(ratio_covered / ROUNDS, LEVEL)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1.0, 2.0, -3.0])
def test_a_known_effect_is_found_with_the_power_of_theory(effect):
    """Differences have deviation sqrt(2), so t is noncentral with effect sqrt(n / 2)."""
    generator = np.random.default_rng(1)
    found = sum(compare(*simulated(generator, effect)).difference.p < 1 - LEVEL for _ in range(ROUNDS))
    critical = student_quantile(0.5 + LEVEL / 2, SEEDS - 1)
    noncentral = stats.nct(SEEDS - 1, effect * math.sqrt(SEEDS / 2))
    assert within(found / ROUNDS, noncentral.sf(critical) + noncentral.cdf(-critical))


@pytest.mark.slow
def test_false_finds_among_several_null_arms_stay_below_the_level():
    """The arms share a baseline, so their differences are correlated; Holm holds all the same."""
    generator = np.random.default_rng(2)
    false = 0
    for _ in range(ROUNDS):
        theirs = dict(enumerate(generator.normal(30, 1, SEEDS)))
        arms = {str(arm): dict(enumerate(generator.normal(30, 1, SEEDS))) for arm in range(4)}
        p_values = {name: compare(values, theirs).difference.p for name, values in arms.items()}
        false += min(holm(p_values).values()) < 1 - LEVEL
    assert false / ROUNDS < 1 - LEVEL + 4 * math.sqrt(0.05 * 0.95 / ROUNDS)


def test_ratios_that_no_float_holds():
    tiny, huge = {0: 1e-310, 1: 2e-310}, {0: 1e150, 1: 1e150}
    found = compare(tiny, huge)
    assert found is not None
    assert found.ratio is not None
    assert found.ratio.value == 0.0  # exp of -1058
    wild = compare({0: 1e-150, 1: 1e150}, {0: 1.0, 1: 1.0})
    assert wild is not None
    assert wild.ratio is not None
    assert wild.ratio.value == pytest.approx(1.0)
    assert wild.ratio.low == 0.0
    assert wild.ratio.high is None
    above = compare(huge, tiny)
    assert above is not None
    assert above.ratio is None
