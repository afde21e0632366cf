"""The method in a run: its link, mixes, claims, presets, resume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gancore
from gancore.api import ConfigError, PluginError
from gancore.specs import check_claims
from gancore.testing import different, run_steps, skip_without, tiny_config, tiny_session, training_tensors
from gancore_diffaugment import SPEC, functional
from gancore_diffaugment.options import DiffAugmentOptions


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    trainer.loss(step)
    return step


def test_both_sides_are_augmented_with_draws_of_their_own() -> None:
    session = tiny_session(
        ["diffaugment", "r1"], {"diffaugment.policy": "cutout,color", "diffaugment.cutout": 0.25}
    )
    step = forwarded(session)
    strengths = functional.Strengths(cutout=0.25)
    for side in ("real", "fake"):
        draw = step.augmentation[side]["diffaugment"]
        assert list(draw) == ["cutout", "brightness", "saturation", "contrast"]
        expected = functional.augment(step.built[f"{side}_raw"], draw, "cutout,color", strengths)
        assert torch.equal(step.built[side], expected)
        assert not torch.equal(step.built[side], step.built[f"{side}_raw"])
    draws = [step.augmentation[side]["diffaugment"]["contrast"] for side in ("real", "fake")]
    assert not torch.equal(*draws)
    session.close()


def test_gs_phase_is_augmented_and_its_gradient_flows_through() -> None:
    """With everything erased by a cutout of both sides, D's logits tell G nothing."""
    session = tiny_session(["diffaugment"], {"diffaugment.policy": "translation", "diffaugment.translation": 1.0})
    step = forwarded(session, "g")
    shifts = step.augmentation["fake"]["diffaugment"]["translation"]
    gone = (shifts.abs() >= 16).any(1)
    logits = step.outputs["fake"]["logits"]
    (gradient,) = torch.autograd.grad(logits.sum(), step.built["fake_raw"])
    assert torch.equal(gradient.flatten(1).abs().sum(1) == 0, gone)
    session.close()


IDLE = {
    "empty policy": {"diffaugment.policy": ""},
    "weight 0": {"diffaugment.weight": 0.0},
    "strengths of 0": {
        "diffaugment.policy": "cutout,brightness",
        "diffaugment.cutout": 0,
        "diffaugment.brightness": 0,
    },
    "saturation of grey images": {"diffaugment.policy": "saturation"},
    "a reach of no pixel": {"diffaugment.policy": "translation", "diffaugment.translation": 0.03},
}


@pytest.mark.parametrize("case", IDLE)
def test_what_changes_nothing_is_absent_to_the_bit(case: str) -> None:
    session = run_steps(tiny_session(["diffaugment", "r1"], IDLE[case]), 2)
    plain = run_steps(tiny_session(["r1"]), 2)
    assert not session.trainer.chain.links
    assert different(training_tensors(session), training_tensors(plain)) == []
    session.close()
    plain.close()


def test_it_moves_no_draw_of_another_method_and_no_data() -> None:
    skip_without(["adaptivemix"])
    steps = [forwarded(tiny_session([*plugins, "adaptivemix"])) for plugins in ([], ["diffaugment"])]
    raw = ["real" if "real" in step.built and "real_raw" not in step.built else "real_raw" for step in steps]
    assert raw == ["real", "real_raw"]
    assert torch.equal(*[step.built[name] for step, name in zip(steps, raw, strict=True)])
    assert torch.equal(*[step.latents for step in steps])


MIXES = {
    "hinge + r1": (["hinge", "r1"], {}),
    "r1 through the augmentation": (["r1"], {"r1.through_augmentation": True}),
    "wgan + gp": (["wgan", "gp"], {"wgan.clip": 0.0}),
    "adaptivemix": (["adaptivemix"], {"adaptivemix.preset": "official"}),
    "conditional": ([], {"data.conditional": True}),
    "bf16": ([], {"compute.precision": "bf16"}),
    "float64": (["r1"], {"compute.precision": "float64"}),
    "one by one": (["adaptivemix"], {"compute.execution": "sequential"}),
    "sngan": (["hinge"], {"network.name": "sngan"}),
    "channels last": ([], {"compute.memory_format": "channels_last"}),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    skip_without(plugins)
    session = run_steps(tiny_session(["diffaugment", *plugins], overrides), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path) -> None:
    config = tiny_config(["diffaugment", "r1"], {"train.steps": 4, "output.snap": 2, "compute.device": "cpu"})
    whole = gancore.train(config, outdir=tmp_path / "whole")
    broken = gancore.train({**config, "train.steps": 4}, outdir=tmp_path / "broken")
    for file in broken.folder.checkpoints.glob("step-00000004.*"):
        file.unlink()
    resumed = gancore.run.resume(broken.path)
    first, second = (gancore.checkpoint.load_latest(run.folder.checkpoints).tensors for run in (whole, resumed))
    assert resumed.step == 4
    assert different(first, second) == []


def test_the_presets_are_the_published_policies() -> None:
    policies = {
        "canonical": "color,translation,cutout",
        "biggan_cifar": "translation,cutout",
        "biggan_cifar_cr": "cutout",
        "stylegan2_cifar": "color,cutout",
        "low_shot": "color,translation,cutout",
        "imagenet": "translation",
        "projected_gan": "color,translation,cutout",
    }
    assert set(policies) == set(DiffAugmentOptions.presets)
    for preset, policy in policies.items():
        session = tiny_session(["diffaugment"], {"diffaugment.preset": preset})
        link = dict(session.trainer.chain.links)["diffaugment"]
        assert link.policy == policy
        assert link.strengths == functional.Strengths(cutout=0.2 if preset == "projected_gan" else 0.5)
        session.close()


def test_every_strength_reaches_the_link() -> None:
    values = {"brightness": 0.1, "saturation": 0.2, "contrast": 0.3, "translation": 0.4, "cutout": 0.6}
    session = tiny_session(["diffaugment"], {f"diffaugment.{name}": value for name, value in values.items()})
    assert dict(session.trainer.chain.links)["diffaugment"].strengths == functional.Strengths(**values)
    session.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"policy": "colour"},
            "options of 'diffaugment' do not fit together: unknown word 'colour' in policy; did you",
        ),
        ({"policy": "color,contrast"}, "policy names contrast by 'color' and by 'contrast'"),
        ({"cutout": 1.5}, "diffaugment.cutout = 1.5: expected a value <= 1"),
        ({"brightness": -1.0}, "diffaugment.brightness = -1.0: expected a value >= 0"),
        ({"weight": 0.5}, "weight = 0.5: an augmentation has no term to weigh"),
        ({"preset": "cifar"}, "unknown preset 'cifar' for 'diffaugment.preset'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(overrides, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_session(["diffaugment"], {f"diffaugment.{name}": value for name, value in overrides.items()})
    assert message in str(caught.value)


def test_a_policy_that_changes_no_image_of_this_shape_is_told() -> None:
    session = tiny_session(["diffaugment"], {"diffaugment.policy": "saturation"})
    assert session.warnings == [
        "diffaugment: diffaugment.policy = 'saturation' changes no image of shape 1 x 16 x 16 (grey has no "
        "saturation; shifts and cuts round to pixels)"
    ]
    session.close()


def test_what_it_claims() -> None:
    claims = SPEC.claims(DiffAugmentOptions())
    assert claims.exclusive == {"augment:diffaugment": "drop -p diffaugment"}
    assert claims.tags == {"augments-scored-images"}
    assert SPEC.claims(DiffAugmentOptions(policy="")).tags == frozenset()
    with pytest.raises(
        PluginError, match="claimed by both 'diffaugment' and 'other'; keep one: drop -p diffaugment"
    ):
        check_claims({"diffaugment": claims, "other": claims})


def test_points_are_refused() -> None:
    with pytest.raises(
        PluginError, match="'diffaugment' needs data:image: it augments images; drop -p diffaugment"
    ):
        tiny_session(["diffaugment"], {"network.name": "mlp"})
    session = run_steps(tiny_session(["diffaugment"], {"network.name": "mlp", "diffaugment.policy": ""}), 1)
    session.close()


def test_the_package_imports_no_torch() -> None:
    code = (
        "import sys, gancore_diffaugment as p; p.SPEC.claims(p.SPEC.options()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
