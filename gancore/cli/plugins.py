"""``gan plugins list``, ``show`` and ``check``. None of them imports torch or looks at data."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.exits import NO
from gancore.cli.main import SuggestingGroup
from gancore.cli.options import COMMAND_LINE, parse_overrides, set_option
from gancore.errors import GancoreError, PluginError, nearest
from gancore.specs import (
    OBJECTIVE,
    SCORES,
    Claims,
    conflicts,
    is_method_capability,
    owner_of,
    pairs_tested,
    warnings_of,
)
from gancore.text import table

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry
    from gancore.specs import MethodSpec

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def plugins() -> None:
    """Methods and networks: what is installed, what it claims and needs, what can be mixed."""


@plugins.command("list")
@_json_option
def list_plugins(as_json: bool) -> None:
    """Everything installed; a plugin that cannot be loaded is listed as broken."""
    rows = installed(_discover())
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    names = ("name", "kind", "version", "distribution", "summary")
    text = table(
        [tuple(str(row[name]) if name != "summary" else _short(row) for name in names) for row in rows],
        tuple(name.upper() for name in names),
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in text.splitlines():
        click.echo(f"{line[: width - 1]}…" if width and len(line) > width else line)


@plugins.command()
@click.argument("name")
@_json_option
def show(name: str, as_json: bool) -> None:
    """Options, presets, claims, needs and the method card of NAME."""
    facts = describe(_discover(), name)
    click.echo(json.dumps(facts, indent=2, default=str) if as_json else _as_text(facts))


@plugins.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@set_option
@_json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Whether these methods can share a run. Exit code 0: they can; 1: they cannot, with the reason."""
    answer = compatibility(_discover(), list(names), parse_overrides(overrides))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif not answer["compatible"]:
        for reason in answer["reasons"]:
            click.echo(f"not compatible: {reason}")
    else:
        click.echo(
            f"compatible: {', '.join(answer['plugins'])}\n"
            f"objective: {answer['objective']}; scores: {answer['scores']}"
        )
        for warning in answer["warnings"]:
            click.echo(f"warning: {warning}")
        for line in pairs_text(answer["pairs"]):
            click.echo(line)
        for need in answer["unchecked"]:
            click.echo(f"depends on network and data: {need}")
    if not answer["compatible"]:
        ctx.exit(NO)


def installed(registry: Registry) -> list[dict[str, Any]]:
    """One row a method, network, sink and broken plugin."""
    rows = []
    for name, spec in sorted(registry.methods.items()):
        row = _row(registry, name, "method", spec.summary)
        try:
            spec.check_api()
            if OBJECTIVE in spec.claims(spec.options()).exclusive:
                row["kind"] = "objective"
        except Exception as error:  # a third party's code
            row |= {"kind": "broken", "reason": _why(error)}
        rows.append(row)
    rows += [_row(registry, name, "network", spec.summary) for name, spec in sorted(registry.networks.items())]
    rows += [_row(registry, name, "sink", spec.summary) for name, spec in sorted(registry.sinks.items())]
    rows += [
        {"name": name, "kind": "broken", "version": "-", "distribution": "-", "summary": "", "reason": reason}
        for name, reason in sorted(registry.broken.items())
    ]
    order = ("objective", "method", "network", "sink", "broken")
    return sorted(rows, key=lambda row: order.index(row["kind"]))


def describe(registry: Registry, name: str) -> dict[str, Any]:
    """Everything a method or network says of itself.

    Raises:
        PluginError: there is none of this name, or it is broken.
    """
    from gancore.options import describe_options

    if name in registry.networks:
        network = registry.networks[name]
        return {
            **_row(registry, name, "network", network.summary),
            "use": f"gan train --network {name}",
            "generates": network.kind,
            "sizes": list(network.sizes),
            "prefers": dict(network.defaults),
            "options": describe_options(network.options),
            "prefix": "network.",
            "card": _card(registry, name),
        }
    spec = _method(registry, name)
    claims = _claims(spec)
    options = describe_options(spec.options)
    example = next((row["name"] for row in options if row["name"] not in ("weight", "preset")), "weight")
    default = next(row["default"] for row in options if row["name"] == example)
    return {
        **_row(registry, name, "objective" if OBJECTIVE in claims.exclusive else "method", spec.summary),
        "reference": spec.reference,
        "use": f"gan train -p {name} -o {name}.{example}={_toml(default)}",
        "options": options,
        "prefix": f"{name}.",
        "presets": {preset: dict(values) for preset, values in getattr(spec.options, "presets", {}).items()},
        "claims": dict(claims.exclusive),
        "needs": {need.capability: need.why for need in claims.needs},
        "offers": sorted(claims.offers),
        "tags": sorted(claims.tags),
        "clashes": {clash.tag: clash.message for clash in claims.clashes},
        "card": _card(registry, name),
    }


def compatibility(registry: Registry, names: list[str], overrides: dict[str, Any]) -> dict[str, Any]:
    """Whether methods can share a run, by what they claim with these options.

    Raises:
        PluginError: an unknown or broken plugin. ConfigError: an unknown option or a wrong value.
    """
    from gancore.config import resolve

    for name in names:
        _method(registry, name)
    found = [(COMMAND_LINE, {"plugins": names}), (COMMAND_LINE, overrides)]
    methods = resolve(registry, found, check=False).methods
    active = {name: chosen for name, chosen in methods.items() if chosen.weight}
    claims = {name: registry.method(name).claims(chosen) for name, chosen in active.items()}
    reasons = conflicts(claims)
    if reasons:
        return {"compatible": False, "plugins": list(methods), "reasons": reasons}
    return {
        "compatible": True,
        "plugins": list(methods),
        "objective": owner_of(OBJECTIVE, claims),
        "scores": owner_of(SCORES, claims) or "logits",
        "warnings": warnings_of(claims),
        "pairs": pairs(registry, active),
        "unchecked": [
            f"{name} needs {need.capability}: {need.why}"
            for name in sorted(claims)
            for need in claims[name].needs
            if not is_method_capability(need.capability)
        ],
    }


def pairs(registry: Registry, names: Iterable[str]) -> list[dict[str, Any]]:
    """Each pair of methods and whether tests cover it."""
    found = pairs_tested(registry.methods, names)
    return [{"pair": list(pair), "tested": tested} for pair, tested in found.items()]


def pairs_text(found: list[dict[str, Any]]) -> list[str]:
    """The pairs in at most two lines."""
    lines = []
    for tested, what in ((True, "tested together"), (False, "not tested together")):
        named = [" + ".join(row["pair"]) for row in found if row["tested"] is tested]
        if named:
            lines.append(f"{what}: {', '.join(named)}")
    return lines


def _discover() -> Registry:
    from gancore import plugin_manager

    return plugin_manager.discover()


def _method(registry: Registry, name: str) -> MethodSpec:
    if name in registry.methods or name in registry.broken:
        return registry.method(name)
    if name in registry.networks:
        raise PluginError(f"'{name}' is a network, not a method: use it with --network {name}")
    known = [*registry.methods, *registry.networks, *registry.broken]
    raise PluginError(
        f"unknown plugin '{name}'{nearest(name, known)}; to see what is installed: gan plugins list; "
        f"to install it: pip install gancore-{name}"
    )


def _claims(spec: MethodSpec) -> Claims:
    try:
        return spec.claims(spec.options())
    except Exception as error:
        raise PluginError(f"plugin '{spec.name}' is installed but broken: {_why(error)}") from error


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, GancoreError) else f"{type(error).__name__}: {error}"


def _row(registry: Registry, name: str, kind: str, summary: str) -> dict[str, Any]:
    origin = registry.origins[name]
    return {
        "name": name,
        "kind": kind,
        "version": origin.version,
        "distribution": origin.distribution,
        "summary": summary,
    }


def _short(row: dict[str, Any]) -> str:
    return f"broken: {row['reason']}" if row["kind"] == "broken" else str(row["summary"])


def _card(registry: Registry, name: str) -> str:
    """The README of a plugin's distribution, when it was packaged; the core's own is no method card."""
    import importlib.metadata

    distribution = registry.origins[name].distribution
    if distribution == "gancore":
        return ""
    try:
        metadata = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return str(metadata.json.get("description", "")).strip()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, tuple | list) else str(value)


def _as_text(facts: dict[str, Any]) -> str:
    origin = f"{facts['distribution']} {facts['version']}"
    parts = [f"{facts['name']}: {facts['summary']}", f"{facts['kind']} of {origin}"]
    if facts.get("reference"):
        parts.append(f"reference: {facts['reference']}")
    if facts["kind"] == "network":
        sizes = f", sizes {', '.join(map(str, facts['sizes']))}" if facts["sizes"] else ""
        parts.append(f"generates: {facts['generates']}{sizes}")
    parts.append(f"use: {facts['use']}")
    rows = [
        (f"  {facts['prefix']}{row['name']}", row["type"], _toml(row["default"]) or '""', row["range"])
        for row in facts["options"]
    ]
    head, *lines = table(rows, ("  OPTION", "TYPE", "DEFAULT", "RANGE")).splitlines()
    parts.append(f"\noptions:\n{head}")
    parts += [f"{line}\n      {row['help']}" for line, row in zip(lines, facts["options"], strict=True)]
    for title in ("presets", "prefers", "claims", "needs", "clashes"):
        if facts.get(title):
            parts.append(f"\n{title}:")
            for key, value in facts[title].items():
                if isinstance(value, dict):
                    value = ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) or "the defaults"
                parts.append(f"  {key}: {_toml(value)}")
    for title in ("offers", "tags"):
        if facts.get(title):
            parts.append(f"\n{title}: {', '.join(facts[title])}")
    if facts["card"]:
        parts.append(f"\n{facts['card']}")
    return "\n".join(parts)
