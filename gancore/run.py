"""gancore as a library: ``train(config) -> Run``, ``load(path).sample(n, seed=…)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gancore import checkpoint
from gancore.assembly import Progress, Session, assemble
from gancore.compute import choose_device
from gancore.config import Config, Layer, flatten, load_file, named_plugins, resolve
from gancore.drift import refuse_drift
from gancore.errors import ConfigError, PluginError, nearest
from gancore.history import recorded
from gancore.loading import networks_of
from gancore.networks.protocols import Generator
from gancore.plugin_manager import Registry, discover
from gancore.run_folder import RunFolder, claim_default
from gancore.sampling import generate
from gancore.sinks import refuse_missing
from gancore.training import Report, fit, plugin_versions, restore

NAMED = 20
"""Classes that a message names: a set may have thousands."""


@dataclass
class Run:
    """A run folder and what can be done with it.

    Attributes:
        folder: its files. notes: what was noticed while loading, such as a damaged checkpoint passed over.
    """

    folder: RunFolder
    notes: list[str] = field(default_factory=list)
    _registry: Registry | None = None
    _generator: Generator | None = None
    _meta: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        return self.folder.read_metrics()

    @property
    def generator(self) -> Generator:
        """The averaged generator of the newest whole checkpoint, in evaluation mode, without gradients."""
        return self._load()

    @property
    def step(self) -> int:
        """Step of the newest whole checkpoint."""
        self._load()
        return int(self._meta["step"])

    @property
    def num_classes(self) -> int:
        """0 for an unconditional run."""
        return self._load().num_classes

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of labels."""
        self._load()
        return list(self._meta["data"].get("classes") or [])

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: int | str | None = None,
        truncation: float = 1.0,
        device: str = "cpu",
    ) -> Tensor:
        """Samples of the averaged generator.

        Args:
            n: how many. seed: the same seed gives the same samples.
            label: a class index or name; None takes the classes in turn.
            truncation: factor on the latents.

        Returns:
            (n, C, H, W) in [-1, 1] or points (n, 2), float32 on the CPU.

        Raises:
            ConfigError: a label that the run does not have. CheckpointError: no whole checkpoint.
        """
        generator = self._load().to(choose_device(device))
        labels = None if label is None else [self.label_index(label)] * n
        return generate(generator, n, seed, choose_device(device), labels, truncation)

    def label_index(self, label: int | str) -> int:
        """The index of a class given by index or name."""
        count = self.num_classes
        if not count:
            raise ConfigError(f"class {label!r} was asked for, but the run is unconditional (train with --cond)")
        if isinstance(label, str) and label in self.class_names:
            return self.class_names.index(label)
        try:
            index = int(label)
        except ValueError:
            names = self.class_names
            shown = ", ".join(names[:NAMED]) + (f", … ({len(names)} in all)" if len(names) > NAMED else "")
            raise ConfigError(f"unknown class {label!r}{nearest(str(label), names)}; classes: {shown}") from None
        if not 0 <= index < count:
            raise ConfigError(f"class {index} is outside 0 … {count - 1}")
        return index

    def _load(self) -> Generator:
        if self._generator is None:
            found = checkpoint.load_latest(self.folder.checkpoints)
            self.notes += [f"passed over a damaged checkpoint: {reason}" for reason in found.skipped]
            self._meta = found.meta
            self._generator, _ = networks_of(found, self._registry or discover())
        return self._generator


@torch.enable_grad()
def train(
    config: Mapping[str, Any] | str | Path | Config,
    *,
    outdir: str | Path | None = None,
    report: Report | None = None,
    data_progress: Progress | None = None,
    registry: Registry | None = None,
    started: Callable[[Session, RunFolder], None] | None = None,
) -> Run:
    """Train a run from scratch.

    Args:
        config: a mapping (nested, or of dotted keys), the path of a TOML file, or a resolved configuration::

                gancore.train({"plugins": ["adaptivemix"], "train.steps": 500, "data.source": "./photos"})

        outdir: the run folder; by default the next free one below ``runs/``.
        report: called with a :class:`~gancore.training.Tick`.
        data_progress: called with (done, total) while images are read.
        registry: what is installed, if it is known already.
        started: called with the session and its folder before the first step.
    """
    registry = registry or discover()
    resolved = config if isinstance(config, Config) else resolve(registry, _layers(config))
    refuse_missing(registry, resolved.output.sinks)
    if outdir is not None:
        RunFolder.refuse_taken(outdir)
    session = assemble(resolved, registry, data_progress)
    try:
        path = outdir or claim_default("runs", run_label(resolved))
        folder = RunFolder.create(path, resolved.to_toml(versions=_versions(session)))
        with folder.locked():
            if started is not None:
                started(session, folder)
            with recorded(session, folder, {"event": "started"}):
                fit(session, folder, report)
    finally:
        session.close()
    return Run(folder, _registry=registry)


def load(path: str | Path) -> Run:
    """An existing run.

    Raises:
        CheckpointError: there is no run in the folder.
    """
    return Run(RunFolder.open(path))


@torch.enable_grad()
def resume(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    allow_inexact: bool = False,
    allow_drift: tuple[str, ...] = (),
    drop_plugins: tuple[str, ...] = (),
    report: Report | None = None,
    data_progress: Progress | None = None,
    registry: Registry | None = None,
    started: Callable[[Session, RunFolder], None] | None = None,
) -> Run:
    """Continue a run from its newest whole checkpoint, bit-equal to a run that was never interrupted.

    Args:
        overrides: dotted keys to change, such as ``{"train.steps": 5000}``.
        allow_inexact, allow_drift, drop_plugins: see :func:`gancore.training.restore`.

    Raises:
        CheckpointError: no whole checkpoint, or the run drifted. PluginError: a plugin is missing.
    """
    registry = registry or discover()
    folder = RunFolder.open(path)
    with folder.locked():
        # A run that was killed before its first checkpoint begins again: it is a function of its configuration.
        found = checkpoint.load_latest(folder.checkpoints) if checkpoint.steps(folder.checkpoints) else None
        config = _resumed_config(registry, folder, drop_plugins, overrides or {})
        refuse_missing(registry, config.output.sinks)
        if found is not None:
            refuse_drift(config, registry, found, allow_drift, drop_plugins)
        session = assemble(config, registry, data_progress)
        try:
            if found is not None:
                restore(session, found, allow_inexact=allow_inexact, allow_drift=allow_drift)
            folder.truncate_metrics(int(found.meta["metrics_bytes"]) if found is not None else 0)
            if overrides or drop_plugins or allow_drift:
                folder.write_config(config.to_toml(versions=_versions(session)))
            if started is not None:
                started(session, folder)
            with recorded(session, folder, _how_resumed(config, found, drop_plugins)):
                fit(session, folder, report)
        finally:
            session.close()
    skipped = found.skipped if found is not None else ()
    notes = [f"passed over a damaged checkpoint: {reason}" for reason in skipped]
    return Run(folder, notes, _registry=registry)


def run_label(config: Config) -> str:
    """A short name for a run folder: data, network, plugins."""
    source = Path(config.data.source.replace(":", "-")).name.removesuffix(".zip") or "data"
    return "-".join([source, config.network_name, *config.plugins])


def _layers(config: Mapping[str, Any] | str | Path) -> list[Layer]:
    if isinstance(config, Mapping):
        return [("given", flatten(config))]
    return load_file(config)


def _resumed_config(
    registry: Registry, folder: RunFolder, dropped: tuple[str, ...], overrides: Mapping[str, Any]
) -> Config:
    layers = _resumed_layers(folder, dropped, overrides)
    try:
        return resolve(registry, layers)
    except PluginError as error:
        gone = [name for name in named_plugins(layers) if name not in registry.methods]
        if not gone:
            raise
        without = " ".join(f"--drop-plugin {name}" for name in gone)
        raise PluginError(f"{error}; or go on without it: gan resume {folder.path} {without}") from None


def _resumed_layers(folder: RunFolder, dropped: tuple[str, ...], overrides: Mapping[str, Any]) -> list[Layer]:
    """The run's configuration with the origins it had, without dropped plugins, then the changes."""
    layers: list[Layer] = []
    for origin, layer in load_file(folder.config):
        kept = {k: v for k, v in layer.items() if not any(k.startswith(f"methods.{name}.") for name in dropped)}
        if "plugins" in kept:
            kept["plugins"] = [name for name in kept["plugins"] if name not in dropped]
        layers.append((origin, kept))
    return [*layers, ("command line", dict(overrides))]


def _how_resumed(config: Config, found: checkpoint.Checkpoint | None, dropped: tuple[str, ...]) -> dict[str, Any]:
    """What a reader should know of a resume: keys that changed, plugins left out, checkpoints passed over."""
    before, now = (found.meta["config"], config.flat()) if found is not None else ({}, {})
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return {
        "event": "resumed",
        "changed": {key: [before.get(key), now.get(key)] for key in keys},
        "dropped": list(dropped),
        "passed_over": list(found.skipped) if found is not None else [],
    }


def _versions(session: Session) -> dict[str, Any]:
    from gancore import __version__

    return {"gancore": __version__, "torch": torch.__version__, "plugins": plugin_versions(session)}
