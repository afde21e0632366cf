"""The results of an ablation on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gancore.ablation.results import shown_metrics
from gancore.ablation.tables import COLUMNS, heading, metric_rows, states_text, title


def as_rich(results: Mapping[str, Any], chosen: Sequence[str] = ()) -> RenderableType:
    """Every metric as a table in colour, then the notes; arms that were found better or worse stand out."""
    colours = {"better": "green", "worse": "red"}
    parts: list[RenderableType] = [Text(heading(results))]
    for name in shown_metrics(results, chosen):
        heading_text = Text(f"\n{title(results, name)}", style="bold")
        drawn = Table(title=heading_text, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in COLUMNS:
            fixed = column in ("p", "ratio")
            label, width = column.replace(" [", "\n["), max(len(column.split()[0]), 5)
            drawn.add_column(label, no_wrap=fixed, overflow="fold", min_width=width)
        for cells in metric_rows(results, name):
            drawn.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in cells))
        parts.append(drawn)
    if not results["metrics"]:
        parts.append(Text(states_text(results)))
    parts += [Text(f"note: {note}") for note in results["notes"]]
    return Group(*parts)
