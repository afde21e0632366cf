"""The benchmark programs run. What they measure is no test's business."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        (
            "bench_methods.py",
            "--batch",
            "4",
            "--rounds",
            "1",
            "--only",
            "kdd anchors=1",
            "--only",
            "ada",
            "--markdown",
        ),
        *((path.name, "--help") for path in sorted(HERE.glob("bench_*.py"))),
    ],
    ids=lambda arguments: arguments[0],
)
def test_it_runs(arguments):
    found = subprocess.run(
        [sys.executable, str(HERE / arguments[0]), *arguments[1:]], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
