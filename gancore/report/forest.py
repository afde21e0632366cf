"""Forest plots: paired differences to a baseline with their intervals, one row an arm, around a line at zero."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gancore.report.charts import INK, PALETTE, WIDTH, canvas, short

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

ROW = 40
"""Height of a row, in units of the page."""

MARGIN = 40
"""Height of what is above and below the rows."""


@dataclass(frozen=True)
class Row:
    """An arm of a forest plot.

    Attributes:
        value: the mean difference. low, high: its interval, or None. seeds: the difference of each seed.
        colour: index into the palette, the same as in curves of this arm.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    seeds: Sequence[float]
    colour: int = 0


def forest(rows: Sequence[Row], label: str) -> Markup:
    """The plot as an SVG element for a page.

    Args:
        rows: at least one. label: what a screen reader says.
    """
    with canvas(label, WIDTH, height(rows), left=10, salt=repr(rows)) as (axes, drawn):
        draw(axes, rows, INK)
    return drawn[0]


def picture(rows: Sequence[Row], title: str, kind: Literal["svg", "png"]) -> bytes:
    """The plot as a file of its own, black on white, with its title.

    Args:
        rows: at least one.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    tall = height(rows) + 26
    with rc_context({"svg.hashsalt": title, "text.parse_math": False, "font.size": 10.0}):
        figure = Figure(figsize=(1.4 * WIDTH / 72, tall / 72), facecolor="white")
        axes = figure.add_axes((0.04, 26 / tall, 0.92, 1 - 58 / tall))
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(True, axis="x", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        draw(axes, rows, "black")
        buffer = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=144, metadata=metadata)
    return buffer.getvalue()


def height(rows: Sequence[Row]) -> float:
    """Of a plot, in units of the page."""
    return MARGIN + ROW * len(rows)


def draw(axes: Axes, rows: Sequence[Row], ink: str) -> None:
    """Draw rows from the top down: the name, the mean on its interval, the seeds as dots below it."""
    for index, row in enumerate(rows):
        place, colour = -float(index), PALETTE[row.colour % len(PALETTE)]
        name = axes.annotate(
            row.name,
            (0, place + 0.28),
            xycoords=("axes fraction", "data"),
            color=ink,
            va="center",
            annotation_clip=False,
        )
        name.set_in_layout(False)
        axes.plot([0.0, 0.0], [place - 0.52, place + 0.08], color=ink, linewidth=1.0)  # not through the name
        axes.plot(row.seeds, [place - 0.38] * len(row.seeds), "o", color=colour, alpha=0.6, markersize=3.5)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place - 0.1] * 2, color=colour, linewidth=2.0, solid_capstyle="butt")
        axes.plot([row.value], [place - 0.1], "D", color=colour, markersize=6)
    reach = [bound for row in rows for bound in (row.low, row.high, *row.seeds, 0.0) if bound is not None]
    room = (max(reach) - min(reach)) * 0.05 or 1.0
    axes.set_xlim(min(reach) - room, max(reach) + room)
    axes.set_ylim(-len(rows) + 0.48, 0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
