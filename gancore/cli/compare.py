"""``gan compare``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gancore.errors import ConfigError, nearest
from gancore.text import table


@click.command()
@click.argument("targets", metavar="RUN|FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--by", metavar="METRIC", help="Rank by this metric.  [default: the first that all have]")
@click.option(
    "--step", type=click.IntRange(0), metavar="N", help="Compare scores of this step.  [default: each one's last]"
)
@click.option(
    "--allow",
    multiple=True,
    metavar="FACT",
    help="Compare although this fact of the protocols differs, such as truncation; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    targets: tuple[Path, ...], by: str | None, step: int | None, allow: tuple[str, ...], as_json: bool
) -> None:
    """A ranked table of what was measured: run folders, or files that gan eval --out wrote.

    Scores are compared when they were measured under the same protocol; otherwise the command refuses, names what
    differs, and exits with 2.
    """
    if len(targets) < 2:
        raise click.UsageError("give two or more runs or files to compare")
    same = {target.resolve(): target for target in reversed(targets)}
    if len(same) < 2:
        raise click.UsageError(f"'{targets[0]}' was given {len(targets)} times; give two different ones")
    rows = {str(target): _row(target, step) for target in reversed(same.values())}
    chosen = _metric(rows, by)
    shared = [name for name in rows_metrics(rows) if all(name in row["metrics"] for row in rows.values())]
    notes = _check(rows, shared, chosen, allow)
    facts = _rank(rows, shared, chosen)
    if as_json:
        click.echo(json.dumps({"by": chosen, "ranking": facts, "notes": notes}, indent=2))
        return
    names = [chosen, *(name for name in shared if name != chosen)]
    lines = [
        (
            str(fact["rank"]),
            fact["target"],
            f"{fact['images_seen']:,}" if fact["images_seen"] else "-",
            *(f"{fact['metrics'][name]:.5g}" for name in names),
        )
        for fact in facts
    ]
    click.echo(table(lines, ("RANK", "WHAT", "IMAGES SEEN", *(name.upper() for name in names))))
    better = rows[facts[0]["target"]]["protocols"][chosen]["better"]
    click.echo(f"\nranked by {chosen}, {better} is better" if better else f"\nin order of {chosen}")
    for note in notes:
        click.echo(f"note: {note}")


def rows_metrics(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of all metrics, in order of their first appearance."""
    return list(dict.fromkeys(name for row in rows.values() for name in row["metrics"]))


def _row(target: Path, step: int | None) -> dict[str, Any]:
    """The newest evaluation of a run at ``step``, or of its last measured step; or what a file holds."""
    from gancore.run_folder import RunFolder

    if target.is_dir():
        found = [row for row in RunFolder.open(target).read_evaluations() if step in (None, row["step"])]
        if not found:
            at = f" at step {step}" if step is not None else ""
            raise ConfigError(f"nothing was measured of '{target}'{at}; to do it: gan eval {target}{_step(step)}")
        last = found[-1]["step"]
        merged: dict[str, Any] = {**found[-1], "metrics": {}, "protocols": {}}
        for each in found:  # a later one of a metric replaces an earlier one
            if each["step"] == last:
                merged["metrics"].update(each["metrics"])
                merged["protocols"].update(each["protocols"])
        return _checked(merged, target)
    row = _checked(_read(target), target)
    if step is not None and row.get("step") != step:
        raise ConfigError(f"'{target}' holds scores of step {row.get('step')}, not of step {step}")
    return row


def _read(file: Path) -> dict[str, Any]:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read '{file}': {error.strerror}") from None
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict) and all(isinstance(row.get(key), dict) for key in ("metrics", "protocols")):
        return row
    raise ConfigError(f"'{file}' holds no scores; expected a file of gan eval --out, or a run folder")


def _checked(row: dict[str, Any], target: Path) -> dict[str, Any]:
    """The row itself; ConfigError for what gancore does not write, such as an edit by hand."""
    for name, value in row["metrics"].items():
        protocol = row["protocols"].get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not -_MOST <= value <= _MOST:
            raise ConfigError(f"'{target}': {name} = {_cut(value)}; expected a finite number. Measure it again")
        if not isinstance(protocol, dict) or protocol.get("better") not in ("lower", "higher", ""):
            raise ConfigError(f"'{target}': {name} has no protocol that says what is better; measure it again")
    for key in ("step", "images_seen"):
        value = row.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"'{target}': {key} = {_cut(value)}; expected a whole number")
    return row


_MOST = sys.float_info.max


def _cut(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:40]}…"


def _step(step: int | None) -> str:
    return "" if step is None else f" --step {step}"


def _metric(rows: Mapping[str, Mapping[str, Any]], by: str | None) -> str:
    shared = [name for name in rows_metrics(rows) if all(name in row["metrics"] for row in rows.values())]
    if by is not None and by not in shared:
        lacking = [target for target, row in rows.items() if by not in row["metrics"]]
        raise ConfigError(
            f"--by {by}: not measured of {', '.join(lacking)}{nearest(by, shared)}; "
            f"all have: {', '.join(shared) or 'nothing in common'}"
        )
    if not shared:
        each = "; ".join(f"{target}: {', '.join(row['metrics']) or 'none'}" for target, row in rows.items())
        raise ConfigError(f"no metric was measured of all ({each})")
    return by or shared[0]


def _check(
    rows: Mapping[str, Mapping[str, Any]], shared: Sequence[str], chosen: str, allow: Sequence[str]
) -> list[str]:
    """Notes on what is not known, or was allowed to differ.

    Raises:
        ConfigError: scores of one metric were measured under unlike protocols.
    """
    from gancore.metrics import unknown, unlike

    refused: dict[str, list[str]] = {}
    notes: dict[str, None] = {}
    facts = set()
    for name in shared:
        protocols = {target: row["protocols"][name] for target, row in rows.items()}
        facts |= {key for protocol in protocols.values() for key in protocol}
        for line in unlike(protocols):
            if line.split(":")[0] in allow:
                notes[f"allowed to differ: {line}"] = None
            else:
                refused.setdefault(line, []).append(name)
        for key in unknown(list(protocols.values())):
            notes[f"{key} is not known of every one"] = None
    for key in allow:
        if key == "better":
            raise ConfigError("--allow better: what is ranked needs one direction; measure again")
        if key not in facts:
            raise ConfigError(f"--allow {key}: no protocol has this fact{nearest(key, facts)}")
    if refused:
        lines = "; ".join(f"{line} [{', '.join(names)}]" for line, names in refused.items())
        keys = " ".join(f"--allow {key}" for key in dict.fromkeys(line.split(":")[0] for line in refused))
        way_out = "" if "--allow better" in keys else f", or compare all the same with: {keys}"
        raise ConfigError(f"measured under unlike protocols: {lines}. Measure again under one{way_out}")
    return list(notes)


def _rank(rows: Mapping[str, Mapping[str, Any]], shared: Sequence[str], chosen: str) -> list[dict[str, Any]]:
    better = {row["protocols"][chosen]["better"] for row in rows.values()}
    sign = -1 if better == {"higher"} else 1
    ordered = sorted(rows, key=lambda target: sign * rows[target]["metrics"][chosen])
    return [
        {
            "rank": 1
            + sum(
                sign * row["metrics"][chosen] < sign * rows[target]["metrics"][chosen] for row in rows.values()
            ),
            "target": target,
            "step": rows[target].get("step"),
            "images_seen": rows[target].get("images_seen"),
            "metrics": {name: rows[target]["metrics"][name] for name in shared},
        }
        for target in ordered
    ]
