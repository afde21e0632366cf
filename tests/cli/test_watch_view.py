"""The view of a run in a terminal, and its lines elsewhere."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from runs_for_tests import evaluation, tick, write_run

from gancore.cli.watch_view import Lines, sparkline, view
from gancore.report.reading import RunReader


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name="run", **contents: write_run(tmp_path / name, **contents)


def shown(path: Path, width: int = 100, height: int = 40, running: bool = False) -> str:
    record = RunReader(path).read()
    record.running = running
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(view(record, width, height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_view_of_a_run(make_run) -> None:
    rows = [tick(step, **{"r1/penalty": float(step)}) for step in range(1, 21)]
    rows += [evaluation(20, 31.5), {"step": 20, "event": "warning", "method": "r1", "what": "[bold]hm"}]
    text = shown(make_run(rows=rows), running=True)
    assert "run  running" in text
    assert "step 20 of 100  500 images/s  ETA 10 s" in text
    losses = [line for line in text.splitlines() if "/" in line]
    assert losses[1].startswith("loss/d")
    assert "1.05" in losses[1]
    assert "█▄▃▂" in losses[1]
    assert losses[3].startswith("r1/penalty")
    assert losses[3].rstrip().endswith("▁▁▂▂▂▃▃▄▄▄▅▅▅▆▆▇▇▇██")
    assert "metrics at step 20: fid 31.5" in text
    assert "warning at step 20: r1: [bold]hm" in text


def test_an_ended_run_says_how(make_run) -> None:
    assert "Stopped at step 10 of 100; to continue: gan resume" in shown(make_run(rows=[tick(10)])).replace(
        "\n", " "
    )
    rows = [tick(10), {"step": 12, "event": "diverged", "what": "not finite: loss/d"}]
    assert "Diverged by step 12: not finite: loss/d." in shown(make_run("b", rows=rows))
    assert "Nothing was logged yet" in shown(make_run("c"))


def test_a_small_terminal_shows_what_fits(make_run) -> None:
    many = {f"group/value-{index:03d}": 1.0 for index in range(100)}
    path = make_run(rows=[tick(1, **many), tick(2, **many)])
    text = shown(path, width=40, height=20)
    assert "and 94 more curves" in text
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) <= 40


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([None, math.nan], ""),
        ([1.0, 2.0, 3.0], "▁▅█"),
        ([5, 5], "▁▁"),
        ([0.0, None, 7.0, math.inf], "▁ █ "),
        ([99.0, 0.0, 1.0], "▁█"),
    ],
)
def test_bars(values, expected) -> None:
    assert sparkline(values, 2 if values[:1] == [99.0] else 10) == expected


def test_lines_tell_each_thing_once(make_run) -> None:
    path = make_run(rows=[tick(10), {"step": 10, "event": "warning", "method": "r1", "what": "hm"}])
    reader, lines = RunReader(path), Lines()
    assert list(lines.of(reader.read())) == [
        "warning at step 10: r1: hm",
        "step 10 of 100  500 images/s  loss d 1.100  g 0.500",
    ]
    assert list(lines.of(reader.read())) == []
    text = (path / "metrics.jsonl").read_text()
    (path / "evaluations.jsonl").write_text('{"step": 10, "metrics": {"fid": 2.0, "kid": 0.5}}\n')
    assert list(lines.of(reader.read())) == ["metrics at step 10: fid 2, kid 0.5"]
    (path / "metrics.jsonl").write_text("")  # resumed from the start
    assert list(lines.of(reader.read())) == []
    (path / "metrics.jsonl").write_text(text.replace("10", "11"))
    assert len(list(lines.of(reader.read()))) == 2
