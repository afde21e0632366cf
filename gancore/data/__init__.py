"""Data sets: opening and checking them, the order they are read in, and batches for the trainer."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancore.data.options import DataOptions
from gancore.errors import DataError, nearest
from gancore.options import resolve_options

if TYPE_CHECKING:
    from gancore.data.dataset import Dataset, LazyDataset, MemoryDataset
    from gancore.data.loader import Loader

__all__ = ["DataOptions", "Dataset", "LazyDataset", "Loader", "MemoryDataset", "open_dataset", "open_path"]

_HOMES = {
    "Dataset": "gancore.data.dataset",
    "LazyDataset": "gancore.data.dataset",
    "Loader": "gancore.data.loader",
    "MemoryDataset": "gancore.data.dataset",
}


def __getattr__(name: str) -> Any:
    # The command line imports DataOptions for its help, and must not pay for torch and pillow.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_dataset(options: DataOptions, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """The data set that ``options.source`` names, every image of it decoded and checked.

    Args:
        options: what to open and how to prepare it.
        progress: called now and then with the number of images done and their total.

    Raises:
        ConfigError: an option out of range, an image size that is no power of two, mirrored points.
        DataError: the source is missing, empty, unreadable, or holds bad files or wrong labels.
    """
    options, _ = resolve_options(DataOptions, dataclasses.asdict(options), where="data.")
    from gancore.data.builtin import POINT_SETS, DigitsSource, open_points
    from gancore.data.pixels import check_size
    from gancore.data.prepare import prepare
    from gancore.data.torchvision_sets import PREFIX, TorchvisionSource

    if options.source in POINT_SETS:
        return open_points(options)
    check_size(options.image_size)
    if options.source == "digits":
        return prepare(DigitsSource(), options, progress)
    if options.source.startswith(PREFIX):
        return prepare(TorchvisionSource(options), options, progress)
    return prepare(open_path(options.source), options, progress)


def open_path(source: str) -> Any:
    """The images of a folder or zip. Raises DataError when there is none."""
    from gancore.data.files import FolderSource, ZipSource

    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return FolderSource(path)
        if not os.path.lexists(path):
            raise DataError(_not_found(source, path))
        if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
            raise DataError(f"{path} is a file but not a zip archive: expected a folder or a .zip of images")
        return ZipSource(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {source!r}: {why.lower()}") from error


def _not_found(source: str, path: Path) -> str:
    from gancore.data.builtin import POINT_SETS
    from gancore.data.torchvision_sets import PREFIX, SETS

    built_in = ("digits", *POINT_SETS)
    try:
        siblings = [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        siblings = []
    names = {name.lower(): PREFIX + name for name in SETS}
    if path.parent == Path() and source.lower() in names:
        hint = f" (did you mean {names[source.lower()]!r}?)"
    else:
        bare = path.parent == Path()
        hint = nearest(path.name, [*siblings, *built_in] if bare else siblings)
    return (
        f"data {source!r} not found{hint}; expected a folder or .zip of images, {', '.join(built_in)}, "
        f"or {PREFIX}NAME"
    )
