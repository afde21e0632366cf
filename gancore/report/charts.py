"""Curves as SVG text that stands in a page: no ids, colours that follow the page, words in HTML around it.

A chart is 360 x 200 units, so that its labels can be read on a phone; pages show many of them in a grid.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 360, 200
PALETTE = ("#3b82c4", "#e0803a", "#3a9d6a", "#b65fa8", "#c9a227", "#6d6fd0", "#d05a5a", "#4aa3ab")
"""Colours of curves, readable on white and on black; a page's legend uses the same order."""

INK = "#010203"
"""Drawn as the page's text colour."""

POINTS = 300
"""Points a curve is thinned to: more cannot be seen at this size."""

LARGEST = 1e30
"""Values beyond this are left out, like NaN: no axis could show the others beside them."""

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11.0,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "path.simplify": True,
}


@dataclass(frozen=True)
class Curve:
    """A curve of a chart.

    Attributes:
        x, y: of equal length; a y that is None or not finite is a gap.
        spread: half-width of the band around it at each point, or None for no band.
        colour: index into :data:`PALETTE`, which is used in turn.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    spread: Sequence[float | None] | None = None
    colour: int = 0


def lines(curves: Sequence[Curve], label: str) -> Markup:
    """Curves over steps as an SVG element.

    Args:
        label: what a screen reader says.
    """
    with canvas(label, salt=repr(curves)) as (axes, drawn):
        for curve in curves:
            x, y, spread = thin(curve)
            colour = PALETTE[curve.colour % len(PALETTE)]
            marker = "o" if len(x) <= 40 else ""
            axes.plot(x, y, color=colour, linewidth=1.4, marker=marker, markersize=2.5)
            if spread is not None:
                low = [value - width for value, width in zip(y, spread, strict=True)]
                high = [value + width for value, width in zip(y, spread, strict=True)]
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.margins(x=0.01)
    return drawn[0]


@contextmanager
def canvas(
    label: str, width: float = WIDTH, height: float = HEIGHT, *, left: float = 46, salt: str = ""
) -> Iterator[tuple[Axes, list[Markup]]]:
    """Axes to draw into; afterwards the list holds the SVG element.

    Args:
        label: what a screen reader says. width, height: in units of the page, about pixels.
        left: room for the labels of y.
        salt: with the label, what makes the names of clips and markers unique in a page.
    """
    from markupsafe import Markup
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    drawn: list[Markup] = []
    with rc_context({**_RC, "svg.hashsalt": label + salt}):
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_axes((left / width, 24 / height, 1 - (left + 10) / width, 1 - 40 / height))
        axes.patch.set_visible(False)
        axes.grid(True, color=INK, alpha=0.12, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        yield axes, drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn.append(Markup(_for_a_page(buffer.getvalue(), label)))


def thin(curve: Curve) -> tuple[list[float], list[float], list[float] | None]:
    """At most :data:`POINTS` points: each the mean of as many neighbours, with the mean of their spreads.

    A gap stays a gap where all of its neighbours are gaps.
    """
    x = [float(value) for value in curve.x]
    y = [_plain(value) for value in curve.y]
    spread = None if curve.spread is None else [_plain(value) for value in curve.spread]
    size = -(-len(x) // POINTS)
    if size <= 1:
        return x, y, spread
    return _means(x, size), _means(y, size), None if spread is None else _means(spread, size)


def short(value: float) -> str:
    """A step on an axis: ``"500"``, ``"2.5k"``, ``"1M"``."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}"


def _plain(value: float | None) -> float:
    return float(value) if value is not None and abs(value) <= LARGEST else math.nan


def _means(values: Sequence[float], size: int) -> list[float]:
    means = []
    for start in range(0, len(values), size):
        found = [value for value in values[start : start + size] if not math.isnan(value)]
        means.append(sum(found) / len(found) if found else math.nan)
    return means


def _for_a_page(document: str, label: str) -> str:
    """The element alone: sized by the page, with its colour and font, and no id that two charts could share."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r' id="[a-zA-Z][\w.]*_\d+"', "", element)
    element = re.sub(r" font-family: [^;\"]*;", "", element)
    element = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), element)  # 0.1 pixels
    element = re.sub(r' transform="rotate\(-0 [^"]*"', "", element)
    element = re.sub(r"\s*\n\s*", " ", element)
    element = element.replace(INK, "currentColor")
    view = re.search(r'viewBox="[^"]*"', element)
    assert view is not None
    head = f'<svg role="img" aria-label="{escape(label)}" {view[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"<svg[^>]*>", lambda _: head, element, count=1)
