"""Data sets as the trainer sees them: rows by index, labels, a digest, and notes for the reader."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from gancore.data.labels import Classes
from gancore.data.pixels import Preparation, decode, reason
from gancore.errors import DataError


class ImageSource(Protocol):
    """Where images come from: files of a folder or zip, or a set of a library."""

    name: str
    files: list[str]
    notes: list[str]

    def load(self, index: int) -> Image.Image:
        """The image called ``files[index]``; safe to call from several threads."""

    def classes(self, conditional: bool) -> Classes:
        """The class of every file. Raises DataError when ``conditional`` and there are no proper labels."""

    def close(self) -> None:
        """Release handles; ``load`` opens them again."""


class Digest:
    """SHA-256 over the rows in order, then the labels, then how the rows were prepared.

    It covers what training sees: decoded and resized pixels (or points), labels, shape and preprocessing.
    File names, times, the container and where the rows are kept do not enter.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, rows: np.ndarray) -> None:
        """Any number of rows, in order."""
        self._hash.update(np.ascontiguousarray(rows).data)

    def finish(self, shape: Sequence[int], labels: np.ndarray | None, preparation: dict[str, Any]) -> str:
        """64 hexadecimal digits."""
        if labels is not None:
            self._hash.update(np.ascontiguousarray(labels, dtype="<i8").data)
        header = {"shape": list(shape), "labelled": labels is not None, "preparation": preparation}
        self._hash.update(json.dumps(header, sort_keys=True).encode())
        return self._hash.hexdigest()


class Dataset:
    """Base class: everything but :meth:`read`.

    Attributes:
        kind: ``"image"`` (rows uint8 (C, H, W)) or ``"points"`` (rows float32 (2,)).
        shape: shape of a row.
        labels: int64 (N,), or None when unconditional.
        class_names: names in label order, empty when unconditional.
        digest: SHA-256 in hexadecimal, see :class:`Digest`.
        notes: lines for the reader: what was ignored, left out, converted.
    """

    name: str
    kind: Literal["image", "points"]
    shape: tuple[int, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    digest: str
    notes: list[str]
    stored: Literal["memory", "on demand"]
    preparation: dict[str, Any]

    def _describe_rows(
        self, count: int, labels: np.ndarray | None, class_names: Sequence[str], notes: Sequence[str]
    ) -> None:
        if labels is not None:
            labels = np.ascontiguousarray(labels, dtype=np.int64)
            if labels.shape != (count,):
                raise DataError(f"labels have shape {labels.shape}, expected ({count},): one for each row")
            if count and labels.min() < 0:
                raise DataError(f"label {labels.min()} found, expected labels from 0")
            if not class_names:
                class_names = [str(index) for index in range(int(labels.max(initial=-1)) + 1)]
            if count and labels.max() >= len(class_names):
                raise DataError(f"label {labels.max()} found, but there are {len(class_names)} classes")
        self._count = count
        self.labels = labels
        self.class_names = tuple(class_names) if labels is not None else ()
        self.notes = list(notes)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ``indices`` (int64 (B,)), in that order and freshly allocated.

        Returns uint8 (B, C, H, W) or float32 (B, 2). Raises DataError when a file can no longer be read.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """A summary that can be written as JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "images": len(self),
            "shape": list(self.shape),
            "classes": list(self.class_names),
            "digest": self.digest,
            "resize_filter": self.preparation.get("filter"),
            "fit": self.preparation.get("fit"),
            "stored": self.stored,
            "notes": list(self.notes),
        }

    def close(self) -> None:
        """Release threads and file handles."""


class MemoryDataset(Dataset):
    """Rows in one array: uint8 (N, C, H, W) images or float32 (N, 2) points; kept, not copied."""

    stored: Literal["memory", "on demand"] = "memory"

    def __init__(
        self,
        array: np.ndarray,
        *,
        name: str = "array",
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        notes: Sequence[str] = (),
        preparation: dict[str, Any] | None = None,
    ) -> None:
        if array.ndim == 4 and array.dtype == np.uint8 and array.shape[1] in (1, 3):
            self.kind = "image"
        elif array.ndim == 2 and array.dtype == np.float32 and array.shape[1] == 2:
            self.kind = "points"
        else:
            raise DataError(
                f"array of {array.dtype} {array.shape}: expected uint8 (N, 1 or 3, H, W) or float32 (N, 2)"
            )
        self._array = np.ascontiguousarray(array)
        self.name = name
        self.shape = tuple(array.shape[1:])
        self.preparation = dict(preparation or {})
        self._describe_rows(len(array), labels, class_names, notes)
        digest = Digest()
        digest.add(self._array)
        self.digest = digest.finish(self.shape, self.labels, self.preparation)

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self._array.take(indices, axis=0)


class LazyDataset(Dataset):
    """Images that are decoded whenever they are read, for sets that do not fit in memory.

    ``digest`` is the one of the decoded rows, so that it equals the digest of the same set kept in memory.
    """

    kind: Literal["image", "points"] = "image"
    stored: Literal["memory", "on demand"] = "on demand"

    def __init__(
        self,
        source: ImageSource,
        positions: np.ndarray,
        preparation: Preparation,
        *,
        digest: Digest,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        notes: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        """``positions``: int64 (N,), which of ``source.files`` are rows; ``digest`` was fed these rows."""
        self.name = source.name
        self.shape = preparation.shape
        self.preparation = preparation.record()
        self._source = source
        self._positions = positions
        self._prepare = preparation
        self._thread_count = threads
        self._lock = threading.Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._describe_rows(len(positions), labels, class_names, notes)
        self.digest = digest.finish(self.shape, self.labels, self.preparation)

    def read(self, indices: np.ndarray) -> np.ndarray:
        rows = np.empty((len(indices), *self.shape), dtype=np.uint8)
        positions = self._positions[indices]

        def fill(part: np.ndarray) -> None:
            for row in part:
                rows[row] = self._decode(int(positions[row]))

        everything = np.arange(len(indices))
        if self._thread_count == 1:
            fill(everything)
            return rows
        parts = np.array_split(everything, self._thread_count)
        for future in [self._threads().submit(fill, part) for part in parts if len(part)]:
            future.result()
        return rows

    def _decode(self, position: int) -> np.ndarray:
        try:
            return decode(self._source.load(position), self._prepare)[0]
        except Exception as error:
            file = self._source.files[position]
            raise DataError(
                f"{file} of {self.name} was readable at the start and is not any more: {reason(error)}; "
                "restore it and resume the run"
            ) from error

    def _threads(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork, so a child process makes its own.
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), ThreadPoolExecutor(self._thread_count, "gancore-decode"))
            return self._pool[1]

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and pool[0] == os.getpid():
            pool[1].shutdown()
        self._source.close()
