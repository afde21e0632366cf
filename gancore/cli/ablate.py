"""``gan ablate``: arms times seeds, trained and measured by a queue that survives, as a table with intervals."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.ablate_options import SEEDS, TRAIN_FLAGS, Recording, options, parse_seeds
from gancore.cli.console import Reporter, is_terminal
from gancore.cli.exits import NO
from gancore.cli.options import layers
from gancore.errors import ConfigError
from gancore.text import duration, plural

if TYPE_CHECKING:
    from gancore.ablation.jobs import AblationFolder, Job, Status
    from gancore.ablation.plan import Plan
    from gancore.ablation.queue import Progress, Slot
    from gancore.plugin_manager import Registry

LINE_EVERY = 60.0
"""Seconds between lines of progress without a terminal: a queue may run for days."""


@click.command(cls=Recording)
@options
@click.pass_context
def ablate(
    ctx: click.Context,
    /,
    source: Path | None,
    seeds: str | None,
    outdir: Path | None,
    jobs: int,
    devices: str | None,
    threads: int | None,
    max_hours: float,
    chosen: tuple[str, ...],
    retry_failed: bool,
    allow_inexact: bool,
    dry_run: bool,
    no_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare methods: subsets of plugins, or the arms of a file, each trained with the same seeds.

    Every arm is trained and measured once a seed; differences to the baseline are paired by seed. The same
    command, or the folder alone, continues an ablation that was stopped or killed. Arms and seeds may be added.

    \b
      gan ablate -p ada -p augself --seeds 5 --data ./photos
      gan ablate ablation.toml                  arms of a file, see docs/ablation.md
      gan ablate ablations/photos-dcgan-ada     continue, or show what was found
    """
    from gancore.ablation.jobs import AblationFolder
    from gancore.ablation.plan import label

    if dry_run and no_run:
        raise click.UsageError("--dry-run shows what would run, --no-run what was found; give one of them")
    command = shlex.join(["gan", "ablate", *ctx.meta["arguments"]])
    is_folder = source is not None and source.is_dir()
    if is_folder:
        _refuse_beside_folder(ctx, outdir)
    registry = _discover()
    plan = _known_plan(source, seeds) if is_folder and source else None
    if plan is None:
        plan = _plan(registry, source, seeds, command, given)
    folder = AblationFolder(
        source if is_folder and source else outdir or Path("ablations") / (source.stem if source else label(plan))
    )
    if dry_run:
        from gancore.ablation.tables import queue_facts, queue_text

        facts = queue_facts(folder, _old_plan(folder, plan) if folder.plan.exists() else plan)
        click.echo(json.dumps(facts, indent=2) if as_json else queue_text(facts))
        return
    with Reporter() as reporter:
        reporter.stage("starting")
        if not no_run:
            slots = _slots(plan, jobs, devices, threads)
            work = {"max_hours": max_hours, "allow_inexact": allow_inexact}
            asked = {"chosen": chosen, "skip_conflicts": given["skip_conflicts"]}
            plan = _run(folder, plan, slots, reporter, asked, retry=retry_failed, **work)
        elif folder.plan.exists():
            plan = _old_plan(folder, plan)
        else:
            raise ConfigError(f"'{folder.path}' holds no ablation yet: leave --no-run out")
        reporter.stage("writing results")
        results = _finish(folder, plan, reporter, chosen)
    _show(results, chosen, as_json=as_json)
    if any(job["state"] == "failed" for job in results["jobs"]):
        ctx.exit(NO)


def _discover() -> Registry:
    from gancore.plugin_manager import discover

    return discover()


def _refuse_beside_folder(ctx: click.Context, outdir: Path | None) -> None:
    """With a folder, what is compared stands in its plan."""
    fixed = {
        "plugin",
        "always",
        "subsets",
        "overrides",
        "preset",
        "kimg",
        *(flag.parameter for flag in TRAIN_FLAGS),
    }
    for parameter in ctx.command.params:
        if parameter.name in fixed and ctx.params.get(parameter.name) not in (None, (), ""):
            raise click.UsageError(
                f"{parameter.opts[-1]} says what is compared, and the folder's plan says that already; give it "
                "without the folder, in a new --outdir"
            )
    if outdir is not None:
        raise click.UsageError("--outdir goes with arms, not with the folder of an ablation: drop one of the two")


def _known_plan(path: Path, seeds: str | None) -> Plan:
    from dataclasses import replace

    from gancore.ablation.plan import extend, load_plan

    if not (path / "plan.json").exists():
        raise ConfigError(f"'{path}' holds no ablation: 'plan.json' is missing")
    plan = load_plan(path / "plan.json")
    if seeds is None:
        return plan
    command = shlex.join([*shlex.split(plan.command), "--seeds", seeds])  # the last one of a flag counts
    return extend(plan, replace(plan, seeds=tuple(parse_seeds(seeds)), command=command))


def _plan(
    registry: Registry, source: Path | None, seeds: str | None, command: str, given: dict[str, Any]
) -> Plan:
    """The plan of a command line: of the arms of a file, or of subsets of plugins."""
    from gancore.ablation.arms import BASELINE, AblationFile, read_file, resolve_arms, subsets
    from gancore.ablation.plan import make_plan

    given = dict(given)
    skip, kind = given.pop("skip_conflicts"), given.pop("subsets")
    plugins, always, preset = given.pop("plugin"), given.pop("always"), given.pop("preset")
    file = read_file(source) if source is not None else AblationFile([], [], BASELINE, None)
    watching = [name for name in plugins if registry.method(name).observer]
    compared = tuple(dict.fromkeys(name for name in plugins if name not in watching))
    if file.drafts and (compared or kind):
        raise click.UsageError(
            f"the arms stand in '{source}': drop {'-p ' + compared[0] if compared else '--subsets'}"
        )
    drafts, baseline = (file.drafts, file.baseline) if file.drafts else subsets(compared, kind or "all")
    base = [*file.base, *layers(None, (*always, *watching), **given)]
    arms = resolve_arms(registry, base, drafts, baseline, preset=preset, skip_conflicts=skip)
    numbers = parse_seeds(seeds if seeds is not None else file.seeds if file.seeds is not None else SEEDS)
    return make_plan(arms, numbers, registry, command)


def _slots(plan: Plan, jobs: int, devices: str | None, threads: int | None) -> list[Slot]:
    from gancore.ablation.queue import Slot

    names = [name.strip() for name in devices.split(",")] if devices is not None else []
    if devices is not None and (not all(names) or len(set(names)) < len(names)):
        raise ConfigError(f"--devices {devices!r}: expected different devices, such as cuda:0,cuda:1")
    if names and jobs > 1:
        raise click.UsageError("--devices says how many runs are side by side: drop --jobs")
    count = max(len(names), jobs)
    configured = any(keys["compute.threads"] for keys in plan.arms.values())
    if threads is None:
        threads = max(1, _cpus() // count) if count > 1 and not configured else 0
    return [Slot(name, threads) for name in names] or [Slot("", threads)] * jobs


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _old_plan(folder: AblationFolder, plan: Plan) -> Plan:
    from gancore.ablation.plan import extend, load_plan

    return extend(load_plan(folder.plan), plan)


def _run(
    folder: AblationFolder,
    plan: Plan,
    slots: list[Slot],
    reporter: Reporter,
    asked: Mapping[str, Any],
    *,
    retry: bool,
    **work: Any,
) -> Plan:
    """Check what is new, then work until every job is over."""
    import contextlib

    from gancore.ablation.prepare import prepare
    from gancore.ablation.queue import Queue, launch

    with contextlib.ExitStack() as stack:
        devices = [slot.device for slot in slots if slot.device]
        plan = prepare(folder, plan, stack, devices=devices, say=reporter.say, **asked)
        teller = _Teller(folder, plan, reporter)
        reporter.say(f"folder: {folder.path}")
        queue = Queue(folder, plan, slots, launch, reporter.say, teller.over, teller.tick, **work)
        queue.run(retry_failed=retry)
    return plan


class _Teller:
    """What the reader hears of a queue, and the table that grows with it."""

    def __init__(self, folder: AblationFolder, plan: Plan, reporter: Reporter) -> None:
        self._folder, self._plan, self._reporter = folder, plan, reporter
        self._began = self._told = time.monotonic()
        self._first = -1
        self._left = ""

    def over(self, job: Job, found: Status) -> None:
        """A job is done, diverged or failed."""
        from gancore.ablation.outputs import write_tables
        from gancore.ablation.results import collect

        metrics = list(((found.row or {}).get("metrics") or {}).items())[:3]
        facts = "  ".join(f"{name} {value:.4g}" for name, value in metrics) or found.what
        self._reporter.say(f"{job}: {found.state}  {facts}")
        write_tables(self._folder, collect(self._folder, self._plan))

    def tick(self, progress: Progress) -> None:
        """The bar, or a line a minute."""
        if self._first < 0:
            self._first = progress.steps_done
        now = time.monotonic()
        if is_terminal():
            self._reporter.counting("ablation", progress.steps_done, progress.steps, "steps")
            return
        if now - self._told < LINE_EVERY:
            return
        self._told = now
        done = progress.steps_done - self._first
        left = (progress.steps - progress.steps_done) * (now - self._began) / done if done else 0
        ahead = f", about {duration(left)} left" if done else ""
        self._reporter.say(
            f"{progress.jobs_over} of {plural(progress.jobs, 'run')} over, {progress.steps_done:,} of "
            f"{progress.steps:,} steps{ahead}; working on: {'; '.join(progress.running) or 'nothing'}"
        )


def _finish(folder: AblationFolder, plan: Plan, reporter: Reporter, chosen: Sequence[str]) -> dict[str, Any]:
    """Collect the results, and write table and page."""
    from gancore.ablation.outputs import write_page, write_tables
    from gancore.ablation.results import collect, shown_metrics
    from gancore.report.page import require_extra

    results = collect(folder, plan)
    shown_metrics(results, chosen)
    written = write_tables(folder, results, chosen)
    try:
        require_extra()
    except ConfigError as error:
        reporter.say(f"note: no page and no forest plots: {error}")
    else:
        written += write_page(folder, plan, results, chosen)
    plots = sum(path.name.startswith("forest-") for path in written)
    names = [path.name for path in written if not path.name.startswith("forest-")]
    also = [plural(plots, "forest plot")] if plots else []
    reporter.say(f"wrote {', '.join([*names, *also])} in {folder.path}")
    return results


def _show(results: dict[str, Any], chosen: Sequence[str], *, as_json: bool) -> None:
    from gancore.ablation.tables import as_text

    if as_json:
        click.echo(json.dumps(results, indent=2))
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        from gancore.cli.ablation_table import as_rich

        Console().print(as_rich(results, chosen))
    else:
        click.echo(as_text(results, chosen))
