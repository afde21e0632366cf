"""Small data and samples, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import Samples
from gancore.data.dataset import MemoryDataset

SIDE = 16
CLASSES = 3


def pictures(count: int, seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Bars at an angle that depends on the class, with noise: uint8 (N, C, 16, 16), and labels int64 (N,)."""
    random = np.random.Generator(np.random.PCG64(seed))
    labels = random.integers(0, CLASSES, count)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([rows, columns, rows + columns])[labels] * 0.8 + random.uniform(0, 6.28, (count, 1, 1))
    images = 127 + 90 * np.sin(waves)[:, None] + random.normal(0, 12, (count, channels, SIDE, SIDE))
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def dataset(count: int = 400, *, seed: int = 0, labelled: bool = True, channels: int = 1) -> MemoryDataset:
    images, labels = pictures(count, seed, channels)
    names = [f"class {index}" for index in range(CLASSES)]
    return MemoryDataset(images, name="bars", labels=labels if labelled else None, class_names=names)


def source_of(images: np.ndarray) -> Callable[[int, int, int], Iterator[Tensor]]:
    """The same images for every seed, in [-1, 1]."""

    def batches(count: int, seed: int, size: int) -> Iterator[Tensor]:
        chosen = torch.from_numpy(images[:count]).float() / 127.5 - 1
        yield from chosen.split(size)

    return batches


def samples_of(images: np.ndarray, data: MemoryDataset, **more: object) -> Samples:
    return Samples(source_of(images), data, limit=len(images), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def bars() -> SimpleNamespace:
    """``pictures``, ``dataset`` and ``samples`` as above, and how large they are."""
    return SimpleNamespace(pictures=pictures, dataset=dataset, samples=samples_of, side=SIDE, classes=CLASSES)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests that do not look into it, so that a classifier is trained once."""
    return tmp_path_factory.mktemp("fidelity-cache")
