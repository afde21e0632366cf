"""What an ablation compares, kept in its folder: the same command continues it, another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancore.atomic import write_atomic
from gancore.errors import CheckpointError, ConfigError
from gancore.sections import FREE_KEYS

if TYPE_CHECKING:
    from gancore.ablation.arms import Arms
    from gancore.config import Config
    from gancore.plugin_manager import Registry

FORMAT = 1

FREE = tuple(key for key in FREE_KEYS if key not in ("train.steps", "data.source"))
"""Keys that may change between two sessions of one ablation: where and how it is run, and what is written."""


@dataclass(frozen=True)
class Plan:
    """Arms, seeds and what measures them.

    Attributes:
        arms: dotted configuration keys by arm, without the seed, as they train; the baseline is among them.
        tomls: by arm, the file that ``gan train`` is given.
        measuring: options of the observers, by dotted key. versions: of gancore and of the plugins of any arm.
        measuring_versions: of the observers. skipped: arms that cannot run, with the reason.
        command: what starts or continues it. data_digest: of the set that every run has to be trained on.
    """

    arms: dict[str, dict[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    observers: tuple[str, ...]
    measuring: dict[str, Any]
    versions: dict[str, str]
    measuring_versions: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    command: str = ""
    data_digest: str = ""
    tomls: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of every run."""
        return int(self.arms[self.baseline]["train.steps"])

    @property
    def images(self) -> int:
        """Images that every finished run has seen."""
        return self.steps * int(self.arms[self.baseline]["train.batch"])

    @property
    def request(self) -> dict[str, Any]:
        """What an evaluation has to be, so that it counts: who measures, with which options and version."""
        return {"observers": list(self.observers), "options": self.measuring, "versions": self.measuring_versions}


def make_plan(arms: Arms, seeds: Sequence[int], registry: Registry, command: str) -> Plan:
    """A plan of resolved arms."""
    from gancore import __version__

    configs = arms.configs
    methods = {name for config in configs.values() for name in (*config.plugins, config.network_name)}
    versions = {name: registry.origins[name].version for name in sorted(methods)}
    return Plan(
        arms={name: _keys(config) for name, config in configs.items()},
        baseline=arms.baseline,
        seeds=tuple(seeds),
        observers=arms.observers,
        measuring=arms.measuring,
        versions={"gancore": __version__, **versions},
        measuring_versions={name: registry.origins[name].version for name in arms.observers},
        skipped=arms.skipped,
        command=command,
        tomls={name: arms.measured.get(name, config).to_toml() for name, config in configs.items()},
    )


def _keys(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.flat().items() if key != "train.seed"}


def extend(old: Plan, new: Plan) -> Plan:
    """The new plan, when all that the old one compares is in it.

    More arms, more seeds and another measurement are fine; finished runs are kept, and measured again where the
    measurement changed.

    Raises:
        ConfigError: everything else that differs.
    """
    lines = []
    if old.baseline != new.baseline:
        lines.append(f"baseline: {old.baseline} -> {new.baseline}")
    for name, keys in old.arms.items():
        if name not in new.arms:
            lines.append(f"arm '{name}' is missing")
            continue
        now = new.arms[name]
        changed = [key for key in sorted({*keys, *now}) if keys.get(key) != now.get(key) and not _is_free(key)]
        lines += [f"arm '{name}', {key}: {keys.get(key)!r} -> {now.get(key)!r}" for key in changed]
    missing = [str(seed) for seed in old.seeds if seed not in new.seeds]
    if missing:
        lines.append(f"seeds: {', '.join(missing)} missing")
    for name, version in old.versions.items():
        if new.versions.get(name, version) != version:
            lines.append(f"version of {name}: {version} -> {new.versions[name]}")
    if lines:
        raise ConfigError(
            f"the folder holds another ablation: {'; '.join(lines)}. Arms and seeds may be added; for "
            "anything else choose another --outdir"
        )
    return replace(new, data_digest=old.data_digest)


def label(plan: Plan) -> str:
    """A short name for the folder of an ablation: data, network, and the plugins that not all arms have."""
    from gancore.builtins import DEFAULT_OBJECTIVE

    keys = plan.arms[plan.baseline]
    data = Path(str(keys["data.source"]).replace(":", "-")).name.removesuffix(".zip") or "data"
    common = set.intersection(*(set(arm["plugins"]) for arm in plan.arms.values()))
    named = dict.fromkeys(name for arm in plan.arms.values() for name in arm["plugins"])
    return "-".join(
        [data, str(keys["network.name"]), *(name for name in named if name not in {*common, DEFAULT_OBJECTIVE})]
    )


def _is_free(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def save_plan(path: Path, plan: Plan) -> None:
    """Write ``plan.json``; what ``gan train`` is given is kept in files of their own.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    document = {"format": FORMAT, **{key: value for key, value in vars(plan).items() if key != "tomls"}}
    write_atomic(path, (json.dumps(document, indent=1) + "\n").encode())


def load_plan(path: Path) -> Plan:
    """Read what :func:`save_plan` has written.

    Raises:
        CheckpointError: it cannot be read, or is no plan of this version.
    """
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (path.parent / "config.toml").exists() and "format" not in document:  # a run has a plan.json too
            raise CheckpointError(
                f"'{path.parent}' is a run, and no ablation; to look at it: gan report {path.parent}"
            )
        if document["format"] != FORMAT:
            raise CheckpointError(f"'{path}' has format {document['format']}; this gancore reads {FORMAT}")
        values = {key: value for key, value in document.items() if key != "format"}
        plan = Plan(**{**values, "seeds": tuple(values["seeds"]), "observers": tuple(values["observers"])})
        if plan.steps < 1 or not plan.seeds:
            raise ValueError(f"{plan.steps} steps, seeds {plan.seeds}")
        return plan
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{path}' holds no plan of an ablation: {type(error).__name__}: {error}") from None
