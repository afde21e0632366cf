"""Small images on disk for the tests of this folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The bytes of a picture that depends on ``seed``."""

    def build(seed: int = 0, size: tuple[int, int] = (16, 16), mode: str = "RGB", kind: str = "PNG") -> bytes:
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind)
        return stream.getvalue()

    return build


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes files by relative path; returns the folder."""

    def build(files: Mapping[str, bytes], name: str = "pictures") -> Path:
        for path, content in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return tmp_path / name

    return build


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a zip archive with these entries; returns its path."""

    def build(files: Mapping[str, bytes], name: str = "pictures.zip") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return tmp_path / name

    return build
