"""Pages escape what they show, load nothing, and their charts hold no name that two of them could share."""

from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("matplotlib", reason="needs the extra gancore[report]")
pytest.importorskip("jinja2", reason="needs the extra gancore[report]")

from gancore.errors import ConfigError
from gancore.report.charts import POINTS, Curve, lines, short, thin
from gancore.report.embed import Embedded
from gancore.report.page import number, render

NASTY = "<script>alert(\"1\")</script> & 'q' ünïcode 数 $\\frac{a}$"


def test_numbers_for_people() -> None:
    shown = {
        None: "–",  # noqa: RUF001
        math.nan: "–",  # noqa: RUF001
        math.inf: "–",  # noqa: RUF001
        True: "yes",
        12000: "12,000",
        10**30: "1.000e+30",
        10**400: "1.000e+400",
        0.5: "0.5",
        64000.0: "64,000",
        1.23456e-7: "1.235e-07",
        31.21234: "31.21",
        12345.6: "12,346",
        1e12: "1e+12",
        "text": "text",
    }
    assert {value: number(value) for value in shown} == shown
    assert number(False) == "no"


def test_parts_escape_their_values() -> None:
    from gancore.report.page import _environment

    parts = _environment().get_template("parts.html").module
    made = [
        parts.cards([(NASTY, NASTY, NASTY), ("n", 12000)]),
        parts.table([NASTY], [[NASTY]], caption=NASTY),
        parts.figure(lines([Curve([1, 2], [1, 2])], NASTY), NASTY, NASTY),
        parts.picture(Embedded("data:,", 1, 1), NASTY, NASTY),
        parts.legend([("#000", NASTY)]),
    ]
    for text in made:
        assert "<script" not in text
        assert "ünïcode 数 $\\frac{a}$" in text
    assert "<b>12,000</b>" in made[0]


def test_a_chart_is_one_element_that_follows_the_page() -> None:
    x = list(range(0, 5000, 10))
    chart = lines([Curve(x, [math.sin(v) for v in x], [0.1] * len(x)), Curve(x, [2.0] * len(x), None, 1)], NASTY)
    root = ElementTree.fromstring(str(chart))
    assert root.attrib["aria-label"] == NASTY
    assert "currentColor" in chart
    assert "#010203" not in chart
    assert "font-family" not in chart
    assert len(chart) < 30_000
    words = {element.text for element in root.iter("text")}
    assert {"0", "3k"} <= words


def test_charts_share_no_names() -> None:
    charts = [lines([Curve([1, 2, 3], [1, 2, shift], [1, 1, 1])], "same") for shift in (3, 4)]
    first, second = (set(re.findall(r'id="([^"]+)"', chart)) for chart in charts)
    assert first
    assert not first & second
    for chart in charts:
        named = set(re.findall(r'id="([^"]+)"', chart))
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', chart)) <= named


def test_equal_curves_give_equal_charts() -> None:
    assert lines([Curve([1, 2], [1, 2])], "a") == lines([Curve([1, 2], [1, 2])], "a")


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1], [None]),
        ([1, 2, 3], [1.0, math.nan, 2.0]),
        ([1, 2], [math.inf, -math.inf]),
        ([1, 2], [1e300, 2.0]),
        ([5], [3.0]),
    ],
)
def test_gaps_and_odd_values_are_drawn_or_left_out(x: list[float], y: list[float | None]) -> None:
    ElementTree.fromstring(str(lines([Curve(x, y, y)], "odd")))


def test_thinning_takes_means_and_keeps_gaps() -> None:
    count = 10 * POINTS
    y: list[float | None] = [float(index % 10) for index in range(count)]
    y[:20] = [None] * 20
    y[25] = math.nan
    x, means, spread = thin(Curve(range(count), y, [2.0] * count))
    assert len(x) == len(means) == POINTS
    assert spread == [2.0] * POINTS
    assert x[1] == pytest.approx(14.5)
    assert math.isnan(means[0])
    assert math.isnan(means[1])
    assert means[2] == pytest.approx((45 - 5) / 9)
    assert means[3] == pytest.approx(4.5)


def test_steps_on_an_axis() -> None:
    assert [short(value) for value in (0, 500, 2500, 1e6, 2.5e9)] == ["0", "500", "2.5k", "1M", "2.5G"]


@pytest.mark.parametrize("gone", ["matplotlib", "jinja2"])
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(ConfigError, match=rf"'{gone}' is not installed.*pip install 'gancore\[report\]'"):
        render("parts.html")
