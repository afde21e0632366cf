"""Each card's picture is made by the script beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
LARGEST = 300_000
"""Bytes."""


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_the_card_shows_a_small_picture(plugin: Path) -> None:
    picture = plugin / "pictures" / f"{plugin.name}.png"
    assert f"](pictures/{plugin.name}.png)" in (plugin / "README.md").read_text(encoding="utf-8")
    assert picture.stat().st_size <= LARGEST
    with Image.open(picture) as image:
        assert image.width >= 600


@pytest.mark.slow
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_the_script_makes_it(plugin: Path, tmp_path: Path) -> None:
    script = plugin / "pictures" / "make.py"
    subprocess.run(
        [sys.executable, str(script), str(tmp_path)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    with (
        Image.open(tmp_path / f"{plugin.name}.png") as made,
        Image.open(script.with_name(f"{plugin.name}.png")) as kept,
    ):
        assert made.size == kept.size
