"""Prototypes are a package below tests/, which they name in their specs; data is decoded once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import gancore.assembly
from gancore.data import open_dataset
from gancore.plugin_manager import Registry
from prototypes.support import Lab, registry


@pytest.fixture(scope="session")
def known() -> Registry:
    return registry()


@pytest.fixture(scope="session", autouse=True)
def shared_data() -> Iterator[None]:
    cached = functools.lru_cache(lambda options: open_dataset(options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gancore.assembly, "open_dataset", lambda options, progress=None: cached(options))
        yield


@pytest.fixture
def lab(known: Registry, tmp_path: Path) -> Lab:
    return Lab(known, tmp_path)
