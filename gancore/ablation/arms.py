"""The arms of an ablation: subsets of plugins, or the named arms of a file, each resolved to a configuration."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gancore.config import Config, Layer, flatten, load_file, named_plugins, resolve
from gancore.errors import ConfigError, PluginError, nearest

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry

Subsets = Literal["all", "each", "leave-one-out"]

BASELINE = "baseline"
"""Name of the arm without any of the plugins."""

MOST = 10
"""Plugins of which all subsets are made; more would be thousands of arms."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
KEYS = ("seeds", "baseline")


@dataclass(frozen=True)
class Draft:
    """An arm before it is resolved: what it adds to the base.

    Attributes:
        options: dotted keys of its own; they win over the base and the command line.
    """

    name: str
    plugins: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationFile:
    """A configuration of ``gan train``, with the tables ``[ablation]`` and ``[arms.NAME]`` where it has them.

    Attributes:
        base: the layers of what all arms share. seeds: as written, or None.
    """

    base: list[Layer]
    drafts: list[Draft]
    baseline: str
    seeds: object


@dataclass(frozen=True)
class Arms:
    """Arms that can be run.

    Attributes:
        configs: by name, of training alone: observers are left out.
        measured: the same with the observers, for runs that measure while they train.
        observers: plugins that measure. measuring: their options, by dotted key.
        skipped: arms that cannot be run, with the reason.
    """

    configs: dict[str, Config]
    measured: dict[str, Config]
    baseline: str
    observers: tuple[str, ...]
    measuring: dict[str, Any]
    skipped: dict[str, str]


def subsets(plugins: Sequence[str], kind: Subsets) -> tuple[list[Draft], str]:
    """Arms from plugins, the baseline first, and the baseline's name.

    ``all`` is every subset, the baseline the empty one. ``each`` is the empty one and every plugin alone.
    ``leave-one-out`` is all together, which is the baseline, and all but one.

    Raises:
        ConfigError: no plugins, or too many for all subsets.
    """
    if not plugins:
        raise ConfigError("nothing to compare: name plugins with -p, or give a file with [arms.NAME] tables")
    if kind == "leave-one-out":
        if len(plugins) < 2:
            raise ConfigError(f"--subsets leave-one-out needs two plugins or more, not '{plugins[0]}' alone")
        whole = "+".join(plugins)
        left = [Draft(f"without-{name}", tuple(p for p in plugins if p != name)) for name in plugins]
        return [Draft(whole, tuple(plugins)), *left], whole
    if kind == "all" and len(plugins) > MOST:
        raise ConfigError(
            f"all subsets of {len(plugins)} plugins are {2 ** len(plugins):,} arms; choose --subsets each or "
            "leave-one-out, or name the arms in a file"
        )
    sizes = range(1, 2 if kind == "each" else len(plugins) + 1)
    chosen = [members for size in sizes for members in itertools.combinations(plugins, size)]
    return [Draft(BASELINE), *(Draft("+".join(members), members) for members in chosen)], BASELINE


def read_file(path: str | Path) -> AblationFile:
    """A file of an ablation, or of ``gan train``.

    Raises:
        ConfigError: unreadable, an unknown key of ``[ablation]``, no proper arm, a baseline that is no arm.
    """
    layers = load_file(path)
    document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    own = ("ablation.", "arms.")
    base = [(origin, {k: v for k, v in layer.items() if not k.startswith(own)}) for origin, layer in layers]
    table, arms = document.get("ablation", {}), document.get("arms", {})
    for name, value in (("ablation", table), ("arms", arms)):
        if not isinstance(value, dict):
            raise ConfigError(f"'{path}': {name} = {value!r}; expected a table")
    for key in table:
        if key not in KEYS:
            raise ConfigError(
                f"'{path}': unknown key 'ablation.{key}'{nearest(key, KEYS)}; keys: {', '.join(KEYS)}"
            )
    drafts = [_draft(path, name, value) for name, value in arms.items()]
    baseline = table.get("baseline", BASELINE)
    if drafts and baseline not in arms:
        raise ConfigError(
            f"'{path}': the baseline '{baseline}' is no arm{nearest(str(baseline), arms)}; set "
            f"ablation.baseline to one of: {', '.join(arms)}"
        )
    return AblationFile([layer for layer in base if layer[1]], drafts, baseline, table.get("seeds"))


def _draft(path: str | Path, name: str, value: object) -> Draft:
    if not isinstance(value, dict):
        raise ConfigError(f"'{path}': arms.{name} = {value!r}; expected a table")
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{path}': the arm {name!r} names a folder: use letters, digits, '.', '_', '+' and '-'"
        )
    options = flatten(value)
    plugins = options.pop("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(plugin, str) for plugin in plugins):
        raise ConfigError(f"'{path}': arms.{name}.plugins = {plugins!r}; expected a list of names")
    if "train.seed" in options:
        raise ConfigError(f"'{path}': arms.{name} sets train.seed; every arm has the same seeds: drop it")
    return Draft(name, tuple(plugins), options)


def resolve_arms(
    registry: Registry,
    base: Sequence[Layer],
    drafts: Sequence[Draft],
    baseline: str,
    *,
    preset: str = "",
    skip_conflicts: bool = False,
) -> Arms:
    """Validate every arm before anything runs.

    An option of a plugin holds in the arms that have the plugin. Observers are taken out of the arms: they
    measure all of them alike.

    Raises:
        PluginError: arms whose plugins cannot share a run, each with the reason, unless they are skipped; the
            baseline is never skipped; nothing installed measures.
        ConfigError: arms of unequal length, two arms that are the same run, any wrong key or value.
    """
    named = [*named_plugins(base), *(name for draft in drafts for name in draft.plugins)]
    for name in named:
        registry.method(name)
    watching = _observers(registry, named)
    configs: dict[str, Config] = {}
    measured: dict[str, Config] = {}
    conflicts: dict[str, str] = {}
    for draft in drafts:
        try:
            configs[draft.name] = _resolve(registry, base, draft, named, watching, preset)
        except PluginError as error:
            conflicts[draft.name] = str(error)
            continue
        except ConfigError as error:
            raise ConfigError(f"arm '{draft.name}': {error}") from None
        if configs[draft.name].output.evaluate_every:
            measured[draft.name] = _resolve(registry, base, draft, named, (), preset, extra=watching)
    if baseline in conflicts or (conflicts and not skip_conflicts):
        reasons = by_reason(conflicts)
        others = [name for name in conflicts if name != baseline]
        way_out = ". The other arms run with --skip-conflicts" if others == list(conflicts) else ""
        raise PluginError(f"{reasons}{way_out}")
    _refuse_unequal(configs)
    _refuse_twins(configs)
    measuring = resolve(registry, [("arms", {"plugins": list(watching)}), *_only(base, watching)], check=False)
    options = {
        k: v for k, v in measuring.flat().items() if k.split(".")[:2] in [["methods", n] for n in watching]
    }
    return Arms(configs, measured, baseline, watching, options, conflicts)


def by_reason(reasons: Mapping[str, str]) -> str:
    """``"arm 'a', arm 'b': why"``: each reason once, with the arms that have it."""
    arms: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        arms.setdefault(reason, []).append(f"arm '{name}'")
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in arms.items())


def _observers(registry: Registry, named: Iterable[str]) -> tuple[str, ...]:
    """The observers that were named, else all that are installed."""
    found = [name for name in dict.fromkeys(named) if registry.methods[name].observer]
    found = found or [name for name in sorted(registry.methods) if registry.methods[name].observer]
    if not found:
        raise PluginError("no installed plugin measures anything; to install one: pip install gancore-fidelity")
    return tuple(found)


def _resolve(
    registry: Registry,
    base: Sequence[Layer],
    draft: Draft,
    named: Sequence[str],
    left_out: Sequence[str],
    preset: str,
    extra: Sequence[str] = (),
) -> Config:
    """The configuration of an arm: the base without options of plugins that it does not have, then its own."""
    own = {*named_plugins(base), *draft.plugins, *extra} - set(left_out)
    foreign = {*named, *left_out} - own
    layers: list[Layer] = []
    for origin, layer in base:
        kept = {key: value for key, value in layer.items() if _method_of(key) not in foreign}
        if "plugins" in kept:
            kept["plugins"] = [name for name in kept["plugins"] if name in own]
        layers.append((origin, kept))
    plugins = [name for name in (*draft.plugins, *extra) if name in own]
    layers.append((f"arm {draft.name}", {"plugins": plugins, **draft.options}))
    return resolve(registry, layers, preset=preset)


def _only(base: Sequence[Layer], names: Sequence[str]) -> list[Layer]:
    return [(origin, {k: v for k, v in layer.items() if _method_of(k) in names}) for origin, layer in base]


def _method_of(key: str) -> str:
    """``"ada"`` of ``"ada.target"`` and ``"methods.ada.target"``."""
    return key.removeprefix("methods.").partition(".")[0]


def _refuse_unequal(configs: Mapping[str, Config]) -> None:
    lengths = {name: (config.train.steps, config.train.batch) for name, config in configs.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {steps:,} steps of {batch}" for name, (steps, batch) in lengths.items())
        raise ConfigError(f"arms are compared at equal images seen, in equal steps: {shown}; give all the same")
    data = {name: (config.data.source, config.data.fraction) for name, config in configs.items()}
    if len(set(data.values())) > 1:
        shown = ", ".join(f"{name} {source} ({share:g})" for name, (source, share) in data.items())
        raise ConfigError(f"arms are compared on the same data: {shown}; give all the same")


def _refuse_twins(configs: Mapping[str, Config]) -> None:
    for (first, one), (second, other) in itertools.combinations(configs.items(), 2):
        if one.flat() == other.flat():
            raise ConfigError(
                f"the arms '{first}' and '{second}' are the same run; drop one, or set what differs"
            )
