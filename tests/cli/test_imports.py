"""What a command imports is part of its contract: help and listings stay fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "pluggy", "rich", "pydantic", "PIL", "importlib.metadata", "sklearn"}

PROGRAM = """
import sys
before = set(sys.modules)
from gancore.cli.main import main
try:
    main({arguments!r})
except SystemExit as stopped:
    code = stopped.code
import json
print(json.dumps([code, sorted(set(sys.modules) - before)]), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_click_and_little_else(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert not modules & HEAVY
    own = {name for name in modules if name.startswith("gancore")}
    assert own <= {"gancore", "gancore.cli", "gancore.cli.main", "gancore.cli.exits"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["plugins", "list"],
        ["plugins", "show", "hinge"],
        ["plugins", "check", "hinge", "r1"],
        ["train", "--help"],
        ["train", "--dry-run", "-p", "r1"],
    ],
)
def test_reading_imports_neither_torch_nor_rich(arguments: list[str]) -> None:
    assert not imported(*arguments) & {"torch", "rich", "PIL", "sklearn"}
