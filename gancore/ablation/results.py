"""What an ablation has found so far, as one JSON document: every job, every metric by arm, costs, notes."""

from __future__ import annotations

import os
import platform
import statistics as median_of
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gancore.ablation.jobs import AblationFolder, Job, Status, check_trained, jobs_of, status, trained_with
from gancore.ablation.plan import Plan
from gancore.errors import ConfigError, nearest
from gancore.run_folder import RunFolder
from gancore.statistics import LEVEL, SIGNIFICANCE, Comparison, Estimate, compare, estimate, holm

FORMAT = 1


def collect(folder: AblationFolder, plan: Plan) -> dict[str, Any]:
    """The results of all jobs that are over, and how far the others are.

    Raises:
        ConfigError: scores of one metric were measured under unlike protocols, or a run does not belong here.
    """
    found = {job: status(folder, plan, job) for job in jobs_of(plan)}
    finished = {job: one for job, one in found.items() if one.state == "done"}
    strangers = {job: check_trained(folder, plan, job) for job in finished}
    for job, why in strangers.items():
        if why:
            path = folder.run(job).path
            raise ConfigError(
                f"{job}: '{path}' is not the run of this ablation: {why}; move it away and run again"
            )
    rows = {job: one.row for job, one in finished.items() if one.row is not None}
    seconds = {job: speed for job in finished if (speed := seconds_per_image(folder.run(job))) is not None}
    environments = [trained_with(folder, plan, job) for job in finished]
    torches = list(dict.fromkeys(str(one.get("torch", "unknown")) for one in environments))
    metrics = {name: _metric(plan, name, rows) for name in _names(rows)}
    return {
        "format": FORMAT,
        "command": plan.command,
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "images_seen": plan.images,
        "level": LEVEL,
        "observers": list(plan.observers),
        "data": next((row["reference"] for row in rows.values() if row.get("reference")), ""),
        "data_digest": plan.data_digest,
        "versions": {**plan.versions, **plan.measuring_versions, "torch": " and ".join(torches)},
        "machine": _machine(environments),
        "jobs": [_job(plan, job, one, seconds.get(job)) for job, one in found.items()],
        "metrics": metrics,
        "cost": {arm: _cost(plan, arm, seconds) for arm in plan.arms},
        "skipped": plan.skipped,
        "notes": _notes(plan, found, metrics, torches),
    }


def seconds_per_image(run: RunFolder) -> float | None:
    """The median over the lines of ``metrics.jsonl``; None when no line has a speed.

    The first line of a run has the warm-up in it, and is left out when there are others.
    """
    rates = [row["images_per_second"] for row in run.read_metrics() if row.get("images_per_second")]
    rates = rates[1:] or rates
    return 1 / median_of.median(rates) if rates else None


def _names(rows: Mapping[Job, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row["metrics"]))


def _metric(plan: Plan, name: str, rows: Mapping[Job, Mapping[str, Any]]) -> dict[str, Any]:
    measured = {job: row for job, row in rows.items() if name in row["metrics"]}
    _refuse_unlike(name, {job: row["protocols"][name] for job, row in measured.items()})
    protocol = dict(next(iter(measured.values()))["protocols"][name])
    better = protocol.pop("better", "")
    values = {
        arm: {job.seed: float(row["metrics"][name]) for job, row in measured.items() if job.arm == arm}
        for arm in plan.arms
    }
    base = values[plan.baseline]
    compared = {
        arm: comparison
        for arm, own in values.items()
        if arm != plan.baseline and (comparison := compare(own, base)) is not None
    }
    p_values = {arm: c.difference.p for arm, c in compared.items() if c.difference.p is not None}
    corrected = holm(p_values)
    arms = {
        arm: {
            "values": {str(seed): value for seed, value in own.items()},
            "mean": _estimate(estimate(list(own.values()))) if own else None,
            **_compared(compared.get(arm), own, base, corrected.get(arm), better),
        }
        for arm, own in values.items()
    }
    return {"better": better, "protocol": protocol, "tests": len(p_values), "arms": arms}


def _compared(
    comparison: Comparison | None,
    own: Mapping[int, float],
    base: Mapping[int, float],
    corrected: float | None,
    better: str,
) -> dict[str, Any]:
    if comparison is None:
        return {"difference": None, "ratio": None, "differences": {}, "p_corrected": None, "found": None}
    return {
        "difference": _estimate(comparison.difference),
        "ratio": None if comparison.ratio is None else _estimate(comparison.ratio),
        "differences": {str(seed): own[seed] - base[seed] for seed in comparison.seeds},
        "p_corrected": corrected,
        "found": verdict(comparison.difference.value, corrected, better),
    }


def verdict(difference: float, corrected: float | None, better: str) -> str | None:
    """``"better"``, ``"worse"``, ``"lower"``, ``"higher"``, ``"unclear"``; None when nothing was tested."""
    if corrected is None:
        return None
    if corrected >= SIGNIFICANCE or difference == 0:
        return "unclear"
    direction = "higher" if difference > 0 else "lower"
    return direction if not better else "better" if direction == better else "worse"


def _refuse_unlike(name: str, protocols: Mapping[Job, Mapping[str, Any]]) -> None:
    from gancore.metrics import unlike

    groups: dict[str, tuple[Mapping[str, Any], list[Job]]] = {}
    for job, protocol in protocols.items():
        groups.setdefault(repr(sorted(protocol.items())), (protocol, []))[1].append(job)
    labelled = {
        f"{jobs[0]}" + (f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""): protocol
        for protocol, jobs in groups.values()
    }
    lines = unlike(labelled)
    if lines:
        raise ConfigError(
            f"{name} was measured under unlike protocols: {'; '.join(lines)}. Measure all runs again under one: "
            "delete their ablation.json, and run the same command"
        )


def _cost(plan: Plan, arm: str, seconds: Mapping[Job, float]) -> dict[str, Any]:
    """Medians over seeds, and of the ratio to the baseline's run of the same seed with its extremes."""
    own = {job.seed: value for job, value in seconds.items() if job.arm == arm}
    base = {job.seed: value for job, value in seconds.items() if job.arm == plan.baseline}
    ratios = [own[seed] / base[seed] for seed in sorted(set(own) & set(base))]
    return {
        "seconds_per_image": median_of.median(own.values()) if own else None,
        "ratio": median_of.median(ratios) if ratios else None,
        "ratio_lowest": min(ratios, default=None),
        "ratio_highest": max(ratios, default=None),
        "seeds": len(own),
    }


def _job(plan: Plan, job: Job, found: Status, seconds: float | None) -> dict[str, Any]:
    row = found.row or {}
    return {
        "arm": job.arm,
        "seed": job.seed,
        "state": found.state,
        "step": found.step,
        "images_seen": found.step * plan.images // plan.steps,
        "what": found.what,
        "metrics": row.get("metrics", {}),
        "seconds_per_image": seconds,
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p, "seeds": found.count}


def _machine(environments: Sequence[Mapping[str, Any]]) -> str:
    """What the runs were computed on, as their checkpoints have it, with the name of this processor."""
    threads = sorted({int(one["threads"]) for one in environments if "threads" in one})
    devices = sorted({str(one["device"]) for one in environments if one.get("device", "cpu") != "cpu"})
    precisions = sorted({str(one["precision"]) for one in environments if "precision" in one})
    parts = [_processor(), f"{os.cpu_count()} CPUs"]
    if threads:
        parts.append(f"{' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'} a run")
    parts.append(", ".join(devices) or "no GPU")
    return f"{', '.join(parts)}; Python {platform.python_version()}, {', '.join(precisions)}, {platform.system()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _notes(
    plan: Plan, found: Mapping[Job, Status], metrics: Mapping[str, Any], torches: Sequence[str]
) -> list[str]:
    """What a reader has to know before believing the table."""
    notes = []
    lost = {state: [job for job, one in found.items() if one.state == state] for state in ("diverged", "failed")}
    for state, jobs in lost.items():
        for job in jobs:
            step = f" after step {found[job].step:,}" if found[job].step else ""
            notes.append(f"{job} {state}{step} and is in no mean: {found[job].what}")
    notes += _unpaired(plan, metrics)
    unfinished = [job for job, one in found.items() if one.state in ("waiting", "started", "trained")]
    if unfinished:
        notes.append(f"{len(unfinished)} of {len(found)} runs are not over yet")
    if len(plan.seeds) == 1:
        notes.append("one seed: there is no spread, so no interval and no test; give --seeds 3 or more")
    flat = [name for name, metric in metrics.items() if _without_spread(metric)]
    if flat and len(plan.seeds) > 1:
        notes.append(f"no interval where all seeds differ by the same: {', '.join(flat)}")
    if any(metric["tests"] > 1 for metric in metrics.values()):
        notes.append(
            "p is corrected over the arms of a metric (Holm), not over metrics; intervals are not corrected"
        )
    if len(torches) > 1:
        notes.append(f"runs were made with several versions of torch: {', '.join(torches)}")
    notes += [f"arm '{arm}' was left out: {why}" for arm, why in plan.skipped.items()]
    return notes


def _unpaired(plan: Plan, metrics: Mapping[str, Any]) -> list[str]:
    """Arms whose difference is over fewer seeds than their mean or the baseline's, so that it is not theirs."""
    notes: dict[str, None] = {}
    for metric in metrics.values():
        base = metric["arms"][plan.baseline]["values"]
        for arm, found in metric["arms"].items():
            both = list(found["differences"])
            if both and len(both) < max(len(found["values"]), len(base)):
                notes[f"{arm}: the difference is over the seeds that both arms have, {', '.join(both)}"] = None
    return list(notes)


def _without_spread(metric: Mapping[str, Any]) -> bool:
    differences = [arm["difference"] for arm in metric["arms"].values() if arm["difference"]]
    return any(one["seeds"] > 1 and one["p"] is None for one in differences)


def refuse_unmeasured(chosen: Sequence[str], measured: Collection[str]) -> None:
    """Refuse to show a metric that there is not.

    Raises:
        ConfigError: it was not measured.
    """
    for name in chosen:
        if name not in measured:
            known = ", ".join(measured) or "none yet"
            raise ConfigError(f"--metric {name}: it was not measured{nearest(name, measured)}; metrics: {known}")


def shown_metrics(results: Mapping[str, Any], chosen: Sequence[str] = ()) -> list[str]:
    """The metrics to show: the chosen ones, else those of which one direction is better, else all.

    Raises:
        ConfigError: one that was not measured.
    """
    metrics = results["metrics"]
    refuse_unmeasured(chosen, metrics)
    directed = [name for name, metric in metrics.items() if metric["better"]]
    return list(chosen) or directed or list(metrics)
