"""Checkpoints: tensors in safetensors, everything else in a JSON sidecar; atomic, checksummed, no pickle.

``step-00000500.safetensors`` is written first, ``step-00000500.json`` last: a checkpoint exists once its
sidecar does. The sidecar holds the checksum of the tensor file and of itself, so that one changed byte
anywhere is noticed; the next older checkpoint is then taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gancore.atomic import write_atomic
from gancore.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified.

    Attributes:
        step: G updates done. tensors: by name, on the CPU. meta: the sidecar.
        skipped: newer checkpoints that were passed over, each with the reason.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    path: Path
    skipped: tuple[str, ...] = field(default=())


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write a checkpoint into ``folder``; older ones stay untouched. Returns the sidecar's path.

    Raises:
        RunFolderError: disk full, no rights. Nothing half-written is left under a final name.
    """
    stem = f"step-{step:08d}"
    # Contiguous and unaliased: safetensors refuses channels-last tensors and views of one storage.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    payload = save_tensors(plain)
    write_atomic(folder / f"{stem}.safetensors", payload)
    document = {
        "format": FORMAT,
        "step": step,
        **meta,
        "tensors": {
            "file": f"{stem}.safetensors",
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        },
    }
    document["checksum"] = _checksum(document)
    path = folder / f"{stem}.json"
    write_atomic(path, json.dumps(document, indent=1, sort_keys=True).encode())
    return path


def steps(folder: Path) -> list[int]:
    """Steps that have a sidecar, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            match = re.fullmatch(r"step-(\d+)\.json", path.name)
            if match:
                found.append(int(match[1]))
    return sorted(found)


def load_latest(folder: Path) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        CheckpointError: there is none; every candidate is named with its defect.
    """
    skipped: list[str] = []
    for step in reversed(steps(folder)):
        try:
            found = load(folder, step)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        return Checkpoint(found.step, found.tensors, found.meta, found.path, tuple(skipped))
    if skipped:
        raise CheckpointError("no readable checkpoint: " + "; ".join(skipped))
    raise CheckpointError(f"no checkpoint in '{folder}'; expected step-*.json and step-*.safetensors")


def load(folder: Path, step: int) -> Checkpoint:
    """One checkpoint, verified byte for byte.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    path = folder / f"step-{step:08d}.json"
    meta = read_meta(path)
    file = folder / str(meta["tensors"]["file"])
    try:
        payload = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"'{file.name}' cannot be read: {error.strerror}") from None
    expected = int(meta["tensors"]["bytes"])
    if len(payload) != expected:
        raise CheckpointError(f"'{file.name}' holds {len(payload)} bytes, expected {expected}: it was cut short")
    if hashlib.sha256(payload).hexdigest() != meta["tensors"]["sha256"]:
        raise CheckpointError(f"'{file.name}' was changed: its checksum does not match")
    try:
        tensors = load_tensors(payload)
    except SafetensorError as error:
        raise CheckpointError(f"'{file.name}' is not a safetensors file: {error}") from None
    return Checkpoint(step, tensors, meta, path)


def read_meta(path: Path) -> dict[str, Any]:
    """A sidecar, verified against its own checksum."""
    try:
        meta = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"'{path.name}' cannot be read: {error.strerror}") from None
    except ValueError:
        raise CheckpointError(f"'{path.name}' is not JSON: it was cut short or changed") from None
    if not isinstance(meta, dict) or meta.get("checksum") != _checksum(meta):
        raise CheckpointError(f"'{path.name}' was changed: its checksum does not match")
    if meta["format"] != FORMAT:
        raise CheckpointError(
            f"'{path.name}' has checkpoint format {meta['format']}; this gancore reads {FORMAT}"
        )
    return meta


def prune(folder: Path, keep: int, written: int, best: int | None = None) -> None:
    """Delete all but the ``keep`` newest checkpoints up to the one just written, and the best one.

    Later ones are left alone: they are damaged, or this run would have gone on from them.
    """
    candidates = [step for step in steps(folder) if step <= written]
    for step in candidates[:-keep]:
        if step != best:
            for suffix in (".json", ".safetensors"):  # the sidecar first: without it there is no checkpoint
                with contextlib.suppress(FileNotFoundError):
                    (folder / f"step-{step:08d}{suffix}").unlink()


def restore_module(module: torch.nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Copy saved tensors into a module's own, so that layout and alignment stay; return what differs."""
    problems = []
    own = module.state_dict()
    saved = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    problems += [f"'{prefix}{name}' is missing" for name in own.keys() - saved.keys()]
    problems += [f"'{prefix}{name}' is unknown" for name in saved.keys() - own.keys()]
    for name in own.keys() & saved.keys():
        if own[name].shape != saved[name].shape:
            problems.append(
                f"'{prefix}{name}' has shape {tuple(saved[name].shape)}, expected {tuple(own[name].shape)}"
            )
    if not problems:
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(saved[name])
    return sorted(problems)


def _checksum(document: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
