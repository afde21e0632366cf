"""Measure: the ``evaluate`` hooks on a session, on a run's checkpoint, or on a folder of images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gancore import checkpoint
from gancore.assembly import Progress, Session
from gancore.compute import choose_device
from gancore.config import file_values, resolve
from gancore.data import DataOptions, open_dataset
from gancore.data.dataset import Dataset
from gancore.errors import CheckpointError, ConfigError, DataError, GancoreError, PluginError, nearest
from gancore.loading import networks_of
from gancore.metrics import Fact, Samples, Score, gather
from gancore.networks.protocols import Generator
from gancore.plugin_manager import HookCall, Registry, RunManager, build_methods
from gancore.references import check_reference, data_options, labelled, once
from gancore.references import held_out as held_out_of
from gancore.run_folder import RunFolder
from gancore.sampling import in_batches

Counting = Callable[[str, int, int, str], None]


def _silent(what: str, done: int, total: int, noun: str) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one generator at one moment, or of a folder of images.

    Attributes:
        scores: by name, each with its protocol. pictures: name -> (picture, caption).
        notes: lines for the reader. data: name of the reference.
    """

    step: int
    images_seen: int
    scores: Mapping[str, Score]
    pictures: Mapping[str, tuple[Image.Image, str]]
    notes: Sequence[str]
    data: str

    @property
    def metrics(self) -> dict[str, float]:
        """The values alone."""
        return {name: score.value for name, score in self.scores.items()}

    def row(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """As JSON: a line of ``metrics.jsonl`` or ``evaluations.jsonl``.

        Args:
            files: where pictures were saved, by name; without it they are left out.
        """
        row: dict[str, Any] = {
            "step": self.step,
            "images_seen": self.images_seen,
            "metrics": self.metrics,
            "protocols": {
                name: {"better": score.better, **score.protocol} for name, score in self.scores.items()
            },
            "reference": self.data,
        }
        if files:
            row["pictures"] = {
                name: {"file": file, "caption": self.pictures[name][1]} for name, file in files.items()
            }
        if self.notes:
            row["notes"] = list(self.notes)
        return row


def measure(calls: Sequence[HookCall], contexts: Mapping[str, Any], samples: Samples) -> Evaluation:
    """Call the ``evaluate`` hooks.

    Args:
        contexts: the run as each method sees it; empty for a folder of images.

    Raises:
        PluginError: a hook raised, or returned what is no table of scores. What a method raises on purpose, any
            other :class:`~gancore.errors.GancoreError`, passes through.
    """
    results = {}
    for call in calls:
        try:
            results[call.method] = call.call(run=contexts.get(call.method), samples=samples)
        except GancoreError:
            raise
        except Exception as error:
            raise PluginError(
                f"plugin '{call.method}' raised in hook 'evaluate' (step {samples.step}): "
                f"{type(error).__name__}: {error}"
            ) from error
    scores = gather(results, samples.protocol)
    return Evaluation(
        samples.step, samples.images_seen, scores, samples.pictures, samples.notes, samples.dataset.name
    )


def evaluate(session: Session) -> Evaluation:
    """The metrics of a session's methods for the averaged generator as it is now."""
    trainer, config = session.trainer, session.config
    generator = trainer.ema.model
    assert isinstance(generator, Generator)
    samples = Samples(
        _source(generator, session.device, 1.0),
        session.dataset,
        trainer.step_index,
        trainer.images_seen,
        num_classes=generator.num_classes,
        trained_on=session.dataset.digest,
        discriminator=trainer.discriminator,
        device=session.device,
        protocol=known(session.dataset, ema=config.ema.half_life_kimg > 0, truncation=1.0),
        open_held_out=once(session.opened, "held out", held_out_of(config.data, session.dataset)),
        open_labelled=once(session.opened, "labelled", labelled(config.data)),
    )
    with _evaluating(trainer.discriminator):
        return measure(session.manager.calls("evaluate"), session.contexts, samples)


def evaluate_run(
    path: str | Path,
    registry: Registry,
    *,
    plugins: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    step: int | None = None,
    averaged: bool = True,
    truncation: float = 1.0,
    data: str = "",
    held_out: str = "",
    device: str = "auto",
    progress: Progress | None = None,
    counting: Counting = _silent,
) -> Evaluation:
    """Measure a checkpoint of a run.

    Args:
        plugins: the observers to ask; by default those that the run names, else all that are installed.
        overrides: their options, by dotted key, over those of the run.
        step: of the checkpoint; None for the newest whole one.
        averaged: the averaged generator, or the one that is trained.
        truncation: factor on the latents.
        data: another reference than the run's own set, prepared like it. held_out: likewise, data D has not seen.

    Raises:
        CheckpointError: no run, no such checkpoint. PluginError: no observer. DataError: no data.
    """
    folder = RunFolder.open(path)
    found = _checkpoint(folder, step)
    flat = found.meta["config"]
    given = {key: value for key, value in flat.items() if key.startswith("methods.")}
    manager = observers(registry, plugins or _observers_of(flat["plugins"], registry), given, overrides or {})
    generator, discriminator = networks_of(found, registry, averaged=averaged)
    chosen = choose_device(device)
    options = data_options(flat, file_values(folder.config))
    shape = tuple(found.meta["data"]["shape"])
    if data and len(shape) == 3:
        options = dataclasses.replace(options, source=data, fraction=1.0, image_size=shape[-1])
    elif data:
        options = dataclasses.replace(options, source=data, fraction=1.0)
    if held_out:
        options = dataclasses.replace(options, held_out=held_out)
    dataset = open_dataset(options, progress)
    opened: dict[str, Dataset | None] = {}
    try:
        check_reference(dataset, found, data)
        half_life = float(flat["ema.half_life_kimg"])
        samples = Samples(
            _source(generator.to(chosen), chosen, truncation),
            dataset,
            found.step,
            int(found.meta["images_seen"]),
            num_classes=generator.num_classes,
            trained_on=found.meta["data"]["digest"],
            discriminator=discriminator.to(chosen),
            device=chosen,
            protocol=known(dataset, ema=averaged and half_life > 0, truncation=truncation),
            progress=counting,
            open_held_out=once(opened, "held out", held_out_of(options, dataset)),
            open_labelled=once(opened, "labelled", labelled(options)),
        )
        for reason in found.skipped:
            samples.note(f"passed over a damaged checkpoint: {reason}")
        if averaged and half_life == 0:
            samples.note("the run averages nothing (ema.half_life_kimg = 0): measured as it was trained")
        return measure(manager.calls("evaluate"), {}, samples)
    finally:
        _close(dataset, *opened.values())


def evaluate_folder(
    source: str,
    registry: Registry,
    data: DataOptions,
    *,
    plugins: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    counting: Counting = _silent,
) -> Evaluation:
    """Measure a folder or zip of generated images, all of one size, against a set.

    Args:
        data: the reference; it is prepared at the size of the images, unless it names a size.

    Raises:
        DataError: images of several sizes, of another size than the reference, in colour when that is grey.
    """
    from gancore.data.generated import open_generated

    manager = observers(registry, plugins or _installed(registry), {}, overrides or {})
    images = open_generated(source, progress)
    try:
        size = images.shape[-1]
        if data.image_size not in (0, size):
            raise DataError(
                f"the images of '{source}' are {size}x{size}, and the reference was asked for at "
                f"{data.image_size}x{data.image_size}; leave data.image_size out, or generate at that size"
            )
        dataset = open_dataset(dataclasses.replace(data, image_size=size), progress)
    except BaseException:
        images.close()
        raise
    opened: dict[str, Dataset | None] = {}
    try:
        samples = Samples(
            images.source(dataset),
            dataset,
            limit=len(images),
            device=choose_device(device),
            protocol=known(dataset, ema=None, truncation=None),
            progress=counting,
            open_held_out=once(opened, "held out", held_out_of(data, dataset)),
            open_labelled=once(opened, "labelled", labelled(dataclasses.replace(data, image_size=size))),
        )
        return measure(manager.calls("evaluate"), {}, samples)
    finally:
        images.close()
        _close(dataset, *opened.values())


def known(dataset: Dataset, *, ema: bool | None, truncation: float | None) -> dict[str, Fact]:
    """What the core knows of a measurement; None where nobody can."""
    return {
        "ema": ema,
        "truncation": truncation,
        "data_digest": dataset.digest,
        "data_images": len(dataset),
        "data_shape": "x".join(str(size) for size in dataset.shape),
        "data_resize_filter": dataset.preparation.get("filter"),
        "data_fit": dataset.preparation.get("fit"),
    }


def observers(
    registry: Registry, names: Sequence[str], given: Mapping[str, Any], overrides: Mapping[str, Any]
) -> RunManager:
    """Observers by name, with the options of a run and changes to them.

    Raises:
        PluginError: none is installed, or a name that measures nothing. ConfigError: an option of something else.
    """
    if not names:
        raise PluginError(
            "no installed plugin measures anything; gan plugins list shows what there is, pip install adds one"
        )
    for name in names:
        if not registry.method(name).observer:
            raise PluginError(f"'{name}' is a training method, and measures nothing: leave out -p {name}")
    for key in overrides:
        first = key.removeprefix("methods.").partition(".")[0]
        if first not in names:
            raise ConfigError(
                f"-o {key}=…: '{first}' is not asked here{nearest(first, names)}; options of: {', '.join(names)}"
            )
    kept = {key: value for key, value in given.items() if key.split(".")[1] in names and value is not None}
    layers = [("run", {"plugins": list(names), **kept}), ("command line", dict(overrides))]
    methods = resolve(registry, layers, check=False).methods
    return RunManager(build_methods(registry, {name: methods[name] for name in names}))


# Parts.


def _installed(registry: Registry) -> list[str]:
    return [name for name in sorted(registry.methods) if registry.methods[name].observer]


def _observers_of(plugins: Sequence[str], registry: Registry) -> list[str]:
    named = [name for name in plugins if registry.observes(name)]
    return named or _installed(registry)


def _source(
    generator: Generator, device: torch.device, truncation: float
) -> Callable[[int, int, int], Iterator[Tensor]]:
    return lambda count, seed, batch: in_batches(
        generator, count, seed, device, truncation=truncation, batch=batch
    )


@contextlib.contextmanager
def _evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; the modes of all parts come back as they were."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _close(*opened: Dataset | None) -> None:
    for dataset in opened:
        if dataset is not None:
            dataset.close()


def _checkpoint(folder: RunFolder, step: int | None) -> checkpoint.Checkpoint:
    if step is None:
        return checkpoint.load_latest(folder.checkpoints)
    saved = checkpoint.steps(folder.checkpoints)
    if step not in saved:
        have = ", ".join(map(str, saved)) or "none"
        raise CheckpointError(f"'{folder.path}' has no checkpoint of step {step}; saved: {have}")
    return checkpoint.load(folder.checkpoints, step)
