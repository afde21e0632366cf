"""The charts of a report: losses and all that is logged, speed, metrics under their protocols."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gancore.report.charts import Curve, lines
from gancore.report.page import number
from gancore.report.reading import RunRecord, curves, is_number, speed

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CHARTS = 120
"""Charts of logged curves in a page; a run that logs more has the others in a table."""

OPEN_CHARTS = 12
"""Up to so many charts a group stands open."""

ARROWS = {"lower": "lower is better", "higher": "higher is better"}


@dataclass(frozen=True)
class Chart:
    """A drawing with its words."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Charts of one origin, such as a method. ``opened``: whether it stands open."""

    name: str
    charts: list[Chart]
    opened: bool


@dataclass
class Measured:
    """A metric under one protocol.

    Attributes:
        points: run -> step -> value. protocol: how it was measured, without the direction.
        differs: the facts in which this protocol is unlike the others of this metric.
    """

    name: str
    better: str
    protocol: dict[str, Any]
    points: dict[int, dict[int, float]] = field(default_factory=dict)
    differs: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """``"fid (lower is better)"``."""
        return f"{self.name} ({ARROWS[self.better]})" if self.better in ARROWS else self.name

    @property
    def unlike(self) -> str:
        """``"samples 1,000, seed 0"``: what tells it from the same metric under other protocols."""
        return ", ".join(f"{key} {number(value)}" for key, value in self.differs.items())

    def best(self, run: int) -> tuple[int, float] | None:
        """Step and value of the best measurement; None where no direction is better."""
        if self.better not in ARROWS or run not in self.points:
            return None
        sign = 1 if self.better == "lower" else -1
        return min(self.points[run].items(), key=lambda pair: (sign * pair[1], pair[0]))

    def newest(self, run: int) -> tuple[int, float] | None:
        """Step and value of the newest measurement."""
        return max(self.points[run].items()) if run in self.points else None


def logged(records: Sequence[RunRecord]) -> tuple[list[Group], list[tuple[str, str]]]:
    """Charts of all curves in groups, the losses first; and (name, last value) of curves beyond the limit."""
    found = [curves(record) for record in records]
    names = sorted({name for table in found for name in table}, key=_order)
    by_group: dict[str, list[str]] = {}
    for name in names[:MOST_CHARTS]:
        by_group.setdefault(_group(name), []).append(name)
    groups = []
    shown = 0
    for group, members in by_group.items():
        charts = [_chart(name, found) for name in members]
        shown += len(charts)
        groups.append(Group(group, charts, group == "loss" or shown <= OPEN_CHARTS))
    return groups, [(name, _last(found, name)) for name in names[MOST_CHARTS:]]


def speeds(records: Sequence[RunRecord]) -> Markup | None:
    """Images a second over steps."""
    drawn = [Curve(*speed(record), colour=index) for index, record in enumerate(records)]
    return lines(drawn, "images a second") if any(curve.x for curve in drawn) else None


def typical_speed(record: RunRecord) -> float | None:
    """The median of the logged images a second."""
    rates = speed(record)[1]
    return statistics.median(rates) if rates else None


def measured(records: Sequence[RunRecord]) -> list[Measured]:
    """Every metric under every protocol that it was measured with; unlike protocols are never joined."""
    found: dict[tuple[str, str], Measured] = {}
    for run, record in enumerate(records):
        for row in record.evaluations:
            for name, value in row["metrics"].items():
                if not is_number(value) or not math.isfinite(value):
                    continue
                protocol, better = _protocol(row, name)
                key = (str(name), json.dumps(protocol, sort_keys=True, default=str))
                entry = found.setdefault(key, Measured(str(name), better, protocol))
                entry.points.setdefault(run, {})[row["step"]] = float(value)  # a later measurement counts
    order = list(
        dict.fromkeys(name for name, _ in found)
    )  # as methods return them, protocols of one side by side
    entries = [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))]
    for entry in entries:
        alike = [other.protocol for other in entries if other.name == entry.name]
        keys = sorted({key for protocol in alike for key in protocol})
        entry.differs = {
            key: entry.protocol.get(key)
            for key in keys
            if len({repr(protocol.get(key)) for protocol in alike}) > 1
        }
    return entries


def metric_charts(entries: Sequence[Measured]) -> list[Chart]:
    """One chart a metric and protocol, for those that were measured at more than one step."""
    charts = []
    for entry in entries:
        if not any(len(points) > 1 for points in entry.points.values()):
            continue
        drawn = [
            Curve(sorted(points), [points[step] for step in sorted(points)], colour=run)
            for run, points in entry.points.items()
        ]
        charts.append(Chart(entry.title, lines(drawn, f"{entry.title} {entry.unlike}"), entry.unlike))
    return charts


def _protocol(row: Mapping[str, Any], name: str) -> tuple[dict[str, Any], str]:
    protocols = row.get("protocols")
    protocol = protocols.get(name) if isinstance(protocols, Mapping) else None
    facts = dict(protocol) if isinstance(protocol, Mapping) else {}
    better = facts.pop("better", "")
    return facts, better if isinstance(better, str) else ""


def _chart(name: str, found: Sequence[Mapping[str, Any]]) -> Chart:
    alone = len(found) == 1  # bands of several runs would hide one another
    drawn = []
    for run, table in enumerate(found):
        if name in table:
            steps, values, spread = table[name]
            banded = alone and any(width is not None for width in spread)
            drawn.append(Curve(steps, values, spread if banded else None, run))
    return Chart(name, lines(drawn, name), f"last: {_last(found, name)}")


def _last(found: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(number(table[name][1][-1]) for table in found if name in table)


def _group(name: str) -> str:
    prefix, slash, _ = name.partition("/")
    return prefix if slash else "other"


def _order(name: str) -> tuple[bool, str, str]:
    group = _group(name)
    return group != "loss", group, name
