from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import gancore
from gancore.cli.main import main


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]


@pytest.fixture
def gan(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, through the function that the console script calls."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(stopped.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def trained(gan: Callable[..., Outcome], tmp_path: Path) -> Path:
    """A finished run on points."""
    arguments = ("--data", "gaussians", "--batch", "8", "--steps", "4", "--snap", "2")
    assert gan("train", *arguments, "--outdir", tmp_path / "run").code == 0
    return tmp_path / "run"


@pytest.fixture(scope="session")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the ten classes of digits, 16 pixels wide; commands may add pictures to it."""
    options = {"data.conditional": True, "data.fraction": 0.1, "train.batch": 8, "train.steps": 1}
    widths = {"network.g_width": 4, "network.d_width": 4}
    return gancore.train({**options, **widths}, outdir=tmp_path_factory.mktemp("conditional") / "run").path
