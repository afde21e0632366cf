"""The tables and texts of a report: head, step plan, cost, interventions, configuration, environment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gancore.report.curves import Measured, typical_speed
from gancore.report.page import number
from gancore.report.reading import RunRecord, is_number, is_whole, seconds_left, speed, training_seconds
from gancore.text import duration, plural

DEFAULTS = ("default", "network default")
STATE_COLOURS = {
    "finished": "good",
    "running": "good",
    "diverged": "bad",
    "stopped": "warm",
    "not started": "soft",
}
NEWEST_METRICS = 3


@dataclass(frozen=True)
class Table:
    """A table, or the sentence that stands in its place."""

    header: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    title: str = ""
    missing: str = ""


def state_text(record: RunRecord) -> str:
    """What has become of a run, in a sentence."""
    length = f" of {record.steps:,}" if record.steps is not None else ""
    if record.state == "finished":
        return f"Finished after {plural(record.step, 'step')}."
    if record.state == "running":
        left = seconds_left(record)
        when = f", about {duration(left)} left" if left is not None else ""
        return f"Running: step {record.step:,}{length}{when}."
    if record.state == "diverged":
        return (
            f"Diverged by step {record.events[-1]['step']:,}: {record.events[-1].get('what', 'no reason given')}."
        )
    if record.state == "stopped":
        return f"Stopped at step {record.step:,}{length}; to continue: gan resume {shlex.quote(str(record.path))}"
    return f"Nothing was logged yet; to begin again: gan resume {shlex.quote(str(record.path))}"


def cards(record: RunRecord, metrics: Sequence[Measured], run: int) -> list[tuple[Any, ...]]:
    """The key numbers of a run: (label, value) or (label, value, note)."""
    found: list[tuple[Any, ...]] = [
        ("steps", record.step, f"of {record.steps:,}" if record.steps is not None else ""),
        ("images seen", record.images_seen),
    ]
    rate = typical_speed(record)
    if rate is not None:
        found.append(("images a second", round(rate), "median"))
        found.append(("training time", duration(training_seconds(record))))
    for entry in [entry for entry in metrics if run in entry.points][:NEWEST_METRICS]:
        newest, best = entry.newest(run), entry.best(run)
        assert newest is not None
        note = f"step {newest[0]:,}"
        if best is not None and best[0] != newest[0]:
            note += f"; best {number(best[1])} at {best[0]:,}"
        found.append((entry.name, newest[1], note))
    said = sum(event.get("event") == "warning" for event in record.events)
    if said:
        found.append(("warnings", said))
    return found


def scores(titles: Sequence[str], metrics: Sequence[Measured]) -> Table:
    """Newest and best value of every metric and protocol, for each run, named by its title."""
    rows: list[tuple[Any, ...]] = []
    for entry in metrics:
        for run, title in enumerate(titles):
            newest, best = entry.newest(run), entry.best(run)
            if newest is not None:
                told = (best[1], best[0]) if best is not None else (None, None)
                rows.append((entry.title, title, newest[1], newest[0], *told))
    header: tuple[str, ...] = ("metric", "run", "newest", "at step", "best", "at step")
    if len(titles) == 1:
        header, rows = (header[0], *header[2:]), [(row[0], *row[2:]) for row in rows]
    return Table(header, rows)


def plan(record: RunRecord) -> list[Table]:
    """The step plan: for each phase its terms and the passes of D."""
    if not record.plan:
        return [Table(missing="The step plan was not recorded.")]
    try:
        return _plan_tables(record.plan)
    except (KeyError, TypeError, ValueError, AttributeError):
        return [Table(missing="plan.json holds something else than a step plan.")]


def cost(records: Sequence[RunRecord], titles: Sequence[str]) -> Table:
    """Speed, time, memory of each run."""
    rows = []
    for record, title in zip(records, titles, strict=True):
        rates = sorted(speed(record)[1])
        quarter = len(rates) // 4
        spread = f"{rates[quarter]:,.0f} to {rates[-1 - quarter]:,.0f}" if rates else None
        stops = [line for line in record.history if line.get("event") == "stopped"]
        sessions = sum(line.get("event") in ("started", "resumed") for line in record.history)
        seconds = sum(line["seconds"] for line in stops if is_number(line.get("seconds")))
        memory = [line["peak_memory_bytes"] for line in stops if is_number(line.get("peak_memory_bytes"))]
        rows.append(
            (
                title,
                typical_speed(record),
                spread,
                duration(training_seconds(record)) if rates else None,
                duration(seconds) if stops else None,
                sessions if record.history else None,
                f"{max(memory) / 2**30:.2f} GiB" if memory else None,
            )
        )
    return Table(
        (
            "run",
            "images a second",
            "middle half of the ticks",
            "time in steps",
            "time in all, of sessions that ended",
            "sessions",
            "peak memory",
        ),
        rows,
    )


def interventions(record: RunRecord) -> Table:
    """What happened beside training: warnings, divergence, resumes, changes, damaged files."""
    rows: list[tuple[Any, ...]] = []
    for event in record.events:
        kind = str(event["event"])
        method = f"{event['method']}: " if "method" in event else ""
        rows.append((event["step"], kind, f"{method}{event.get('what', '')}"))
    for line in record.history:
        details = [str(line["reason"])] if "reason" in line else []
        changed = line.get("changed")
        if isinstance(changed, dict):
            details += [f"{key}: {_change(change)}" for key, change in changed.items()]
        for name in ("dropped", "passed_over"):
            if isinstance(line.get(name), list):
                details += [f"{name.replace('_', ' ')}: {item}" for item in line[name]]
        details += [str(line["time"])] if "time" in line else []
        step = line.get("step")
        rows.append((step if is_whole(step) else 0, str(line.get("event", "?")), "; ".join(details)))
    rows.sort(key=lambda row: row[0])
    return Table(("step", "what", "details"), rows, missing="" if rows else "None is recorded.")


def configuration(record: RunRecord) -> tuple[Table, Table]:
    """What was chosen, with where it came from, and what was left at its default."""
    chosen: list[tuple[Any, ...]] = []
    left: list[tuple[Any, ...]] = []
    for key, value in record.config.items():
        origin = record.origins.get(key, "")
        (left if origin in DEFAULTS else chosen).append((key, _plain(value), origin))
    return Table(("key", "value", "from"), chosen), Table(("key", "value", "from"), left)


def differences(records: Sequence[RunRecord], titles: Sequence[str]) -> Table:
    """The keys in which runs differ."""
    keys = sorted({key for record in records for key in record.config})
    rows = [
        (key, *(_plain(record.config.get(key)) for record in records))
        for key in keys
        if len({repr(record.config.get(key)) for record in records}) > 1
    ]
    return Table(("key", *titles), rows, missing="" if rows else "The configurations are equal.")


def environment(record: RunRecord) -> Table:
    """The machine, the versions and the data, from the newest checkpoint and the configuration."""
    rows: list[tuple[Any, ...]] = []
    for title, found in (
        ("", record.sidecar.get("environment")),
        ("version of ", {k: v for k, v in record.versions.items() if k != "plugins"}),
        ("data: ", record.sidecar.get("data")),
    ):
        if isinstance(found, dict):
            rows += [(f"{title}{key}", _plain(value)) for key, value in sorted(found.items())]
    plugins = record.sidecar.get("plugins", record.versions.get("plugins"))
    if isinstance(plugins, dict):
        for name, origin in sorted(plugins.items()):
            known = origin if isinstance(origin, dict) else {}
            rows.append((f"plugin {name}", f"{known.get('distribution', '?')} {known.get('version', '?')}"))
    if not record.sidecar:
        return Table(("", ""), rows, missing="There is no checkpoint yet, which would record machine and data.")
    return Table(("", ""), rows)


def _plan_tables(found: dict[str, Any]) -> list[Table]:
    tables = []
    for phase in found["phases"]:
        terms = [
            (
                term["name"],
                term["weight"],
                f"every {term['every']} updates" if term["every"] > 1 else "every update",
                ", ".join([*term["reads"], *_gradient(term)]),
            )
            for term in phase["terms"]
        ]
        title = f"Phase {phase['phase']}: terms"
        tables.append(Table(("term", "weight", "due", "reads"), terms, title))
        groups = [
            (
                " + ".join(group["views"]),
                group["rows"],
                "with gradient" if group["gradient"] else "without gradient",
                "" if group["enters"] == "images" else f"enters D at {group['enters']}",
            )
            for group in phase["groups"]
        ]
        title = f"Phase {phase['phase']}: passes of D, in batches of rows"
        tables.append(Table(("views", "batches", "", ""), groups, title))
    return tables


def _gradient(term: dict[str, Any]) -> list[str]:
    return [f"gradient of {term['gradient_of']} by {term['leaf']}"] if "gradient_of" in term else []


def _change(change: Any) -> str:
    if isinstance(change, list) and len(change) == 2:
        return f"{_plain(change[0])} -> {_plain(change[1])}"
    return _plain(change)


def _plain(value: Any) -> str:
    """A value of the configuration as text."""
    if value is None:
        return number(None)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or "none"
    return str(value) if value != "" else '""'
