"""A run folder is read whatever state it is in: young, killed, damaged, growing, cut and grown again."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs_for_tests import CONFIG, evaluation, tick

from gancore.errors import CheckpointError
from gancore.report.reading import Rows, RunReader, curves, is_training, seconds_left, speed, training_seconds


def read(path: Path):
    return RunReader(path).read()


def test_a_run_in_the_middle(make_run) -> None:
    rows = [
        tick(25),
        evaluation(25, 9.0),
        {"step": 30, "event": "warning", "method": "r1", "what": "hm"},
        tick(50),
    ]
    path = make_run(rows=rows, frames=[0, 50], checkpoints=[25, 50])
    record = read(path)
    assert (record.name, record.state, record.step, record.steps) == ("run", "stopped", 50, 100)
    assert record.images_seen == 3200
    assert [row["step"] for row in record.rows] == [25, 50]
    assert [row["step"] for row in record.evaluations] == [25]
    assert [event["method"] for event in record.events] == ["r1"]
    assert [step for step, _ in record.frames] == [0, 50]
    assert (record.saved, record.sidecar["step"]) == ([25, 50], 50)
    assert record.config["train.batch"] == 64
    assert record.origins["train.steps"] == "command line"
    assert record.problems == []


@pytest.mark.parametrize(
    ("rows", "checkpoints", "state"),
    [
        ([], [], "not started"),
        ([tick(10)], [], "stopped"),
        ([tick(100)], [], "finished"),
        ([], [100], "finished"),
        ([tick(10), {"step": 12, "event": "diverged", "what": "not finite: loss/d"}], [5], "diverged"),
        ([tick(10), {"step": 12, "event": "diverged", "what": "x"}, tick(20)], [], "stopped"),
        ([tick(10), {"step": None, "event": "diverged"}], [], "stopped"),
    ],
)
def test_states(make_run, rows, checkpoints, state) -> None:
    assert read(make_run(rows=rows, checkpoints=checkpoints)).state == state


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_run_is_running_while_its_lock_is_held(make_run) -> None:
    path = make_run(rows=[tick(10)])
    holder = (
        "import sys; from gancore.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    assert not is_training(path)
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert read(path).state == "running"
    process.communicate()
    assert not is_training(path)
    assert read(path).state == "stopped"


def test_odd_lines_are_passed_over(make_run) -> None:
    good = json.dumps(tick(10))
    odd = [
        "",
        "12",
        "null",
        "[1]",
        '"x"',
        "{",
        '{"step": true}',
        '{"step": "9"}',
        '{"step": -1}',
        '{"no": "step"}',
    ]
    odd += ['{"step": 1e400}', f'{{"step": {10**400}}}', '{"step": 20, "metrics": 3}', "\xff\u2028", good[:-5]]
    path = make_run(rows="\n".join([*odd, good]) + "\n" + '{"step": 30, "loss/d": 1.0')
    record = read(path)
    assert [row["step"] for row in record.rows] == [20, 10]
    (path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00" + good.encode())
    assert read(path).rows == []


def test_values_that_are_no_numbers_are_gaps_or_no_curves(make_run) -> None:
    rows = [
        tick(1, a=None, b=math.nan, c="text", d={"x": 1}, e=True, f=10**400, g=[1], none=None),
        tick(2, a=2.0, b=3, std=5),
    ]
    found = curves(read(make_run(rows=rows)))
    assert set(found) == {"a", "b", "loss/d", "loss/g"}
    assert found["a"] == ([1, 2], [None, 2.0], [None, None])
    assert math.isnan(found["b"][1][0])
    assert found["loss/d"][2] == [0.1, None]


def test_a_damaged_checkpoint_is_passed_over_and_named(make_run) -> None:
    path = make_run(checkpoints=[10, 20, 30])
    (path / "checkpoints" / "step-00000030.json").write_text('{"cut')
    (path / "checkpoints" / "step-00000020.json").write_text("[]")
    record = read(path)
    assert (record.saved, record.sidecar["step"]) == ([10], 10)
    assert record.problems == [f"checkpoints/step-000000{step}.json is damaged." for step in (30, 20)]


@pytest.mark.parametrize("content", ["= no TOML", "plugins = 3\norigin = 4\nversions = 5", ""])
def test_an_odd_configuration(make_run, content: str) -> None:
    record = read(make_run(config=content, rows=[tick(5)]))
    assert record.steps is None
    assert record.state == "stopped"
    assert len(record.problems) == (1 if "= no" in content else 0)
    assert training_seconds(record) == 0
    assert seconds_left(record) is None


def test_missing_parts(make_run) -> None:
    path = make_run()
    for part in ("samples", "checkpoints", "pictures"):
        shutil.rmtree(path / part)
    (path / "metrics.jsonl").unlink()
    record = read(path)
    assert (record.state, record.step, record.problems) == ("not started", 0, [])
    with pytest.raises(CheckpointError, match="holds no run"):
        RunReader(path / "samples")
    reader = RunReader(path)
    shutil.rmtree(path)
    with pytest.raises(CheckpointError, match=r"cannot read the run .*No such file"):
        reader.read()


def test_evaluations_of_both_files_are_in_order(make_run) -> None:
    path = make_run(
        rows=[evaluation(10, 5.0), evaluation(30, 3.0)],
        files={"evaluations.jsonl": [evaluation(20, 4.0), {"step": 9}, {"metrics": {}}]},
    )
    assert [row["step"] for row in read(path).evaluations] == [10, 20, 30]


def test_time_and_speed_against_numpy(make_run) -> None:
    rates = np.random.default_rng(0).uniform(100, 900, 50)
    rows = [tick(2 * (index + 1), images_per_second=float(rate)) for index, rate in enumerate(rates)]
    rows[7]["images_per_second"] = None
    rows[8]["images_per_second"] = 0.0
    record = read(make_run(rows=rows, config=CONFIG.replace("steps = 100", "steps = 1000")))
    kept = np.delete(np.arange(50), [7, 8])
    assert speed(record) == ([2 * (int(i) + 1) for i in kept], rates[kept].tolist())
    lengths = np.diff(np.concatenate([[0], 2 * (kept + 1)]))
    assert training_seconds(record) == pytest.approx(float(np.sum(lengths * 64 / rates[kept])))
    median = float(np.sort(rates[kept][-20:])[10])
    assert seconds_left(record) == pytest.approx(900 * 64 / median)


def test_rows_follow_a_file_that_grows_is_cut_and_grows_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = Rows(path)
    assert rows.read() == []

    def write(text: str, mode: str = "a") -> list[int]:
        with open(path, mode) as file:
            file.write(text)
        return [row["n"] for row in rows.read()]

    assert write('{"n": 1}\n{"n": 2') == [1]
    assert write("}\n") == [1, 2]
    assert write("".join(f'{{"n": {n}}}\n' for n in range(3, 40))) == list(range(1, 40))
    os.truncate(path, 18)
    assert [row["n"] for row in rows.read()] == [1, 2]
    assert write("".join(f'{{"n": {n}}}\n' for n in range(50, 90)), "w") == list(range(50, 90))
    os.truncate(path, 10)
    assert write("".join(f'{{"n": {n}}}\n' for n in range(60, 200))) == [50, *range(60, 200)]
    path.unlink()
    assert rows.read() == []
