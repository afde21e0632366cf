"""What only a GPU can show: no host sync in a step, exact resume on the device, bf16 and channels-last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from methods_for_tests import ALL

import gancore
from gancore import checkpoint, run
from gancore.graphs import EAGER_FIRST
from gancore.testing import (
    different,
    largest_relative_difference,
    registry_with,
    run_steps,
    tiny_config,
    tiny_session,
    training_tensors,
)

pytestmark = pytest.mark.gpu

REGISTRY = registry_with(*ALL)
MIX = ["adaptivemix", "shrink", "head", "brighten", "r1"]


@pytest.mark.parametrize("network", ["dcgan", "sngan"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_never_waits_for_the_device(network: str, precision: str) -> None:
    overrides = {
        "network.name": network,
        "compute.device": "cuda",
        "compute.precision": precision,
        "compute.memory_format": "channels_last",
        "data.conditional": True,
        "r1.every": 2,
    }
    session = run_steps(
        tiny_session(MIX, overrides, REGISTRY), 3 * (EAGER_FIRST + 3)
    )  # every program is recorded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_steps(session, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert session.trainer.telemetry.is_finite()
    session.close()


@pytest.mark.parametrize("network", ["dcgan", "sngan"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_hundred_replayed_steps_agree_with_eager_ones(network: str, precision: str) -> None:
    overrides = {
        "network.name": network,
        "compute.device": "cuda",
        "compute.precision": precision,
        "data.conditional": True,
        "r1.every": 3,
    }
    mix = ["adaptivemix", "ada", "shrink", "head", "brighten", "r1"]
    sessions = [tiny_session(mix, {**overrides, "compute.graphs": graphs}, REGISTRY) for graphs in (True, False)]
    replayed, eager = (run_steps(session, 100) for session in sessions)
    assert replayed.trainer.graphs.notes == []
    assert replayed.trainer.graphs.replayed > 150
    ours, theirs = (session.trainer.telemetry.flush() for session in sessions)
    for name in theirs:
        if name.startswith("loss/"):
            assert ours[name]["mean"] == pytest.approx(theirs[name]["mean"], rel=1e-2, abs=1e-2), name
    tolerance = 1e-3 if precision == "float32" else 5e-2
    assert largest_relative_difference(training_tensors(replayed), training_tensors(eager)) < tolerance


def test_resume_is_bit_equal_on_the_device(tmp_path: Path) -> None:
    config = tiny_config(MIX, {"compute.device": "cuda", "train.steps": 6, "output.snap": 2, "output.keep": 9})
    gancore.train(config, outdir=tmp_path / "whole", registry=REGISTRY)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (4, 6):
        (tmp_path / f"cut/checkpoints/step-{step:08d}.json").unlink()
    run.resume(tmp_path / "cut", registry=REGISTRY)
    first, second = (checkpoint.load_latest(tmp_path / n / "checkpoints").tensors for n in ("whole", "cut"))
    assert not different(first, second)


def test_a_checkpoint_of_the_gpu_samples_on_the_cpu(tmp_path: Path) -> None:
    config = tiny_config([], {"compute.device": "cuda", "train.steps": 2})
    trained = gancore.train(config, outdir=tmp_path / "run")
    here, there = trained.sample(4, device="cpu"), trained.sample(4, device="cuda")
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


def test_a_device_that_is_not_there_is_named() -> None:
    from gancore.errors import DeviceError

    with pytest.raises(DeviceError, match="CUDA devices"):
        tiny_session([], {"compute.device": "cuda:99"})
