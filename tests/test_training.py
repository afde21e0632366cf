"""Runs in their folders: resume bit for bit, divergence, signals, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods_for_tests import broken
from training_for_tests import REGISTRY, copy_of, finished_run, forget_after, newest, rows, train

import gancore
from gancore import checkpoint, run
from gancore.api import Score
from gancore.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    Interrupted,
    PluginError,
    Preempted,
    RunFolderError,
)
from gancore.testing import different, registry_with


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return copy_of(finished, tmp_path / "run")


CASES: Mapping[str, tuple[list[str], Mapping[str, Any]]] = {
    "dcgan": ([], {}),
    "sngan": ([], {"network.name": "sngan"}),
    "mlp": ([], {"network.name": "mlp"}),
    "dcgan + adaptivemix": (["adaptivemix"], {}),
    "dcgan + adaptivemix official, conditional": (
        ["adaptivemix"],
        {"adaptivemix.preset": "official", "data.conditional": True},
    ),
    "sngan + adaptivemix": (["adaptivemix"], {"network.name": "sngan", "train.n_critic": 2}),
    "mlp + adaptivemix": (["adaptivemix"], {"network.name": "mlp"}),
    "channels_last, rmsprop with momentum, mirror": (
        ["wgan", "gp"],
        {
            "compute.memory_format": "channels_last",
            "wgan.clip": 0.0,
            "optimizer.d.name": "rmsprop",
            "optimizer.d.momentum": 0.5,
            "data.mirror": True,
        },
    ),
    "state in methods, separate lazy phase, bf16": (
        ["head", "near", "brighten", "r1"],
        {"r1.every": 2, "train.lazy": "separate", "compute.precision": "bf16", "train.n_critic": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_bit_equal_to_an_unbroken_one(case: str, tmp_path: Path) -> None:
    plugins, overrides = CASES[case]
    whole, broken_off = tmp_path / "whole", tmp_path / "broken"
    # A tick every three steps, so that the kill falls into the middle of one.
    overrides = {**overrides, "train.steps": 6, "output.log_every": 3}
    train(whole, plugins, overrides)
    shutil.copytree(whole, broken_off)
    forget_after(broken_off, 4)
    with open(broken_off / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "cut sho')
    run.resume(broken_off, registry=REGISTRY)
    first, second = newest(whole), newest(broken_off)
    assert first.step == second.step == 6
    assert not different(first.tensors, second.tensors)
    assert first.meta["methods"] == second.meta["methods"]
    assert rows(whole) == rows(broken_off)
    picture = "samples/step-00000006.png"
    assert (whole / picture).read_bytes() == (broken_off / picture).read_bytes()


def test_a_longer_run_equals_a_run_of_that_length(tmp_path: Path) -> None:
    """Nothing but schedules depends on the number of steps."""
    train(tmp_path / "short", ["adaptivemix"], {"train.steps": 2})
    train(tmp_path / "long", ["adaptivemix"], {"train.steps": 4})
    run.resume(tmp_path / "short", overrides={"train.steps": 4}, registry=REGISTRY)
    assert not different(newest(tmp_path / "short").tensors, newest(tmp_path / "long").tensors)


def test_a_damaged_checkpoint_costs_only_what_came_after_the_previous(tmp_path: Path) -> None:
    train(tmp_path / "run", [])
    expected = newest(tmp_path / "run").tensors
    file = tmp_path / "run" / "checkpoints" / "step-00000004.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    resumed = run.resume(tmp_path / "run", registry=REGISTRY)
    assert len(resumed.notes) == 1
    assert "step-00000004.safetensors" in resumed.notes[0]
    assert not different(newest(tmp_path / "run").tensors, expected)


def test_a_folder_with_a_run_is_left_alone(copy: Path) -> None:
    before = {str(p): p.stat().st_mtime_ns for p in copy.rglob("*")}
    with pytest.raises(ConfigError, match="already holds a run.*gan resume") as caught:
        train(copy)
    assert caught.value.exit_code == 2
    assert {str(p): p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        train(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        run.resume(tmp_path, registry=REGISTRY)


def test_a_second_process_is_kept_out(copy: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with open(copy / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training"):
            run.resume(copy, registry=REGISTRY)


def test_a_batch_larger_than_the_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--batch 4000 is larger than the set 'digits' \(176 images\)"):
        train(tmp_path / "run", overrides={"train.batch": 4000})
    assert not (tmp_path / "run").exists()


def test_a_nan_in_the_loss_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    def poison(method, step):
        value = step.d["real"].logits.mean()
        return method.terms(t=value * float("nan") if step.index == 2 else value)

    with pytest.raises(DivergedError, match="broken/t.d.*last good checkpoint is intact .step 2") as caught:
        train(tmp_path / "run", ["broken"], registry=registry_with(broken("d_loss", poison)))
    assert caught.value.exit_code == 5
    found = newest(tmp_path / "run")
    assert found.step == 2
    assert all(torch.isfinite(t).all() for t in found.tensors.values() if t.is_floating_point())
    assert rows(tmp_path / "run")[-1]["event"] == "diverged"


def test_a_nan_in_a_weight_is_never_saved(tmp_path: Path) -> None:
    """The loss of the last step before a snapshot may be finite while its gradient is not."""

    def poison(method, step):
        if step.index == 1:
            step.d_parameters[0].fill_(float("nan"))

    with pytest.raises(DivergedError, match="'d\\..* tensors are not finite"):
        train(tmp_path / "run", ["broken"], registry=registry_with(broken("after_g_step", poison)))
    assert newest(tmp_path / "run").step == 0


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Preempted, 75)]
)
def test_a_signal_saves_and_the_resumed_run_is_bit_equal(
    tmp_path: Path, number: int, error: type[Exception], code: int
) -> None:
    def raise_signal(method, step):
        if step.index == 2 and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)

    sent: list[bool] = []
    registry = registry_with(broken("after_d_step", raise_signal))
    handler = signal.getsignal(number)
    with pytest.raises(error, match="saved at step 3; continue with: gan resume") as caught:
        train(tmp_path / "run", ["broken"], {"train.steps": 5}, registry=registry)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is handler
    run.resume(tmp_path / "run", registry=registry)
    train(tmp_path / "whole", ["broken"], {"train.steps": 5}, registry=registry)
    assert not different(newest(tmp_path / "run").tensors, newest(tmp_path / "whole").tensors)


def test_max_hours_saves_and_asks_to_be_requeued(tmp_path: Path) -> None:
    with pytest.raises(Preempted, match="output.max_hours reached, saved at step 1"):
        train(tmp_path / "run", overrides={"output.max_hours": 1e-9})
    assert newest(tmp_path / "run").step == 1


def test_a_full_disk_exits_with_8_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if newest_step() >= 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    def newest_step() -> int:
        return max(checkpoint.steps(tmp_path / "run" / "checkpoints"), default=0)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left on device; free space") as caught:
        train(tmp_path / "run", ["adaptivemix"])
    assert caught.value.exit_code == 8
    monkeypatch.undo()
    assert newest(tmp_path / "run").step == 2
    run.resume(tmp_path / "run", registry=REGISTRY)
    train(tmp_path / "whole", ["adaptivemix"])
    assert not different(newest(tmp_path / "run").tensors, newest(tmp_path / "whole").tensors)


def test_a_disk_that_is_full_from_the_start_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="cannot write .*config.toml.*No space left"):
        train(tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run").iterdir())
    train(tmp_path / "run")
    assert newest(tmp_path / "run").step == 4


def test_damaged_newer_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    train(tmp_path / "run", overrides={"train.steps": 6})
    for step in (4, 6):
        file = tmp_path / f"run/checkpoints/step-{step:08d}.safetensors"
        file.write_bytes(file.read_bytes()[:50])
    run.resume(
        tmp_path / "run", overrides={"train.steps": 3, "output.keep": 2, "output.snap": 1}, registry=REGISTRY
    )
    assert newest(tmp_path / "run").step == 3
    assert {2, 3} <= set(checkpoint.steps(tmp_path / "run/checkpoints"))


def test_a_logged_nan_and_a_methods_own_infinity_do_not_stop_a_run(tmp_path: Path) -> None:
    def log(method, step):
        step.log(ratio=torch.tensor(float("nan")))

    train(tmp_path / "run", ["broken"], {"output.log_every": 3}, registry_with(broken("after_d_step", log)))
    assert newest(tmp_path / "run").step == 4


def test_an_error_of_the_caller_is_not_one_of_the_run_folder(tmp_path: Path) -> None:
    def report(tick):
        raise FileNotFoundError("the caller's own")

    with pytest.raises(FileNotFoundError, match="the caller's own"):
        train(tmp_path / "run", report=report, overrides={})


def test_a_refused_second_resume_touches_nothing(copy: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    before = {p.name: p.read_bytes() for p in (copy / "config.toml", copy / "metrics.jsonl")}
    with open(copy / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training"):
            run.resume(copy, registry=REGISTRY, overrides={"train.steps": 99})
    assert {p.name: p.read_bytes() for p in (copy / "config.toml", copy / "metrics.jsonl")} == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    forget_after(tmp_path / "cut", -1)
    run.resume(tmp_path / "cut", registry=REGISTRY)
    assert not different(newest(tmp_path / "whole").tensors, newest(tmp_path / "cut").tensors)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def test_training_leaves_threads_and_generators_as_they_were(tmp_path: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        train(tmp_path / "run", overrides={"compute.threads": 2})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


STATES = {
    "a numpy number": lambda method: {"x": np.float32(1)},
    "a tensor": lambda method: {"x": torch.zeros(1)},
    "a key that is no name": lambda method: {1: 2},
    "an exception": lambda method: 1 / 0,
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_that_json_cannot_hold_is_named_before_training(what: str, tmp_path: Path) -> None:
    spec = broken("after_d_step", lambda method, step: None)
    spec.load().state_dict = STATES[what]
    with pytest.raises(PluginError, match="plugin 'broken': state_dict must return plain numbers"):
        train(tmp_path / "run", ["broken"], registry=registry_with(spec))


def test_drawing_from_a_global_generator_is_refused(tmp_path: Path) -> None:
    np.random.rand()  # so that the next draw leaves the words of its state as they are
    for draw in (lambda: torch.rand(()), lambda: torch.tensor(np.random.rand())):
        action = lambda method, step, draw=draw: method.terms(t=step.d["real"].logits.mean() * draw())  # noqa: E731
        with pytest.raises(PluginError, match="draws from the global generator.*step.rng"):
            train(tmp_path / "run", ["broken"], registry=registry_with(broken("d_loss", action)))


def test_default_folders_are_claimed_one_by_one(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from gancore.run_folder import claim_default

    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda n: claim_default(tmp_path / "runs", f"label{n % 2}"), range(24)))
    assert len({path.name[:3] for path in claimed}) == 24
    assert all(path.is_dir() for path in claimed)


def test_evaluations_without_metrics_and_several_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no method of the run has metrics"):
        train(tmp_path / "run", overrides={"output.evaluate_every": 2})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2: training on several devices is not there yet"):
        train(tmp_path / "other")


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    def metric(method, samples):
        assert samples.generate(3, 0).shape == (3, 1, 16, 16)
        assert torch.equal(samples.generate(3, 0), samples.generate(3, 0))
        return {"distance": 1.0 if samples.step == 2 else 5.0}

    overrides = {
        "train.steps": 8,
        "output.keep": 2,
        "output.evaluate_every": 2,
        "output.keep_best": "distance",
    }
    train(tmp_path / "run", ["broken"], overrides, registry_with(broken("evaluate", metric)))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2, 6, 8]
    metrics = [row["metrics"] for row in rows(tmp_path / "run") if "metrics" in row]
    assert metrics == [{"distance": 5.0}, {"distance": 1.0}] + [{"distance": 5.0}] * 3


def test_the_best_is_sought_among_scores_of_one_protocol(tmp_path: Path) -> None:
    def metric(method, samples):
        value, count = (1.0, 10) if samples.step == 2 else (3.0 if samples.step == 4 else 5.0, 20)
        return {"distance": Score(value, "lower", {"samples": count})}

    overrides = {"train.steps": 8, "output.keep": 2, "output.evaluate_every": 2, "output.keep_best": "distance"}
    train(tmp_path / "run", ["broken"], overrides, registry_with(broken("evaluate", metric)))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [4, 6, 8]


def test_samples_depend_on_the_seed_and_come_from_the_average(finished: Path) -> None:
    loaded = gancore.load(finished)
    first = loaded.sample(5, seed=3)
    assert first.shape == (5, 1, 16, 16)
    assert torch.equal(first, gancore.load(finished).sample(5, seed=3))
    assert not torch.equal(first, loaded.sample(5, seed=4))
    torch.testing.assert_close(first[:3], loaded.sample(3, seed=3), rtol=1e-5, atol=1e-6)
    assert loaded.class_names == [str(digit) for digit in range(10)]
    assert torch.equal(loaded.sample(2, label="7"), loaded.sample(2, label=7))
    with pytest.raises(ConfigError, match="class 11 is outside 0 … 9"):
        loaded.sample(1, label=11)
    with pytest.raises(ConfigError, match="unknown class 'seven'"):
        loaded.sample(1, label="seven")


def test_no_file_of_a_run_holds_a_pickle(finished: Path) -> None:
    for path in finished.rglob("*"):
        if path.is_file():
            assert b"\x80\x04\x95" not in path.read_bytes()[:16], path
    assert {p.suffix for p in finished.rglob("*") if p.is_file()} <= {
        ".toml",
        ".jsonl",
        ".json",
        ".safetensors",
        ".png",
        "",
    }


def test_state_names_are_stable(finished: Path) -> None:
    names = newest(finished).tensors
    assert {"g", "d", "ema", "methods"} <= {name.split(".")[0] for name in names}
    assert "methods.head.linear.weight" in names
    assert "optimizer.d/methods.head.linear.weight/exp_avg" in names
