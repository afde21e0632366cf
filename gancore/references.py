"""The sets that a measurement opens: a checkpoint's reference, data that D has not seen, data with labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from gancore.checkpoint import Checkpoint
from gancore.data import DataOptions, open_dataset
from gancore.data.dataset import Dataset
from gancore.errors import CheckpointError, DataError, GancoreError
from gancore.options import option_fields
from gancore.text import listed


def data_options(flat: Mapping[str, Any], now: Mapping[str, Any]) -> DataOptions:
    """How the data was prepared, from the checkpoint; where it lies and how it is kept, from the run folder."""
    prefix = "data."
    movable = ("data.source", "data.root", "data.download", "data.memory_gib", "data.held_out")
    merged = {**flat, **{key: now[key] for key in movable if key in now}}
    names = option_fields(DataOptions)
    return DataOptions(**{name: merged[prefix + name] for name in names if prefix + name in merged})


def check_reference(dataset: Dataset, found: Checkpoint, data: str) -> None:
    """Refuse a reference that is not what a checkpoint's networks make.

    Args:
        data: the source that was asked for in place of the training set; "" for the training set itself.

    Raises:
        DataError: another shape, other classes. CheckpointError: the training set changed.
    """
    shape = tuple(found.meta["data"]["shape"])
    if tuple(dataset.shape) != shape:
        raise DataError(
            f"the run generates {'x'.join(map(str, shape))}, and the reference '{dataset.name}' is "
            f"{'x'.join(map(str, dataset.shape))}: choose another --data"
        )
    classes = tuple(found.meta["data"]["classes"])
    if dataset.class_names != classes:
        raise DataError(
            f"the run makes the classes {listed(classes)}, and the reference '{dataset.name}' has "
            f"{listed(dataset.class_names)}; expected the same, in folders of these names: choose another --data"
        )
    if not data and dataset.digest != found.meta["data"]["digest"]:
        raise CheckpointError(
            f"the set '{dataset.name}' changed since the run was trained on it (its digest differs); restore it, "
            "or say that this is the reference now: --data SOURCE"
        )


def once(
    opened: dict[str, Dataset | None], name: str, opens: Callable[[], Dataset | None]
) -> Callable[[], Dataset | None]:
    """A set that is opened when it is first asked for, and kept in ``opened``, whose owner closes it."""

    def kept() -> Dataset | None:
        if name not in opened:
            opened[name] = opens()
        return opened[name]

    return kept


def held_out(options: DataOptions, reference: Dataset) -> Callable[[], Dataset | None]:
    """Opens ``data.held_out``, prepared as the reference; None where no such set is named.

    What it returns raises DataError for a set of another shape or other classes.
    """

    def opened() -> Dataset | None:
        if not options.held_out:
            return None
        source = dataclasses.replace(options, source=options.held_out, fraction=1.0, held_out="")
        if reference.kind == "image":
            source = dataclasses.replace(
                source,
                image_size=reference.shape[-1],
                channels="rgb" if reference.shape[0] == 3 else "grey",
            )
        found = open_dataset(source)
        if found.shape != reference.shape or found.class_names != reference.class_names:
            raise DataError(
                f"the held-out set '{found.name}' has shape {found.shape} and {len(found.class_names)} classes, "
                f"the reference {reference.shape} and {len(reference.class_names)}; they must agree"
            )
        return found

    return opened


def labelled(options: DataOptions) -> Callable[[], Dataset | None]:
    """Opens the set with the labels that the run does not use; None where it uses them, or there are none."""

    def opened() -> Dataset | None:
        if options.conditional:
            return None
        try:
            return open_dataset(dataclasses.replace(options, conditional=True))
        except GancoreError:
            return None  # no labels, or none that are whole

    return opened
