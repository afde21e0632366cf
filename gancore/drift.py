"""Refuse to continue a run whose configuration or plugins differ from its checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gancore.checkpoint import Checkpoint
from gancore.config import Config
from gancore.errors import CheckpointError, ConfigError, nearest
from gancore.plugin_manager import Registry
from gancore.sections import FREE_KEYS


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ in a way that changes what a step computes."""
    keys = sorted(set(before) | set(now))
    return [
        key
        for key in keys
        if before.get(key) != now.get(key) and not any(key == free or key.startswith(free) for free in FREE_KEYS)
    ]


def refuse_drift(
    config: Config, registry: Registry, found: Checkpoint, allowed: Sequence[str], dropped: Sequence[str]
) -> None:
    """Compare a configuration with a checkpoint's, before any data is read.

    Args:
        allowed: keys and plugin names that may differ. dropped: methods left out on purpose.

    Raises:
        ConfigError: a name that the run does not know.
        CheckpointError: every difference, with both values and the flag that accepts it.
    """
    before, now = _without_observers(found.meta["config"], registry), _without_observers(config.flat(), registry)
    for name in dropped:
        if name not in found.meta["config"]["plugins"]:
            raise ConfigError(
                f"--drop-plugin {name}: the run has no such plugin{nearest(name, before['plugins'])}"
            )
    known = {*before, *now, *found.meta["plugins"], "data"}
    for name in allowed:
        if name not in known:
            raise ConfigError(f"--allow-drift {name}: no such key or plugin{nearest(name, known)}")
    added = [name for name in config.plugins if name not in before["plugins"]] if dropped else []
    for name in added:  # the default objective, in the place of a dropped one
        now = {key: value for key, value in now.items() if not key.startswith(f"methods.{name}.")}
        now["plugins"] = [plugin for plugin in now["plugins"] if plugin != name]
    for name in dropped:
        before = {key: value for key, value in before.items() if not key.startswith(f"methods.{name}.")}
        before["plugins"] = [plugin for plugin in before["plugins"] if plugin != name]
    changed = [key for key in changed_keys(before, now) if key not in allowed]
    lines = [f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in changed]
    if added and "plugins" not in allowed:
        lines.append(f"plugins: the run is left without its objective, and '{added[0]}' would take its place")
    for name, version in found.meta["plugins"].items():
        if registry.observes(name):
            continue
        installed = registry.origins.get(name)
        if installed and name not in dropped and name not in allowed and installed.version != version["version"]:
            lines.append(f"{name}: version {version['version']} -> {installed.version}")
    if lines:
        raise drifted(found.step, lines)
    if config.train.steps < found.step:
        raise CheckpointError(
            f"train.steps = {config.train.steps} lies before the checkpoint's step {found.step}; give more steps"
        )


def _without_observers(flat: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """A configuration without the methods that only measure: they change no bit of a run."""
    watching = {name for name in flat["plugins"] if registry.observes(name)}
    kept = {
        key: value for key, value in flat.items() if key.split(".")[:2] not in [["methods", n] for n in watching]
    }
    return {**kept, "plugins": [name for name in flat["plugins"] if name not in watching]}


def drifted(step: int, lines: Sequence[str]) -> CheckpointError:
    """The error that lists differences, each as ``"key: what"``."""
    keys = " ".join(f"--allow-drift {line.split(':')[0]}" for line in lines)
    return CheckpointError(
        f"the run drifted from its checkpoint at step {step}: {'; '.join(lines)}. "
        f"Undo the change, or accept it with: {keys}"
    )
