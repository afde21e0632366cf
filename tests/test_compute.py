"""What a run computes in where the configuration leaves it open."""

from __future__ import annotations

import functools

import pytest
import torch

from gancore import compute
from gancore.compute import choose, choose_device, has_fast_bf16
from gancore.errors import CheckpointError, ConfigError, DeviceError
from gancore.run import resume, train
from gancore.sections import ComputeOptions
from gancore.testing import (
    largest_relative_difference,
    run_steps,
    tiny_config,
    tiny_session,
    training_tensors,
)


@pytest.mark.parametrize("name", ["cuda:99", "cuda:999", "cuda:100000"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{name}' was asked for; this machine has"):
        choose_device(name)


@pytest.mark.parametrize("name", ["quantum", "cuda:-1", "cuda:x", "meta", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.fixture(params=[True, False], ids=["fast bf16", "no fast bf16"])
def fast(request, monkeypatch) -> bool:
    """A CPU that has matrix units for bf16, or one that has none."""
    flags = {"avx2", "avx512_bf16", *(["amx_bf16"] if request.param else [])}
    monkeypatch.setattr(compute, "cpu_flags", lambda: frozenset(flags))
    return request.param


def test_auto_follows_the_machine_and_the_data(fast) -> None:
    cpu = ComputeOptions(device="cpu")
    assert has_fast_bf16(torch.device("cpu")) is fast
    images, points = choose(cpu, "image"), choose(cpu, "points")
    assert (images.precision, images.layout) == ("bf16" if fast else "float32", "channels_last")
    assert (points.precision, points.layout) == ("float32", "contiguous")


def test_what_is_asked_for_is_what_is_used(fast) -> None:
    for precision in ("float32", "bf16", "float64"):
        for layout in ("contiguous", "channels_last"):
            options = ComputeOptions(device="cpu", precision=precision, memory_format=layout)
            chosen = choose(options, "points")
            assert (chosen.precision, chosen.layout) == (precision, layout)
            assert chosen.dtype == (torch.float64 if precision == "float64" else torch.float32)
    assert choose(ComputeOptions(device="cpu", precision="float64"), "image").layout == "contiguous"


def test_networks_run_in_what_was_chosen(fast) -> None:
    session = tiny_session(overrides={"compute.precision": "auto"})
    convolutions = [m for m in session.trainer.discriminator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    types = set()
    convolutions[0].register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
    session.trainer.train_step()
    assert types == {torch.bfloat16 if fast else torch.float32}
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_a_resume_in_another_type_is_refused(tmp_path, monkeypatch) -> None:
    config = tiny_config([], {"compute.precision": "auto", "compute.device": "cpu", "train.steps": 2})
    monkeypatch.setattr(compute, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    run = train(config, outdir=tmp_path)
    monkeypatch.setattr(compute, "cpu_flags", lambda: frozenset())
    with pytest.raises(CheckpointError, match="precision: bf16 -> float32"):
        resume(run.path, overrides={"train.steps": 4})
    resume(run.path, overrides={"train.steps": 4}, allow_inexact=True)


def test_flags_are_read_from_linux_and_are_nothing_elsewhere(tmp_path, monkeypatch) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text("model name\t: one\nflags\t\t: fpu amx_bf16 avx2\nbugs\t: none\n", encoding="utf-8")
    monkeypatch.setattr(compute, "Path", lambda _: listed)
    assert compute.cpu_flags() == {"fpu", "amx_bf16", "avx2"}
    listed.unlink()
    assert compute.cpu_flags() == frozenset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler reads it
def test_compiled_networks_train_alike_and_penalties_pass_by(monkeypatch) -> None:
    # All of the compiler but its last stage, which writes C++ and takes minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    overrides = {"compute.compile": True, "r1.every": 2, "train.steps": 2}
    compiled = run_steps(tiny_session(["r1"], overrides), 2)
    plain = run_steps(tiny_session(["r1"], {**overrides, "compute.compile": False}), 2)
    assert largest_relative_difference(training_tensors(compiled), training_tensors(plain)) < 1e-2
    found = compiled.trainer.telemetry.flush()
    for name, moment in plain.trainer.telemetry.flush().items():
        assert found[name]["mean"] == pytest.approx(moment["mean"], rel=1e-3, abs=1e-4), name
