"""Tables of results: plain text, and Markdown for a page of benchmarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gancore.ablation.jobs import AblationFolder, jobs_of, status
from gancore.ablation.plan import Plan
from gancore.ablation.results import shown_metrics
from gancore.text import facts, plural, table

NOTHING = "-"
COLUMNS = ("arm", "seeds", "mean [95 %]", "difference [95 %]", "p", "result", "ratio", "cost")


def metric_rows(results: Mapping[str, Any], name: str) -> list[tuple[str, ...]]:
    """The cells of a metric's table, one row an arm, in the order of :data:`COLUMNS`."""
    metric = results["metrics"][name]
    rows: list[tuple[str, ...]] = []
    for arm, own in metric["arms"].items():
        is_baseline = arm == results["baseline"]
        rows.append(
            (
                arm,
                _seeds(results, arm, own),
                interval(own["mean"]),
                "baseline" if is_baseline else interval(own["difference"], signed=True),
                NOTHING if own["p_corrected"] is None else p_value(own["p_corrected"]),
                NOTHING if is_baseline else own["found"] or NOTHING,
                NOTHING if own["ratio"] is None else f"{own['ratio']['value']:.3f}",
                _cost(results["cost"][arm]),
            )
        )
    return rows


def title(results: Mapping[str, Any], name: str) -> str:
    """``"fid, lower is better"``."""
    better = results["metrics"][name]["better"]
    return f"{name}, {better} is better" if better else name


def heading(results: Mapping[str, Any]) -> str:
    """What was compared, in a line."""
    arms, seeds = len(results["cost"]), len(results["seeds"])
    data = f" of {results['data']}" if results["data"] else ""
    return (
        f"{plural(arms, 'arm')} x {plural(seeds, 'seed')}, every run {results['steps']:,} steps, "
        f"{results['images_seen']:,} images{data}"
    )


def as_text(results: Mapping[str, Any], chosen: Sequence[str] = ()) -> str:
    """Every metric as a plain table, then the notes."""
    parts = [heading(results)]
    for name in shown_metrics(results, chosen):
        header = tuple(column.upper() for column in COLUMNS)
        parts.append(f"{title(results, name)}\n{table(metric_rows(results, name), header)}")
    if not results["metrics"]:
        parts.append(states_text(results))
    if results["notes"]:
        parts.append("\n".join(f"note: {note}" for note in results["notes"]))
    return "\n\n".join(parts)


def as_markdown(results: Mapping[str, Any], chosen: Sequence[str] = ()) -> str:
    """What a page of benchmarks can paste: tables, protocol, the command and what it ran on."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    parts = [f"{heading(results)}. {results['machine']}; {versions}.", f"```sh\n{results['command']}\n```"]
    for name in shown_metrics(results, chosen):
        parts.append(f"**{title(results, name)}**\n\n{markdown_table(results, name)}")
        parts.append(f"Protocol of {name}: {facts(results['metrics'][name]['protocol'])}.")
    parts.append(
        "Difference: arm minus baseline, paired by seed, Student's t. Ratio: geometric mean over pairs. Cost: "
        "seconds an image, times the baseline's, median over pairs."
    )
    parts += [f"* {_escaped(note)}" for note in results["notes"]]
    return "\n\n".join(parts) + "\n"


def markdown_table(results: Mapping[str, Any], name: str) -> str:
    """The table of a metric in Markdown."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *metric_rows(results, name)]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows)


def states_text(results: Mapping[str, Any]) -> str:
    """How far every job is, where nothing has been measured yet."""
    rows = [(job["arm"], str(job["seed"]), job["state"], f"{job['step']:,}") for job in results["jobs"]]
    return table(rows, ("ARM", "SEED", "STATE", "STEP"))


def queue_facts(folder: AblationFolder, plan: Plan) -> dict[str, Any]:
    """The jobs of a plan and how far each is, ready for JSON."""
    return {
        "folder": str(folder.path),
        "baseline": plan.baseline,
        "arms": {name: keys["plugins"] for name, keys in plan.arms.items()},
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "images_seen": plan.images,
        "observers": list(plan.observers),
        "skipped": plan.skipped,
        "jobs": [
            {"arm": job.arm, "seed": job.seed, "state": found.state, "step": found.step}
            for job in jobs_of(plan)
            for found in [status(folder, plan, job)]
        ],
    }


def queue_text(facts: Mapping[str, Any]) -> str:
    """The same for people."""
    arms, jobs = facts["arms"], facts["jobs"]
    rows = [
        (job["arm"], str(job["seed"]), job["state"], f"{job['step']:,}", ", ".join(arms[job["arm"]]))
        for job in jobs
    ]
    lines = [
        f"{plural(len(arms), 'arm')} x {plural(len(facts['seeds']), 'seed')} = {plural(len(jobs), 'run')} of "
        f"{facts['steps']:,} steps, {facts['images_seen']:,} images each; measured by "
        f"{', '.join(facts['observers'])}",
        f"folder: {facts['folder']}; baseline: {facts['baseline']}",
        *(f"left out: arm '{name}': {why}" for name, why in facts["skipped"].items()),
        "",
        table(rows, ("ARM", "SEED", "STATE", "STEP", "METHODS")),
    ]
    return "\n".join(lines)


def interval(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """``"31.21 [29.94, 32.48]"``; the value alone where there is no interval."""
    if found is None:
        return NOTHING
    mean, low, high = found["value"], found["low"], found["high"]
    if low is None:
        return f"{mean:+.4g}" if signed else f"{mean:.4g}"
    digits = decimals(high - low)
    sign = "+" if signed else ""
    return f"{mean:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def decimals(width: float) -> int:
    """Places after the point that show three digits of an interval's width, at most six."""
    return 0 if width <= 0 or not math.isfinite(width) else min(6, max(0, 2 - math.floor(math.log10(width))))


def p_value(p: float) -> str:
    """``"0.031"``, ``"<0.001"``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _seeds(results: Mapping[str, Any], arm: str, own: Mapping[str, Any]) -> str:
    count, planned = len(own["values"]), len(results["seeds"])
    text = str(count) if count == planned else f"{count} of {planned}"
    lost = [
        (sum(job["arm"] == arm and job["state"] == state for job in results["jobs"]), state)
        for state in ("diverged", "failed")
    ]
    return ", ".join([text, *(f"{number} {state}" for number, state in lost if number)])


def _cost(cost: Mapping[str, Any]) -> str:
    """``"x1.30 (1.22-1.41)"``: the median over seeds with its extremes, where they differ."""
    if cost["ratio"] is None:
        return NOTHING
    middle, low, high = (f"{cost[key]:.2f}" for key in ("ratio", "ratio_lowest", "ratio_highest"))
    return f"x{middle}" if low == high else f"x{middle} ({low}-{high})"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
