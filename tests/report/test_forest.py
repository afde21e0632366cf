"""Forest plots: what is drawn where, and files that stand alone."""

from __future__ import annotations

import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from gancore.report.charts import PALETTE
from gancore.report.forest import Row, draw, forest, picture

ROWS = [
    Row("ada", -2.0, -3.0, -1.0, [-2.5, -1.5], 1),
    Row("a <b> & $c$", 0.5, None, None, [0.5], 2),
]


def drawn(rows):
    axes = Figure().add_subplot()
    draw(axes, rows, "black")
    return axes


def test_values_are_where_they_belong():
    axes = drawn(ROWS)
    lines = [(list(map(float, line.get_xdata())), line.get_color()) for line in axes.get_lines()]
    assert ([-2.5, -1.5], PALETTE[1]) in lines
    assert ([-3.0, -1.0], PALETTE[1]) in lines
    assert ([-2.0], PALETTE[1]) in lines
    assert ([0.5], PALETTE[2]) in lines
    assert [0.0, 0.0] in [x for x, _ in lines]
    low, high = axes.get_xlim()
    assert low < -3.0
    assert high > 0.5


def test_rows_run_from_the_top_down_and_none_is_cut_off():
    axes = drawn(ROWS)
    heights = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "D"]
    assert heights == sorted(heights, reverse=True)
    low, high = axes.get_ylim()
    assert all(low < height < high for height in heights)


def test_zero_is_in_sight_where_all_differences_are_far_from_it():
    low, high = drawn([Row("a", 100.0, 99.0, 101.0, [100.0])]).get_xlim()
    assert low < 0 < high


def test_a_row_without_any_spread_at_zero():
    low, high = drawn([Row("a", 0.0, None, None, [0.0])]).get_xlim()
    assert low < 0 < high


def test_svg_of_a_page_follows_its_colours_and_escapes():
    svg = str(forest(ROWS, 'Differences of "fid"'))
    assert svg.startswith("<svg role=")
    assert "currentColor" in svg
    assert "a &lt;b&gt; &amp; $c$" in svg
    assert not re.search(r"(href|src)=\"http", svg)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1] * 12])
def test_files_stand_alone_and_do_not_change(rows):
    svg = picture(rows, "fid, lower is better", "svg")
    assert svg.startswith(b"<?xml")
    assert b'xmlns="http://www.w3.org/2000/svg"' in svg
    assert svg == picture(rows, "fid, lower is better", "svg")
    with Image.open(io.BytesIO(picture(rows, "fid", "png"))) as image:
        assert image.width == pytest.approx(1008, abs=2)
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
