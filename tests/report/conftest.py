from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs_for_tests import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder of a name; see ``write_run``."""

    def make(name: str = "run", **contents: Any) -> Path:
        return write_run(tmp_path / name, **contents)

    return make
