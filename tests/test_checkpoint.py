"""Atomic, checksummed, no pickle; damage is noticed and named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from gancore import checkpoint
from gancore.errors import CheckpointError, RunFolderError

TENSORS = {
    "w": torch.randn(3, 4),
    "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 3, dtype=torch.float64),
    "half": torch.randn(5).bfloat16(),
    "count": torch.tensor(7),
}
TENSORS["alias"] = TENSORS["w"]
TENSORS["view"] = TENSORS["w"][:, 1:3]


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {**TENSORS, "step": torch.tensor(step)}, {"note": "x"})


def test_everything_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 5)
    found = checkpoint.load_latest(tmp_path)
    assert found.step == 5
    assert found.meta["note"] == "x"
    assert found.skipped == ()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert not list(tmp_path.glob(".*"))


def test_files_of_equal_content_are_equal(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 1)
    for name in ("step-00000001.json", "step-00000001.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def damage_a_byte(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(bytes(payload))


def damage_the_last_byte(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(bytes(payload))


def damage_by_deleting(path: Path) -> None:
    path.unlink()


def damage_by_emptying(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize(
    "damage", [damage_by_cutting, damage_a_byte, damage_the_last_byte, damage_by_deleting, damage_by_emptying]
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, suffix: str, damage) -> None:
    save(tmp_path, 1, 2)
    damage(tmp_path / f"step-00000002.{suffix}")
    found = checkpoint.load_latest(tmp_path)
    assert found.step == 1
    if not (suffix == "json" and damage is damage_by_deleting):  # then the checkpoint never existed
        assert len(found.skipped) == 1
        assert f"step-00000002.{suffix}" in found.skipped[0]


def test_every_single_byte_counts(tmp_path: Path) -> None:
    """A changed byte anywhere in the sidecar is noticed, even in white space or a key."""
    save(tmp_path, 1)
    path = tmp_path / "step-00000001.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        try:
            meta = checkpoint.read_meta(path)
        except CheckpointError:
            continue
        assert meta == json.loads(whole)  # white space only


def test_without_a_whole_one_every_defect_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    damage_by_cutting(tmp_path / "step-00000001.safetensors")
    damage_a_byte(tmp_path / "step-00000002.safetensors")
    with pytest.raises(CheckpointError, match="no readable checkpoint: .*step-00000002.*was changed.*cut short"):
        checkpoint.load_latest(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoint.load_latest(tmp_path / "nothing")


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    checkpoint.prune(tmp_path, keep=2, written=5, best=2)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_disk_leaves_older_checkpoints_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    save(tmp_path, 1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="cannot write .*step-00000002.safetensors") as caught:
        save(tmp_path, 2)
    assert caught.value.exit_code == 8
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_newer_format_is_refused_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(CheckpointError, match="checkpoint format 2; this gancore reads 1"):
        checkpoint.load_latest(tmp_path)


def test_restoring_lists_every_difference() -> None:
    module = torch.nn.Linear(2, 3)
    problems = checkpoint.restore_module(
        module, "m.", {"m.weight": torch.zeros(2, 2), "m.extra": torch.zeros(1), "other.bias": torch.zeros(1)}
    )
    assert problems == [
        "'m.bias' is missing",
        "'m.extra' is unknown",
        "'m.weight' has shape (2, 2), expected (3, 2)",
    ]
