"""``gan plan``: owners, views, order, rows, time and memory of a run, before it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.cli.follow import networks, summary
from gancore.cli.options import config_options
from gancore.cli.plugins import pairs, pairs_text
from gancore.cli.train import resolve_config
from gancore.text import duration, plural

if TYPE_CHECKING:
    from gancore.assembly import Session


@click.command()
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(preset: str, as_json: bool, **given: Any) -> None:
    """Show what a run would compute, and what one measured step costs; writes nothing.

    Takes the arguments of train. Rows are the images that D looks at, in a phase, beside what the objective
    alone would show it.
    """
    config, registry = resolve_config(preset, given)
    with Reporter() as reporter:
        reporter.stage("starting")
        from gancore.assembly import assemble
        from gancore.cli.measure import measure

        session = assemble(config, registry, reporter.reading)
        try:
            reporter.stage("measuring a step")
            facts = {**describe(session), "cost": measure(session)}
            lines = summary(session)
        finally:
            session.close()
    click.echo(json.dumps(facts, indent=2, default=str) if as_json else "\n".join(_as_text(facts, lines)))


def describe(session: Session) -> dict[str, Any]:
    """The step plan with its rows, the augmentation chain and the networks, ready for JSON."""
    config, step_plan, trainer = session.config, session.plan, session.trainer
    facts = step_plan.describe()
    for phase in facts["phases"]:
        phase["d_rows"] = _rows(session, phase["phase"])
    return {
        "data": session.dataset.describe(),
        "network": config.network_name,
        "methods": list(config.plugins),
        "pairs": pairs(session.registry, session.manager.methods),
        "warnings": session.warnings,
        "operations": {name: state.key or state.why for name, state in session.operations.items()},
        "device": str(session.device),
        "batch": config.train.batch,
        "steps": config.train.steps,
        "n_critic": config.train.n_critic,
        "parameters": {name: sum(p.numel() for p in m.parameters()) for name, m in networks(session)},
        "unreached": {network: sorted(names) for network, names in trainer.unreached.items() if names},
        "augmentation": [{"method": name, "sides": list(link.sides)} for name, link in trainer.chain.links],
        **facts,
    }


def _rows(session: Session, phase: str) -> dict[str, Any]:
    """Rows of D in a phase: with every term due, without the lazy ones, and for the objective alone.

    ``pass_seconds`` is what the passes of G and D cost in the first and the last case, without anything else.
    """
    from gancore.rows import pass_seconds

    step_plan, batch = session.plan, session.config.train.batch
    full, alone = step_plan.full_program(phase), step_plan.objective_program(phase)
    assert full is not None
    regular = step_plan.program(phase, 1) if any(term.every > 1 for term in full.terms) else full
    return {
        "every_term_due": full.rows() * batch,
        "lazy_terms_not_due": regular.rows() * batch if regular is not None else 0,
        "objective_alone": alone.rows() * batch if alone is not None else 0,
        "pass_seconds": {
            "every_term_due": pass_seconds(session.trainer, full),
            "objective_alone": pass_seconds(session.trainer, alone) if alone is not None else 0.0,
        },
    }


def _as_text(facts: dict[str, Any], lines: list[str]) -> list[str]:
    lines = list(lines)
    lines.append(f"objective: {facts['objective']}; scores: {facts['scores']}")
    for name, claims in facts["claims"].items():
        if claims != ["objective"]:
            lines.append(f"claims of {name}: {', '.join(claims)}")
    lines += pairs_text(facts["pairs"])
    chain = " -> ".join(f"{link['method']} ({', '.join(link['sides'])})" for link in facts["augmentation"])
    lines.append(f"augmentation: {chain or 'none'}")
    for phase in facts["phases"]:
        lines += ["", *_phase_text(phase, facts), _pass_text(phase)]
    return [*lines, "", *_cost_text(facts)]


def _phase_text(phase: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    often = phase["phase"][0] == "d" and facts["n_critic"] > 1
    critics = f", {facts['n_critic']} times a step" if often else ""
    lines = [f"phase {phase['phase']}{critics}"]
    for node in phase["images"]:
        source = f" from {', '.join(node['from'])}" if node["from"] else ""
        lines.append(f"  images {node['name']}: {node['kind']}{source}")
    for group in phase["groups"]:
        enters = "" if group["enters"] == "images" else f", enters D at {group['enters']}"
        leaf = f", leaf {', '.join(group['leaf'])}" if group["leaf"] else ""
        precision = "" if group["precision"] == "run" else f", {group['precision']}"
        lines.append(
            f"  forward {' + '.join(group['views'])}: {plural(group['rows'] * facts['batch'], 'row')}, "
            f"{'with' if group['gradient'] else 'without'} gradient{leaf}{precision}{enters}"
        )
    for term in phase["terms"]:
        every = f", every {term['every']} updates" if term["every"] > 1 else ""
        reads = f", reads {', '.join(term['reads'])}" if term["reads"] else ""
        penalty = f", gradient of {term['gradient_of']} by {term['leaf']}" if "gradient_of" in term else ""
        weight = term["weight"] if isinstance(term["weight"], str) else f"{term['weight']:g}"
        lines.append(f"  term {term['name']}: weight {weight}{every}{reads}{penalty}")
    rows = phase["d_rows"]
    lazy = rows["lazy_terms_not_due"]
    otherwise = f" ({lazy:,} when no lazy term is due)" if lazy != rows["every_term_due"] else ""
    alone = f", {rows['objective_alone']:,} for the objective alone"
    lines.append(f"  D looks at {plural(rows['every_term_due'], 'row')}{otherwise}{alone}")
    return lines


def _pass_text(phase: dict[str, Any]) -> str:
    seconds = phase["d_rows"]["pass_seconds"]
    return (
        f"  passes of G and D: {1e3 * seconds['every_term_due']:.1f} ms, "
        f"{1e3 * seconds['objective_alone']:.1f} ms for the objective alone"
    )


def _cost_text(facts: dict[str, Any]) -> list[str]:
    cost = facts["cost"]
    lines = []
    for phase, seconds in cost["phase_seconds"].items():
        text = f"time of phase {phase}: {1e3 * seconds['every_term_due']:.1f} ms"
        if "lazy_terms_not_due" in seconds:
            text += f" with every term due, {1e3 * seconds['lazy_terms_not_due']:.1f} ms otherwise"
        lines.append(text)
    lines.append(
        f"time of a step: {1e3 * cost['step_seconds']:.1f} ms on average, "
        f"{cost['images_per_second']:,.0f} images/s; about {duration(cost['run_seconds'])} for "
        f"{plural(facts['steps'], 'step')}, without pictures and checkpoints"
    )
    if cost["peak_memory_bytes"] is not None:
        lines.append(f"peak memory of {cost['memory_of']}: {cost['peak_memory_bytes'] / 2**30:.2f} GiB")
    return lines
