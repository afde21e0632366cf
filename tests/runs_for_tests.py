"""Run folders that no training wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

CONFIG = """
plugins = ["nonsaturating", "adaptivemix"]

[train]
steps = 100
batch = 64

[network]
name = "dcgan"

[origin]
"network.name" = "network default"
"plugins" = "command line + default objective"
"train.batch" = "default"
"train.steps" = "command line"

[versions]
gancore = "0.1.0"
torch = "2.11.0"
"""

SIDECAR = {
    "step": 50,
    "environment": {"device": "cpu", "threads": 2},
    "data": {"name": "digits", "classes": ["zero", "one"], "digest": "ab", "shape": [1, 16, 16]},
    "plugins": {"adaptivemix": {"distribution": "gancore-adaptivemix", "version": "0.1.0"}},
}


def tick(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "images_seen": 64 * step,
        "images_per_second": 500.0,
        "loss/d": 1.0 + 1 / step,
        "loss/g": 0.5,
        "std": {"loss/d": 0.1, "loss/g": 0.2},
        **values,
    }


def evaluation(step: int, value: float, **protocol: Any) -> dict[str, Any]:
    return {"step": step, "metrics": {"fid": value}, "protocols": {"fid": {"better": "lower", **protocol}}}


def write_run(
    path: Path,
    *,
    rows: Iterable[Mapping[str, Any]] | str = (),
    config: str = CONFIG,
    frames: Iterable[int] = (),
    checkpoints: Iterable[int] = (),
    files: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder.

    Args:
        rows: lines of metrics, or the text of the file. frames, checkpoints: their steps.
        files: further files by name, each an object or a list of lines.
    """
    for part in ("samples", "checkpoints", "pictures"):
        (path / part).mkdir(parents=True)
    (path / "config.toml").write_text(config)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(text)
    for step in frames:
        Image.new("RGB", (40, 30), (step % 256, 80, 80)).save(path / f"samples/step-{step:08d}.png")
    for step in checkpoints:
        (path / f"checkpoints/step-{step:08d}.json").write_text(json.dumps({**SIDECAR, "step": step}))
    for file, content in (files or {}).items():
        lines = content if isinstance(content, list) else [content]
        (path / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
