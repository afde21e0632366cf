"""Write a file so that a kill at any moment leaves the old one or the new one, never half of it; make folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gancore.errors import RunFolderError


def write_atomic(path: Path, payload: bytes) -> None:
    """Write to a temporary name, flush to disk, rename.

    Raises:
        RunFolderError: the folder cannot be written; what was there stays.
    """
    with replacing(path) as file:
        file.write(payload)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name; flushed to disk and renamed when the block ends without an error.

    Raises:
        RunFolderError: the folder cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise RunFolderError(
            f"cannot write '{path}': {error.strerror or error}; free space or check the rights, then resume"
        ) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        RunFolderError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write '{path}': {error.strerror or error}") from None


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
