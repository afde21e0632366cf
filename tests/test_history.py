"""Who trained a run when is written down beside it, and so is the step plan."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from methods_for_tests import spec_of

import gancore
from gancore import run, training
from gancore.api import Method, hookimpl
from gancore.errors import DivergedError, Interrupted
from gancore.run_folder import RunFolder
from gancore.testing import registry_with, tiny_config
from gancore.training import Tick

SMALL = {"network.name": "mlp", "train.steps": 4, "output.snap": 2, "output.log_every": 2}


def history(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def train(path: Path, **more: Any) -> Path:
    return gancore.train(tiny_config(["r1"], {**SMALL, **more}), outdir=path).path


def test_a_session_leaves_its_beginning_its_end_and_the_plan(tmp_path: Path) -> None:
    path = train(tmp_path / "run")
    first, last = history(path)
    assert (first["event"], first["step"]) == ("started", 0)
    assert (last["event"], last["step"], last["reason"]) == ("stopped", 4, "finished")
    assert last["seconds"] > 0
    assert last["peak_memory_bytes"] is None or last["peak_memory_bytes"] > 1 << 20
    assert first["time"] <= last["time"]
    plan = json.loads((path / "plan.json").read_text())
    assert (plan["batch"], plan["n_critic"], plan["objective"]) == (8, 1, "nonsaturating")
    assert {term["name"] for term in plan["phases"][0]["terms"]} == {"nonsaturating/adv", "r1/penalty"}


def test_a_resume_says_what_changed(tmp_path: Path) -> None:
    path = train(tmp_path / "run")
    newest = path / "checkpoints" / "step-00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:9])
    run.resume(path, overrides={"train.steps": 6, "output.log_every": 1}, drop_plugins=("r1",))
    resumed, stopped = history(path)[2:]
    assert (resumed["event"], resumed["step"]) == ("resumed", 2)
    assert resumed["changed"]["train.steps"] == [4, 6]
    assert resumed["changed"]["output.log_every"] == [2, 1]
    assert resumed["changed"]["plugins"] == [["nonsaturating", "r1"], ["nonsaturating"]]
    assert resumed["dropped"] == ["r1"]
    assert "step-00000004.safetensors" in resumed["passed_over"][0]
    assert (stopped["step"], stopped["reason"]) == (6, "finished")
    terms = json.loads((path / "plan.json").read_text())["phases"][0]["terms"]
    assert [term["name"] for term in terms] == ["nonsaturating/adv"]


def test_other_ends(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train(tmp_path / "run", **{"optimizer.d.lr": 1e30, "optimizer.g.lr": 1e30})
    assert history(tmp_path / "run")[-1]["reason"].startswith("diverged by step")
    config = tiny_config([], {**SMALL, "train.steps": 10**6})

    def interrupt(tick: Tick) -> None:
        if tick.step == 0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        gancore.train(config, outdir=tmp_path / "b", report=interrupt)
    assert history(tmp_path / "b")[-1]["reason"].startswith("interrupted, saved at step")


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_look_at_the_lock_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    import fcntl
    import threading

    folder = RunFolder(tmp_path)
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with folder.locked():
            pass


def test_logged_speed_leaves_out_evaluations_and_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(function: Any) -> Any:
        def call(*given: Any) -> Any:
            time.sleep(1.5)
            return function(*given)

        return call

    for name in ("evaluate", "snapshot"):
        monkeypatch.setattr(training, name, slow(getattr(training, name)))

    class Nothing(Method):
        @hookimpl
        def evaluate(self) -> None:
            return None

    config = tiny_config(["nothing"], {**SMALL, "output.log_every": 1, "output.evaluate_every": 1})
    path = gancore.train(
        config, outdir=tmp_path / "run", registry=registry_with(spec_of(Nothing, "nothing"))
    ).path
    rates = [row["images_per_second"] for row in run.load(path).metrics if "images_per_second" in row]
    assert len(rates) == 4
    assert min(rates) > 8 / 1.5
