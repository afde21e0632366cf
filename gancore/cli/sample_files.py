"""Where ``gan sample`` and ``gan interp`` write: names, checks before any work, files written as samples come."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gancore.atomic import make_folder, replacing, write_atomic
from gancore.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.run import Run

LONGEST_NAME = 120
"""Letters of a file's name that gan chooses; of a longer one the rest becomes a digest."""

MOST_PIXELS = 10**8
"""Of a grid: more is slow to write and to open, and some programs refuse it."""


class Sink(Protocol):
    """Takes samples a batch at a time, so that any number fits in memory."""

    def __call__(self, images: Tensor, names: list[str], labels: list[int] | None) -> None:
        """Images (N, C, H, W) in [-1, 1] with a name each, and the class of each for a conditional run."""


def default_path(run: Run, name: str, label: str | None, trunc: float, suffix: str) -> Path:
    """A name that says how the picture was made, below RUN/samples; not "step-…", as training names its own."""
    name += f"-class-{label}" if label is not None else ""
    name += f"-trunc-{trunc:g}" if trunc != 1 else ""
    plain = re.sub(r"[^\w.,-]", "_", name)
    if len(plain) > LONGEST_NAME:
        plain = f"{plain[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return run.folder.samples / f"{plain}{suffix}"


def require_writable(folder: Path) -> None:
    """Find out, before any work, that a folder can be written, or made.

    Raises:
        RunFolderError: it cannot.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        what = "no rights to write there" if nearest.is_dir() else f"'{nearest}' is a file"
        raise RunFolderError(f"cannot write in '{folder}': {what}")


def refuse_folder(path: Path) -> None:
    """Find out, before any work, that a folder stands where a file is to be written.

    Raises:
        RunFolderError: it does.
    """
    if path.is_dir():
        raise RunFolderError(f"cannot write '{path}': it is a folder; give the name of a file")


def refuse_huge_grid(number: int, height: int, width: int) -> None:
    """Find out, before any work, that a grid would be no picture that anyone can open.

    Raises:
        ConfigError: it would have more than :data:`MOST_PIXELS`.
    """
    if number * height * width > MOST_PIXELS:
        side = math.ceil(math.sqrt(number))
        raise ConfigError(
            f"a grid of {number:,} images of {height}x{width} would have {side * width:,}x{side * height:,} "
            f"pixels; expected at most {MOST_PIXELS // 10**6} million: ask for fewer, or for single files with "
            "--each DIR or --zip FILE and without --out"
        )


def each_in(folder: Path) -> Sink:
    """One PNG a sample into a folder, which is made."""
    make_folder(folder)

    def write(images: Tensor, names: list[str], labels: list[int] | None) -> None:
        for payload, name in zip(_pngs(images), names, strict=True):
            write_atomic(folder / f"{name}.png", payload)

    return write


@contextlib.contextmanager
def zip_at(path: Path) -> Iterator[Sink]:
    """PNGs, and the classes in dataset.json, as ``gan train --data`` reads them; equal bytes for equal images.

    The zip appears when it is whole.
    """
    make_folder(path.parent)
    pairs: list[list[str | int]] = []
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:

        def write(images: Tensor, names: list[str], labels: list[int] | None) -> None:
            for payload, name in zip(_pngs(images), names, strict=True):
                archive.writestr(zipfile.ZipInfo(f"{name}.png"), payload)
            if labels is not None:
                pairs.extend([f"{name}.png", label] for name, label in zip(names, labels, strict=True))

        yield write
        if pairs:
            archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": pairs}))


def _pngs(images: Tensor) -> Iterator[bytes]:
    from PIL import Image

    from gancore.pictures import to_uint8

    for tile in to_uint8(images):
        picture = io.BytesIO()
        Image.fromarray(tile if tile.shape[2] == 3 else tile[:, :, 0]).save(picture, format="PNG")
        yield picture.getvalue()
