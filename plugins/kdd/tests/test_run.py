"""What KDD remembers across steps, resumed runs, and runs with other methods."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import gancore
from gancore import checkpoint, run
from gancore.testing import different, run_steps, skip_without, tiny_config, tiny_session
from gancore_kdd import functional
from gancore_kdd.modules import Memory

SMALL = {"data.fraction": 0.03, "train.batch": 8}


def record(monkeypatch):
    """Calls of the log-ratios and of the memory, in order."""
    calls: list[tuple] = []
    ratios, recall = functional.log_ratios, Memory.recall

    def log_ratios(real, fake, *args, **more):
        found = ratios(real, fake, *args, **more)
        calls.append(("ratios", real.detach().clone(), more))
        return found

    def recalled(self, images, variants, otherwise):
        found = recall(self, images, variants, otherwise)
        assert not found.requires_grad
        calls.append(("recall", otherwise.detach().clone(), found.clone()))
        return found

    monkeypatch.setattr(functional, "log_ratios", log_ratios)
    monkeypatch.setattr(Memory, "recall", recalled)
    return calls


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("in_g", ["fresh", "cache"])
def test_dagger_equals_a_dictionary_of_features(monkeypatch, mirror: bool, in_g: str) -> None:
    """Each image (and each mirror image) stands for itself with the features that D last had for it."""
    given = {"kdd.dagger": True, "kdd.reals_in_g": in_g, "data.mirror": mirror, "train.n_critic": 2, **SMALL}
    session = tiny_session(["kdd"], given)
    calls = record(monkeypatch)
    loader, remembered, hits = session.loader, {}, 0
    for step in range(8):
        calls.clear()
        session.trainer.train_step()
        phases = [("d", (2 * step + critic) * 8) for critic in range(2)]
        phases += [("g", step * 8)] if in_g == "cache" else []
        recalls = [call for call in calls if call[0] == "recall"]
        assert len(recalls) == len(phases)
        for (network, start), (_, now, found) in zip(phases, recalls, strict=True):
            images, flipped = loader.chosen(network, start, 8)
            keys = list(zip(images.tolist(), flipped.tolist(), strict=True))
            for row, key in enumerate(keys):
                hits += key in remembered
                assert torch.equal(found[row], remembered.get(key, now[row]))
            if network == "d":
                remembered.update(zip(keys, now, strict=True))
        for _, real, more in (call for call in calls if call[0] == "ratios"):
            if more["real_points"]:
                torch.testing.assert_close(more["memory"], recalls.pop(0)[2])
            elif in_g == "cache":
                assert torch.equal(real, recalls.pop(0)[2])
    assert hits > 20
    memory = session.manager.methods["kdd"].memory
    assert int(memory.filled.sum()) == len(remembered)
    assert memory.features.shape[1] == 1 + mirror
    session.close()


def test_dagger_hides_the_own_memory_from_each_real(slow) -> None:
    """Leave-one-out takes away the remembered row of the same image; the loss equals the loop."""
    given = {"compute.precision": "float64", "kdd.dagger": True, "kdd.anchors": 1, **SMALL}
    session = run_steps(tiny_session(["kdd"], given), 12)
    session.trainer.telemetry.flush()
    step, _ = slow.forwarded(session)
    memory = session.manager.methods["kdd"].memory
    assert bool(memory.filled[step.indices].all())
    phi = {side: step.outputs[side]["kdd.phi"] for side in ("real", "fake")}
    copies = {side: step.outputs[f"kdd.{side}_copies"]["kdd.phi"] for side in ("real", "fake")}
    kept = torch.cat((memory.features[step.indices, 0], copies["real"]))
    fake = torch.cat((phi["fake"], copies["fake"]))
    assert not torch.allclose(kept[:8], phi["real"])
    expected = slow.hinge(*slow.ratios(phi["real"], fake, 8, 8, 1.0, memory=kept))
    session.trainer.telemetry.commit()
    assert session.trainer.telemetry.flush()["kdd/hinge.d"]["mean"] == pytest.approx(expected, rel=1e-9)
    session.close()


def test_the_last_reals_of_d_serve_in_g_without_a_forward(monkeypatch) -> None:
    given = {"kdd.reals_in_g": "last", "kdd.anchors": 2, "kdd.anchors_in_g": 0}
    session = tiny_session(["kdd"], given)
    assert not session.plan.full_program("g").needs_reals
    assert session.plan.full_program("g").rows() == 1
    calls = record(monkeypatch)
    run_steps(session, 2)
    in_d, in_g = [call for call in calls if call[0] == "ratios"][-2:]
    assert in_d[2]["real_points"] == 8
    assert len(in_g[1]) == 24
    assert torch.equal(in_d[1], in_g[1])
    session.close()


RUNS = {
    "objective, copies, labels": (["kdd"], {"kdd.preset": "da3", "data.conditional": True}),
    "joint, dagger, mirror": (["hinge", "kdd"], {"kdd.preset": "joint_dagger", "data.mirror": True, **SMALL}),
    "last, jacobian": (["kdd"], {"kdd.reals_in_g": "last", "kdd.lambda_jac": 1e-5, "network.name": "sngan"}),
    "augmented": (["diffaugment", "kdd"], {"kdd.augmented": True, "kdd.anchors": 1}),
    "with adaptivemix and r1": (
        ["adaptivemix", "hinge", "kdd", "r1"],
        {"adaptivemix.tap": "kdd.phi_un", "kdd.as_term": True, "r1.every": 2},
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_resumed_run_is_bit_equal(case: str, tmp_path: Path) -> None:
    plugins, overrides = RUNS[case]
    skip_without(plugins)
    given = {"output.log_every": 2, "output.snap": 2, "output.keep": 9, "train.steps": 6, **overrides}
    whole, broken_off = tmp_path / "whole", tmp_path / "broken"
    gancore.train(tiny_config(plugins, given), outdir=whole)
    shutil.copytree(whole, broken_off)
    for suffix in ("json", "safetensors"):
        (broken_off / "checkpoints" / f"step-00000006.{suffix}").unlink()
    run.resume(broken_off)
    first, second = (checkpoint.load_latest(path / "checkpoints") for path in (whole, broken_off))
    assert first.step == second.step == 6
    assert not different(first.tensors, second.tensors)


def test_execution_one_by_one_trains_the_same(slow) -> None:
    """Views of a group are concatenated or not; the derived taps and the densities do not change."""
    totals = []
    for execution in ("concat", "sequential"):
        given = {"compute.execution": execution, "compute.precision": "float64", "kdd.anchors": 2}
        session = tiny_session(["kdd"], {**given, "network.name": "sngan", "kdd.lambda_jac": 0.1})
        totals.append(slow.forwarded(session)[1].detach())
        session.close()
    torch.testing.assert_close(*totals, rtol=1e-12, atol=0)


def test_a_projection_larger_than_d_is_warned_of() -> None:
    for dimension, told in ((0, True), (2, False)):
        session = tiny_session(["kdd"], {"kdd.feature_dim": dimension})
        assert bool([text for text in session.warnings if "kdd.feature_dim = 8 makes it smaller" in text]) == told
        session.close()
