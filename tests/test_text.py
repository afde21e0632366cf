"""Numbers, names and facts as people read them."""

from __future__ import annotations

import pytest

from gancore import text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "noun", "shown"),
    [
        (0, "image", "0 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2000, "image", "2,000 images"),
    ],
)
def test_plural(count: int, noun: str, shown: str) -> None:
    assert text.plural(count, noun) == shown


def test_listed_names_twenty() -> None:
    assert text.listed("ab") == "a, b"
    assert text.listed(str(number) for number in range(1022)).endswith(", 18, 19 and 1,002 more")


def test_table() -> None:
    assert text.table([("a", "bb"), ("ccc", "d")], ("X", "Y")) == "X    Y\na    bb\nccc  d"
    assert text.table([]) == ""


def test_facts_tell_unlike_values_apart_and_cut_hashes_only() -> None:
    assert text.facts({"ema": True, "seed": 0, "unknown": None, "share": 0.01}) == "ema yes, seed 0, share 0.01"
    assert text.fact(0.1234567) == "0.1234567"
    assert text.fact("0123456789abcdef" * 4) == "0123456789ab…"
    assert text.fact("x" * 64) == "x" * 64
