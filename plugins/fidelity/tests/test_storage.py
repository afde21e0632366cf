"""Files of the cache: whole, checked, damaged, and written by two processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gancore_fidelity.storage import Damaged, Storage, default_folder, tensor_digest, write_whole

KEY = {"data": "abc", "count": 10}


def tensors(scale: float = 1.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {"vectors": torch.randn(10, 3, generator=draw) * scale, "labels": torch.arange(10)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "new" / "folder")
    assert storage.read("reference", KEY) is None
    storage.write("reference", KEY, tensors(), {"name": "digits"})
    found = storage.read("reference", KEY)
    assert found is not None
    assert found.record == {"name": "digits"}
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors().items())
    assert storage.read("reference", {**KEY, "count": 11}) is None
    assert storage.read("classifier", KEY) is None
    assert [path.suffix for path in storage.folder.iterdir()] == [".safetensors"]


def test_channels_last_weights_are_kept(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    storage = Storage(tmp_path)
    storage.write("classifier", KEY, {"weight": weight}, {})
    found = storage.read("classifier", KEY)
    assert found is not None
    assert torch.equal(found.tensors["weight"], weight)


@pytest.mark.parametrize("where", ["cut off", "altered", "empty", "other", "renamed"])
def test_a_damaged_file_is_never_used(tmp_path: Path, where: str) -> None:
    storage = Storage(tmp_path)
    storage.write("reference", KEY, tensors(), {})
    path = storage.path("reference", KEY)
    content = bytearray(path.read_bytes())
    if where == "cut off":
        path.write_bytes(content[:-8])
    elif where == "altered":
        content[-3] ^= 1
        path.write_bytes(content)
    elif where == "empty":
        path.write_bytes(b"")
    elif where == "other":
        path.write_bytes(b"not a tensor in here" * 10)
    else:
        storage.write("reference", {"data": "other"}, tensors(), {})
        os.replace(storage.path("reference", {"data": "other"}), path)
    with pytest.raises(Damaged, match="reference-") as caught:
        storage.read("reference", KEY)
    words = {"altered": "checksum", "renamed": "another key"}
    assert words.get(where, "cut off") in str(caught.value)


def test_an_altered_record_is_seen(tmp_path: Path) -> None:
    storage, key = Storage(tmp_path), {"of": "this"}
    storage.write("kind", key, {"a": torch.arange(4)}, {"accuracy": 0.95})
    path = storage.path("kind", key)
    content = path.read_bytes()
    assert content.count(b"0.95") == 1
    path.write_bytes(content.replace(b"0.95", b"0.15"))
    with pytest.raises(Damaged, match="its checksum is wrong"):
        storage.read("kind", key)


def test_the_digest_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.tensor([1.0, 2.0])}
    others = [
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0]).view(torch.int32)},
        {"a": torch.tensor([1.0, 2.0000002])},
        {"a": torch.tensor([1.0]), "c": torch.tensor([2.0])},
    ]
    digests = {tensor_digest(each) for each in (base, *others)}
    assert len(digests) == len(others) + 1
    assert tensor_digest({"a": torch.tensor([1.0, 9.0, 2.0])[::2]}) == tensor_digest(base)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    write_whole(path, b"first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


WRITER = """
import sys, torch
from gancore_fidelity.storage import Storage
storage = Storage(sys.argv[1])
for _ in range(20):
    storage.write("reference", {"data": "abc", "count": 10}, {"vectors": torch.ones(50_000)}, {})
    assert storage.read("reference", {"data": "abc", "count": 10}) is not None
"""


@pytest.mark.slow
def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [Storage(tmp_path).path("reference", KEY).name]


def test_the_default_folder_is_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "gancore" / "fidelity"
    assert Storage().folder == default_folder()
    assert Storage("~/x").folder == Path.home() / "x"


def test_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b", "c"):
        storage = Storage(tmp_path / name)
        storage.write("reference", KEY, tensors(), {"x": 1, "y": 2})
        digests.add(hashlib.sha256(storage.path("reference", KEY).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert json.dumps(KEY)  # a key is plain JSON
