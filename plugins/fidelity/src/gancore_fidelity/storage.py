"""Files of the cache: tensors with a record of what they are, written whole or not at all, checked when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 2
"""Of a file; files of another one have other names, and are left alone."""

_RECORD = "gancore"
"""The one key of a file's metadata: with two keys the same content would give different bytes."""


class Damaged(Exception):
    """A file of the cache that is not what it should be; the message says why."""


def default_folder() -> Path:
    """The user's cache folder for weights, classifiers and features."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "gancore" / "fidelity"


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: the identity of a network's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass(frozen=True)
class Stored:
    """A file of the cache: its tensors, and the record that was kept with them."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


class Storage:
    """One folder of files, each named after a kind and a key.

    Two processes that make the same file at the same time write the same content under names of their own; the
    last rename wins. A file is read whole before it is checked, so that it cannot change in between.
    """

    def __init__(self, folder: str | Path = "") -> None:
        self.folder = Path(folder).expanduser() if str(folder) else default_folder()

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Where the tensors of ``key`` are, or would be."""
        return self.folder / f"{kind}-{digest({'format': FORMAT, 'key': key})[:24]}.safetensors"

    def read(self, kind: str, key: Mapping[str, Any]) -> Stored | None:
        """What :meth:`write` kept under this key, or None.

        Raises:
            Damaged: there is a file, and it is cut off, altered, of another key, or cannot be read.
        """
        path = self.path(kind, key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"{path} cannot be read: {error.strerror or error}") from None
        try:
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            kept = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_RECORD])
            known, checksum, record = kept["key"], kept["sha256"], kept["record"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{path} is cut off or is no file of this cache ({error})") from None
        if known != json.loads(json.dumps(key)):
            raise Damaged(f"{path} is of another key")
        if _checksum(tensors, record) != checksum:
            raise Damaged(f"{path} was altered: its checksum is wrong")
        return Stored(tensors, record)

    def write(
        self, kind: str, key: Mapping[str, Any], tensors: Mapping[str, Tensor], record: Mapping[str, Any]
    ) -> None:
        """Keep tensors and plain values.

        Raises:
            OSError: the folder cannot be written; what was there stays.
        """
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        about = json.dumps({"key": key, "sha256": _checksum(kept, record), "record": record}, sort_keys=True)
        write_whole(self.path(kind, key), save(kept, {_RECORD: about}))


def _checksum(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    return digest({"tensors": tensor_digest(tensors), "record": record})


def write_whole(path: Path, content: bytes) -> None:
    """Write under a name of this process, flush to disk, rename: a kill leaves the old file or the new one.

    Raises:
        OSError: the folder cannot be made or written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that nobody else may read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
