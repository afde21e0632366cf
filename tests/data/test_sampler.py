from __future__ import annotations

import numpy as np
import pytest

from gancore.data import sampler
from gancore.data.sampler import flips, indices


def test_every_element_once_an_epoch():
    order = indices(3, "d", 0, 21, 7).reshape(3, 7)
    assert (np.sort(order, axis=1) == np.arange(7)).all()
    assert len({tuple(row) for row in order}) == 3


def test_a_batch_is_a_window_of_one_order_across_epochs():
    whole = indices(3, "d", 0, 100, 7)
    for start, count in [(0, 5), (5, 5), (6, 1), (7, 3), (3, 40), (50, 0)]:
        assert (indices(3, "d", start, count, 7) == whole[start : start + count]).all()
    assert whole.dtype == np.int64


def test_order_is_pure_whatever_was_asked_before():
    first = indices(1, "d", 20, 6, 8)
    for start in range(0, 400, 8):
        indices(1, "g", start, 8, 8)
    sampler._permutation.cache_clear()
    assert (indices(1, "d", 20, 6, 8) == first).all()


@pytest.mark.parametrize(("seed", "stream"), [(2, "d"), (1, "g")])
def test_seeds_and_streams_differ(seed, stream):
    assert (indices(1, "d", 0, 50, 50) != indices(seed, stream, 0, 50, 50)).any()
    assert (flips(1, "d", 0, 50) != flips(seed, stream, 0, 50)).any()


def test_the_cache_is_bounded_and_cannot_be_written():
    for epoch in range(50):
        indices(1, "d", epoch * 4, 4, 4)
    assert sampler._permutation.cache_info().currsize <= 4
    assert not sampler._permutation(1, "d", 0, 4).flags.writeable


def test_the_order_is_what_it_was_in_earlier_versions():
    # Resuming a run of an earlier version needs the same order.
    assert indices(0, "d", 0, 8, 8).tolist() == [7, 1, 3, 5, 2, 0, 4, 6]
    assert flips(0, "d", 0, 8).astype(int).tolist() == [1, 0, 1, 0, 0, 1, 1, 1]


def test_flips_are_pure_and_fair():
    whole = flips(5, "d", 0, 20_000)
    assert whole.dtype == bool
    assert (flips(5, "d", 777, 64) == whole[777 : 777 + 64]).all()
    assert abs(whole.mean() - 0.5) < 0.02
    assert abs((whole[1:] == whole[:-1]).mean() - 0.5) < 0.02


@pytest.mark.parametrize(("start", "count", "size"), [(0, 1, 0), (-1, 1, 5), (0, -1, 5)])
def test_impossible_positions(start, count, size):
    with pytest.raises(ValueError, match="expected size"):
        indices(0, "d", start, count, size)
