"""A run in the terminal: a view that is drawn anew, or lines where nothing can be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gancore.cli.console import describe_tick
from gancore.report.page import number
from gancore.report.reading import RunRecord, curves, is_number, seconds_left, speed
from gancore.report.sections import STATE_COLOURS, state_text
from gancore.text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
COLOURS = {"good": "green", "bad": "red", "warm": "yellow", "soft": "dim"}
MOST_BARS = 48
NEWEST_WARNINGS = 3
FIXED_LINES = 12
"""Lines of the view beside those of curves."""


def view(record: RunRecord, width: int, height: int) -> RenderableType:
    """Progress, curves as bars, newest metrics, newest warnings.

    Args:
        width, height: of the terminal, in characters.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    colour = COLOURS[STATE_COLOURS[record.state]]
    head = Text.assemble((record.name, "bold"), "  ", (record.state, colour))
    parts: list[RenderableType] = [head, Text(progress_line(record))]
    if record.steps:
        parts.append(ProgressBar(total=record.steps, completed=record.step, width=min(width, 72)))
    found = curves(replace(record, rows=record.rows[-MOST_BARS:]))
    names = sorted(found, key=lambda name: (not name.startswith("loss/"), name))
    shown = names[: max(2, height - FIXED_LINES)]
    if shown:
        table = Table.grid(padding=(0, 2))
        for name in shown:
            values = found[name][1]
            bars = sparkline(values, max(8, min(MOST_BARS, width - 44)))
            table.add_row(Text(name, overflow="ellipsis", no_wrap=True), Text(number(values[-1])), Text(bars))
        parts += [Text(), table]
    if len(shown) < len(names):
        parts.append(Text(f"and {len(names) - len(shown)} more curves: gan watch --web shows them", "dim"))
    lines = [Text(line) for row in record.evaluations[-1:] for line in [metrics_line(row)]]
    lines += [Text(warning_line(event), "yellow") for event in record.events[-NEWEST_WARNINGS:]]
    return Group(*parts, *([Text(), *lines] if lines else []))


def progress_line(record: RunRecord) -> str:
    """``"step 120 of 300  640 images/s  ETA 42 s"``; how a run ended, once it has."""
    if record.state != "running":
        return state_text(record)
    rates = speed(record)[1]
    left = seconds_left(record)
    facts = [
        f"step {record.step:,}" + (f" of {record.steps:,}" if record.steps is not None else ""),
        f"{rates[-1]:,.0f} images/s" if rates else "",
        f"ETA {duration(left)}" if left is not None else "",
    ]
    return "  ".join(filter(None, facts))


def tick_line(record: RunRecord, row: dict[str, Any]) -> str:
    """A line of metrics for a log: ``"step 120 of 300  640 images/s  loss d 1.1  g 0.9"``."""
    losses = {k: {"mean": v} for k, v in row.items() if k.startswith("loss/") and is_number(v)}
    rate = row.get("images_per_second")
    length = f" of {record.steps:,}" if record.steps is not None else ""
    return f"step {row['step']:,}{length}  {describe_tick(rate if is_number(rate) else 0.0, losses)}"


def metrics_line(row: dict[str, Any]) -> str:
    """``"metrics at step 500: fid 31.2, kid 0.012"``."""
    return f"metrics at step {row['step']:,}: " + ", ".join(
        f"{name} {number(value)}" for name, value in row["metrics"].items()
    )


def warning_line(event: dict[str, Any]) -> str:
    """``"warning at step 50: r1: the penalty is zero"``."""
    method = f"{event['method']}: " if "method" in event else ""
    return f"{event['event']} at step {event['step']:,}: {method}{event.get('what', '')}"


class Lines:
    """What is new in a run since the last look, as lines for a log."""

    def __init__(self) -> None:
        self._told = {"events": 0, "evaluations": 0}
        self._step = -1

    def of(self, record: RunRecord) -> Iterator[str]:
        """Warnings and metrics, each once, then the newest tick if it is a new one."""
        for name, line in (("events", warning_line), ("evaluations", metrics_line)):
            rows = getattr(record, name)
            told = min(self._told[name], len(rows))  # a resume drops what came after its checkpoint
            yield from map(line, rows[told:])
            self._told[name] = len(rows)
        if record.rows and record.rows[-1]["step"] != self._step:
            self._step = record.rows[-1]["step"]
            yield tick_line(record, record.rows[-1])


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Bars of the last values, from the lowest to the highest of them; a gap is a blank."""
    latest = [math.nan if value is None else float(value) for value in values[-width:]]
    known = [value for value in latest if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in latest)
