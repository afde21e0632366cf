"""The page and the forest plots of an ablation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gancore.ablation.jobs import AblationFolder, Job
from gancore.ablation.plan import Plan
from gancore.ablation.results import shown_metrics
from gancore.ablation.tables import COLUMNS, heading, metric_rows, title
from gancore.report.charts import PALETTE, Curve, lines
from gancore.report.embed import embed
from gancore.report.forest import Row, forest
from gancore.report.page import render

if TYPE_CHECKING:
    from markupsafe import Markup

LOSSES = ("loss/d", "loss/g")
SHEET = 480
"""Longest side of a sample sheet in the page, in pixels."""


def page(folder: AblationFolder, plan: Plan, results: Mapping[str, Any], chosen: Sequence[str] = ()) -> str:
    """The whole page as HTML that loads nothing."""
    arms = list(plan.arms)
    states = [job["state"] for job in results["jobs"]]
    names = shown_metrics(results, chosen)
    charts = _charts(folder, results, names)
    seed, sheets = _sheets(folder, plan, results)
    over = sum(state in ("done", "diverged", "failed") for state in states)
    cards = [
        ("arms", len(arms), f"baseline: {plan.baseline}"),
        ("seeds", len(plan.seeds), ", ".join(map(str, plan.seeds))),
        ("images a run", plan.images, f"{plan.steps:,} steps"),
        ("runs over", f"{over} of {len(states)}", ""),
        *((state, states.count(state), "runs") for state in ("diverged", "failed") if state in states),
    ]
    return render(
        "ablation.html",
        title=f"Ablation: {folder.path.absolute().name}",
        heading=f"{heading(results)}.",
        cards=cards,
        notes=results["notes"],
        columns=COLUMNS,
        baseline=plan.baseline,
        metrics=[_metric(results, arms, name) for name in names],
        legend=[(PALETTE[index % len(PALETTE)], arm) for index, arm in enumerate(arms)],
        band="the band is one standard deviation over seeds." if len(plan.seeds) > 1 else "one seed has no band.",
        charts=charts,
        sheets=sheets,
        sheet_seed=seed,
        images=f"{plan.images:,}",
        costs=[
            (
                arm,
                *(cost[key] for key in ("seconds_per_image", "ratio", "ratio_lowest", "ratio_highest", "seeds")),
            )
            for arm, cost in results["cost"].items()
        ],
        command=results["command"],
        machine=results["machine"],
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items() if version),
        job_columns=("arm", "seed", "state", "step", *names, "what"),
        jobs=[
            (
                job["arm"],
                job["seed"],
                job["state"],
                job["step"],
                *(job["metrics"].get(name) for name in names),
                job["what"],
            )
            for job in results["jobs"]
        ],
    )


def forest_rows(results: Mapping[str, Any], name: str) -> list[Row]:
    """The arms of a metric that can be compared with the baseline."""
    arms = results["metrics"][name]["arms"]
    return [
        Row(
            f"{arm}: {found['found']}" if found["found"] in ("better", "worse") else arm,
            found["difference"]["value"],
            found["difference"]["low"],
            found["difference"]["high"],
            list(found["differences"].values()),
            index,
        )
        for index, (arm, found) in enumerate(arms.items())
        if found["difference"] is not None
    ]


def _metric(results: Mapping[str, Any], arms: Sequence[str], name: str) -> dict[str, Any]:
    rows = forest_rows(results, name)
    better = {"lower": "left of it is better; ", "higher": "right of it is better; ", "": ""}
    return {
        "name": name,
        "title": title(results, name),
        "rows": metric_rows(results, name),
        "forest": forest(rows, f"Differences of {name}") if rows else None,
        "forest_note": f"Line: no difference; {better[results['metrics'][name]['better']]}dots: seeds; diamond: "
        "mean with its 95 % interval.",
        "protocol": list(results["metrics"][name]["protocol"].items()),
    }


def _charts(folder: AblationFolder, results: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Metrics that were measured while training, then the losses, as means over seeds with their spread."""
    metrics: dict[str, dict[str, list[dict[int, float]]]] = {name: {} for name in names}
    losses: dict[str, dict[str, list[dict[int, float]]]] = {name: {} for name in LOSSES}
    for job in results["jobs"]:
        if job["state"] != "done":
            continue
        rows = folder.run(Job(job["seed"], job["arm"])).read_metrics()
        for name in names:
            protocol = {"better": results["metrics"][name]["better"], **results["metrics"][name]["protocol"]}
            points = {
                row["images_seen"]: row["metrics"][name]
                for row in rows
                if name in row.get("metrics", {}) and row["protocols"][name] == protocol
            }
            metrics[name].setdefault(job["arm"], []).append(points)
        for name in LOSSES:
            points = {row["images_seen"]: row[name] for row in rows if row.get(name) is not None}
            losses[name].setdefault(job["arm"], []).append(points)
    charts = [
        {"title": title(results, name), "svg": svg, "note": ""}
        for name in names
        if (svg := _chart(metrics[name], results, f"{name} over images seen")) is not None
    ]
    for name in LOSSES:
        svg = _chart(losses[name], results, f"{name} over images seen")
        if svg is not None:
            note = "Losses of different methods cannot be compared with each other."
            charts.append({"title": name, "svg": svg, "note": note})
    return charts


def _chart(
    found: Mapping[str, Sequence[Mapping[int, float]]], results: Mapping[str, Any], label: str
) -> Markup | None:
    """One curve an arm over the points that all of its seeds have; None below two points."""
    drawn = []
    for index, arm in enumerate(results["cost"]):
        seeds = found.get(arm, [])
        shared = sorted(set.intersection(*(set(points) for points in seeds))) if seeds else []
        if len(shared) < 2:
            continue
        columns = [[points[x] for points in seeds] for x in shared]
        spread = [statistics.stdev(column) for column in columns] if len(seeds) > 1 else None
        drawn.append(Curve(shared, [statistics.fmean(column) for column in columns], spread, index))
    return lines(drawn, label) if drawn else None


def _sheets(folder: AblationFolder, plan: Plan, results: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """The last sample sheet of every arm, of the seed that most arms have."""
    done = [(job["seed"], job["arm"]) for job in results["jobs"] if job["state"] == "done"]
    if not done:
        return 0, []
    seed = statistics.mode(seed for seed, _ in sorted(done))
    sheets = []
    for arm in plan.arms:
        picture = None
        if (seed, arm) in done:
            path = folder.run(Job(seed, arm)).samples / f"step-{plan.steps:08d}.png"
            picture = embed(path, kept=SHEET, scaled=SHEET)
        if picture is not None:
            sheets.append({"arm": arm, "picture": picture})
    return seed, sheets
