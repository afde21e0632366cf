"""Short runs in folders, for tests of training and of what keeps a run from going on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from methods_for_tests import ALL

import gancore
from gancore import checkpoint
from gancore.testing import registry_with, tiny_config

REGISTRY = registry_with(*ALL)


def train(path: Path, plugins=(), overrides: Mapping[str, Any] | None = None, registry=REGISTRY, **more):
    given = {"output.log_every": 2, "output.snap": 2, "output.keep": 9, **(overrides or {})}
    return gancore.train(tiny_config(plugins, given), outdir=path, registry=registry, **more)


def newest(path: Path) -> checkpoint.Checkpoint:
    return checkpoint.load_latest(path / "checkpoints")


def forget_after(path: Path, step: int) -> None:
    """Drop all checkpoints after a step, as a kill would."""
    for later in checkpoint.steps(path / "checkpoints"):
        if later > step:
            for suffix in ("json", "safetensors"):
                (path / "checkpoints" / f"step-{later:08d}.{suffix}").unlink()


def rows(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in lines]


def finished_run(path: Path) -> Path:
    """A run of a method with a head and one that augments, on labelled digits, with all its checkpoints."""
    train(path, ["head", "brighten"], {"data.conditional": True})
    return path


def copy_of(finished: Path, path: Path) -> Path:
    """A copy that has lost what came after step 2."""
    shutil.copytree(finished, path)
    forget_after(path, 2)
    return path
