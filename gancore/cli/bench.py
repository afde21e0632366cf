"""``gan bench``: images a second, memory, the share of each plugin, the distance to the machine's limits."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.cli.follow import summary
from gancore.cli.options import config_options
from gancore.cli.train import resolve_config
from gancore.errors import GancoreError

if TYPE_CHECKING:
    from gancore.assembly import Session
    from gancore.config import Config
    from gancore.limits import Limits, Work
    from gancore.plugin_manager import Registry


@click.command()
@config_options
@click.option(
    "--rounds", type=click.IntRange(min=3), default=9, show_default=True, help="Timed steps of each run."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(preset: str, rounds: int, as_json: bool, **given: Any) -> None:
    """Measure a run's step, what each plugin takes of it, and how far it is from what the machine can do.

    Takes the arguments of train; writes nothing. A plugin's share is what a step takes less in the same run
    without it; both run by turns.
    """
    config, registry = resolve_config(preset, given)
    with Reporter() as reporter:
        reporter.stage("starting")
        facts, lines = _measure(config, registry, rounds, reporter)
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join([*lines, "", *_as_text(facts)]))


def _measure(
    config: Config, registry: Registry, rounds: int, reporter: Reporter
) -> tuple[dict[str, Any], list[str]]:
    from gancore.assembly import assemble
    from gancore.compute import peak_memory
    from gancore.limits import measure_limits

    session = assemble(config, registry, reporter.reading)
    sessions, kept = {"": session}, {}
    try:
        lines = summary(session)
        reporter.stage("measuring a step")
        _warm(session)
        memory = peak_memory(session.device)  # before there is anything else in memory
        for name in config.plugins:
            if name == session.plan.objective:
                kept[name] = "it is the objective"
                continue
            try:
                sessions[name] = assemble(_without(config, name), registry, dataset=session.dataset)
            except GancoreError as error:
                kept[name] = f"the run needs it: {error}"
            else:
                _warm(sessions[name])
        reporter.stage("measuring the machine")
        limits = measure_limits(session.device, session.compute.product_type)
        reporter.stage("measuring steps by turns")
        seconds = _by_turns(sessions, rounds)
        work = _work(session)
    finally:
        for each in sessions.values():
            each.close()
    step = statistics.median(seconds[""])
    facts = {
        "device": str(session.device),
        "precision": session.compute.precision,
        "layout": session.compute.layout,
        "batch": config.train.batch,
        "rounds": rounds,
        "step_seconds": _spread(seconds[""]),
        "images_per_second": config.train.batch / step,
        "peak_memory_bytes": memory,
        "plugins": {name: _share(name, seconds, kept) for name in config.plugins},
        "limits": {"flops_per_second": limits.products, "bytes_per_second": limits.bytes},
        "work": _against(work, limits, step),
        "graphs": _graphs(session),
    }
    return facts, lines


def _without(config: Config, name: str) -> Config:
    """The same run less a plugin."""
    return dataclasses.replace(
        config,
        plugins=tuple(plugin for plugin in config.plugins if plugin != name),
        methods={plugin: chosen for plugin, chosen in config.methods.items() if plugin != name},
    )


def _warm(session: Session) -> None:
    from gancore.cli.measure import cold_steps

    for _ in range(cold_steps(session.trainer)):
        session.trainer.train_step()


def _by_turns(sessions: Mapping[str, Session], rounds: int) -> dict[str, list[float]]:
    from gancore.limits import now

    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            began = now(session.device)
            session.trainer.train_step()
            seconds[name].append(now(session.device) - began)
    return seconds


def _work(session: Session) -> Work:
    """Of an eager step: a replayed graph shows no operators."""
    from gancore.limits import work_of

    trainer = session.trainer
    graphs, trainer.graphs = trainer.graphs, None
    try:
        return work_of(trainer.train_step)
    finally:
        trainer.graphs = graphs


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high, "least": min(values)}


def _share(name: str, seconds: Mapping[str, list[float]], kept: Mapping[str, str]) -> dict[str, Any]:
    if name in kept:
        return {"kept": kept[name]}
    shares = [1 - without / full for full, without in zip(seconds[""], seconds[name], strict=True)]
    return {"step_seconds_without": statistics.median(seconds[name]), "share": _spread(shares)}


def _against(work: Work, limits: Limits, step: float) -> dict[str, float]:
    return {
        "flops": work.products,
        "bytes": work.bytes,
        "operators": work.operators,
        "share_of_product_limit": work.products / step / limits.products,
        "share_of_copy_limit": work.bytes / step / limits.bytes,
        "seconds_at_the_limits": work.seconds(limits),
    }


def _graphs(session: Session) -> dict[str, Any]:
    graphs = session.trainer.graphs
    return {"used": graphs is not None, "notes": graphs.notes if graphs is not None else []}


def _as_text(facts: dict[str, Any]) -> list[str]:
    step, limits, work = facts["step_seconds"], facts["limits"], facts["work"]
    least, middle, most = (1e3 * step[name] for name in ("lower_quartile", "median", "upper_quartile"))
    lines = [
        f"a step: {middle:.1f} ms (quartiles {least:.1f} to {most:.1f}, {facts['rounds']} rounds), "
        f"{facts['images_per_second']:,.0f} images/s"
    ]
    if facts["peak_memory_bytes"] is not None:
        lines.append(f"peak memory: {facts['peak_memory_bytes'] / 2**30:.2f} GiB")
    lines += [f"share of {name}: {_share_text(share)}" for name, share in facts["plugins"].items()]
    lines += [
        f"this machine at its best: {limits['flops_per_second'] / 1e9:,.0f} GFLOP/s in {facts['precision']} "
        f"matrix products, {limits['bytes_per_second'] / 1e9:,.1f} GB/s copied",
        f"products: {work['flops'] / 1e9:,.1f} GFLOP a step, "
        f"{100 * work['share_of_product_limit']:.0f} % of that rate",
        f"memory: {work['bytes'] / 1e9:,.2f} GB a step in {work['operators']:,} operators, "
        f"{100 * work['share_of_copy_limit']:.0f} % of that rate (more than 100 %: from caches)",
        f"both at their best, one after the other: {1e3 * work['seconds_at_the_limits']:.1f} ms",
    ]
    return lines + [f"note: {note}" for note in facts["graphs"]["notes"]]


def _share_text(share: dict[str, Any]) -> str:
    if "kept" in share:
        return f"not measured, {share['kept']}"
    spread = share["share"]
    return (
        f"{100 * spread['median']:.0f} % of a step (quartiles {100 * spread['lower_quartile']:.0f} to "
        f"{100 * spread['upper_quartile']:.0f}); {1e3 * share['step_seconds_without']:.1f} ms without it"
    )
