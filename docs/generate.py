"""Write the generated parts of the documentation: command lines, configuration keys, methods, networks.

``python docs/generate.py`` rewrites the blocks between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in
place. ``tests/test_docs.py`` compares them with the code. No torch is imported.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gancore.cli.main import cli
from gancore.options import describe_options, resolve_options
from gancore.plugin_manager import Registry, discover
from gancore.sections import FREE_KEYS, PRESETS, SECTIONS
from gancore.specs import OBJECTIVE, MethodSpec, conflicts, pairs_tested, warnings_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/cli.md", "docs/configuration.md", "docs/methods.md", "docs/mixing.md", "docs/networks.md")
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z0-9 -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 100


def pages() -> list[Path]:
    """The pages that have generated blocks: those of the core, and the card of every plugin."""
    return [*(ROOT / page for page in PAGES), *sorted(ROOT.glob("plugins/*/README.md"))]


def regenerate(text: str, registry: Registry) -> str:
    """``text`` with every generated block as the code has it."""
    return BLOCK.sub(lambda found: found[1] + block(found["name"], registry) + "\n" + found[3], text)


def block(name: str, registry: Registry) -> str:
    """The content of one block."""
    kind, _, which = name.partition(" ")
    if kind == "commands":
        return "\n\n".join(_command_text(path, command) for path, command in commands())
    if kind == "sections":
        return "\n\n".join(_section_text(name, cls) for name, cls in SECTIONS.items())
    if kind == "free-keys":
        return ", ".join(f"`{key}*`" if key.endswith(".") else f"`{key}`" for key in FREE_KEYS) + "."
    if kind == "presets":
        return "\n".join(f"* `{name}`: {_values(values)}" for name, values in PRESETS.items())
    if kind == "network-options":
        return "\n\n".join(_network_text(registry, name) for name in first_party(registry, registry.networks))
    if kind == "method-options":
        return "\n\n".join(_method_text(registry, name) for name in first_party(registry, registry.methods))
    if kind == "networks":
        return _network_table(registry)
    if kind == "methods":
        return _method_table(registry)
    if kind == "pairs":
        return _pair_table(registry)
    if kind == "options":
        return _option_table(registry.method(which).options)
    if kind == "method-presets":
        return _preset_table(registry.method(which))
    raise ValueError(f"unknown block '{name}'")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups before what they hold."""
    yield "gan", cli
    root = click.Context(cli, info_name="gan")
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        yield f"gan {name}", command
        if isinstance(command, click.Group):
            for inner, leaf in command.commands.items():
                yield f"gan {name} {inner}", leaf


def help_text(path: str, command: click.Command) -> str:
    """What ``PATH --help`` prints on a terminal of 100 columns."""
    context = None
    for name in path.split()[:-1]:
        context = click.Context(cli, info_name=name, parent=context)
    context = click.Context(
        command,
        info_name=path.split()[-1],
        parent=context,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def first_party(registry: Registry, names: Any) -> list[str]:
    """Those names that come from a distribution of this repository, objectives first."""
    own = set()
    for project in (ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")):
        own.add(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"])
    return sorted(name for name in names if registry.origins[name].distribution in own)


def _command_text(path: str, command: click.Command) -> str:
    return f"## {path}\n\n```text\n{help_text(path, command)}\n```"


def _section_text(name: str, cls: type) -> str:
    return f"### {name}\n\n{_option_table(cls)}"


def _network_text(registry: Registry, name: str) -> str:
    spec = registry.networks[name]
    return (
        f"### network {name}\n\n{spec.summary} Preferred values, which yield to anything given: "
        f"{_values(spec.defaults)}.\n\n{_option_table(spec.options)}"
    )


def _method_text(registry: Registry, name: str) -> str:
    spec = registry.methods[name]
    return f"### methods.{name}\n\n{spec.summary}\n\n{_option_table(spec.options)}"


def _option_table(cls: type) -> str:
    lines = ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    for row in describe_options(cls):
        kind = _cell(row["type"])
        bounds = row["range"] or "-"
        lines.append(
            f"| `{row['name']}` | {kind} | `{_toml(row['default'])}` | {bounds} | {_cell(row['help'])} |"
        )
    return "\n".join(lines)


def _preset_table(spec: MethodSpec) -> str:
    presets = spec.options.presets
    changed = list(dict.fromkeys(key for values in presets.values() for key in values))
    defaults = {row["name"]: row["default"] for row in describe_options(spec.options)}
    lines = [f"| option | {' | '.join(f'`{name}`' for name in presets)} |", "|---" * (len(presets) + 1) + "|"]
    for key in changed:
        cells = [f"`{_toml(values.get(key, defaults[key]))}`" for values in presets.values()]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _network_table(registry: Registry) -> str:
    lines = ["| network | generates | sizes | summary |", "|---|---|---|---|"]
    for name in first_party(registry, registry.networks):
        spec = registry.networks[name]
        kind = "images" if spec.kind == "image" else spec.kind
        sizes = ", ".join(map(str, spec.sizes)) or "-"
        lines.append(f"| `{name}` | {kind} | {sizes} | {_cell(spec.summary)} |")
    return "\n".join(lines)


def _method_table(registry: Registry) -> str:
    lines = ["| method | comes with | claims | needs | summary | reference |", "|---|---|---|---|---|---|"]
    names = first_party(registry, registry.methods)
    claims = {name: registry.methods[name].claims(registry.methods[name].options()) for name in names}
    for name in sorted(names, key=lambda name: OBJECTIVE not in claims[name].exclusive):
        spec, said = registry.methods[name], claims[name]
        exclusive = ", ".join(f"`{claim}`" for claim in said.exclusive) or "-"
        needs = ", ".join(f"`{need.capability}`" for need in said.needs) or "-"
        lines.append(
            f"| `{name}` | {registry.origins[name].distribution} | {exclusive} | {needs} | {_cell(spec.summary)} "
            f"| {_cell(spec.reference)} |"
        )
    return "\n".join(lines)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "adaptivemix, official": ("adaptivemix", {"preset": "official"}),
    "kdd, as a term": ("kdd", {"as_term": True}),
}
"""Shown beside the defaults of every method: with these options a method claims something else."""


def _pair_table(registry: Registry) -> str:
    """Each pair of methods of the plugins: whether they mix, and what is said of it."""
    core = registry.origins["nonsaturating"].distribution
    names = [
        name
        for name in first_party(registry, registry.methods)
        if registry.origins[name].distribution != core and not registry.methods[name].observer
    ]
    rows = {**{name: (name, {}) for name in names}, **VARIANTS}
    claims = {}
    for row, (name, given) in rows.items():
        options, _ = resolve_options(registry.method(name).options, given, where=f"{name}.")
        claims[row] = registry.method(name).claims(options)
    default = registry.method("nonsaturating")
    lines = ["| pair | mixes | why, and the way out |", "|---|---|---|"]
    for first, second in itertools.combinations(sorted(rows), 2):
        pair = [rows[first][0], rows[second][0]]
        if pair[0] == pair[1]:
            continue
        run = {pair[0]: claims[first], pair[1]: claims[second]}
        if not any(OBJECTIVE in claim.exclusive for claim in run.values()):
            run[default.name] = default.claims(default.options())
        refused, told = conflicts(run), [t for t in warnings_of(run) if " with " in t.split(":")[0]]
        tested = pairs_tested(registry.methods, pair)[pair[0], pair[1]]
        answer = "no" if refused else ("yes" if tested else "yes, not tested")
        lines.append(f"| {first} + {second} | {answer} | {_cell('; '.join(refused or told) or '-')} |")
    return "\n".join(lines)


def _values(values: Any) -> str:
    return ", ".join(f"`{key} = {_toml(value)}`" for key, value in values.items())


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Rewrite every page; print those that changed."""
    registry = discover()
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = regenerate(before, registry)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
