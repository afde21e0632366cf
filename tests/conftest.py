"""Settings of the whole suite: one thread, and a reason for skipped GPU tests."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GAN_FUSED"] = "off"  # what is not a test of fused operations must not depend on what is built

from collections.abc import Iterator

import pytest
import torch

import gancore.assembly
from gancore.testing import open_once

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def built_in_sets_are_decoded_once() -> Iterator[None]:
    """For runs that are trained as a user trains them; sessions of ``gancore.testing`` do so anyway."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gancore.assembly, "open_dataset", lambda options, progress=None: open_once(options))
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Files go to workers as collected. By number of tests the long runs, few to a file, would come last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; this machine has none")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
