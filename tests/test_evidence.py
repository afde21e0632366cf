"""The page of evidence says what its results say, and its files ask for what was run."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks" / "evidence"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_evidence", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results_of(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_everything_that_is_shown_was_measured(make: ModuleType) -> None:
    assert sorted(make.SHOWN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_those_of_the_results(make: ModuleType, name: str) -> None:
    page = (FOLDER.parent / "evidence.md").read_text(encoding="utf-8")
    assert make.replaced(page, name, make.section(name, results_of(name))) == page


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_an_ablation_asks_for_what_was_run(name: str) -> None:
    results = results_of(name)
    page = (FOLDER.parent / "evidence.md").read_text(encoding="utf-8")
    assert results["command"] in page
    path = re.search(r"docs/benchmarks/evidence/(\S+\.toml)", results["command"])
    asked = tomllib.loads((FOLDER / path[1]).read_text(encoding="utf-8"))
    assert sorted(asked["arms"]) == sorted(results["cost"])
    assert len(results["seeds"]) == asked["ablation"]["seeds"] >= 3
    assert asked["ablation"]["baseline"] == results["baseline"]
    assert asked["train"]["steps"] == results["steps"]
    assert {job["state"] for job in results["jobs"]} == {"done"}
    assert {job["images_seen"] for job in results["jobs"]} == {results["images_seen"]}
