"""The method in a run: terms by hand from D's features, who trains, claims, mixes, resume."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gancore
from gancore.api import Claims, ConfigError, Method, MethodSpec, PluginError, hookimpl
from gancore.specs import check_claims, conflicts, warnings_of
from gancore.testing import different, registry_with, run_steps, skip_without, tiny_config, tiny_session
from gancore_augself import SPEC
from gancore_augself.options import AugSelfOptions
from gancore_diffaugment import functional as diffaugment

SETTINGS = {
    "biggan": {},
    "plus": {"augself.preset": "plus", "network.name": "sngan"},
    "stylegan2": {"augself.preset": "stylegan2"},
    "low_shot_cats": {"augself.preset": "low_shot_cats"},
    "squared norm": {"augself.reduction": "sum_dims", "augself.head": "linear", "augself.tap": "trunk"},
    "parts": {"augself.policy": "cutout,color", "augself.heads": "contrast,cutout", "augself.lambda_g": 3.0},
}


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    total = trainer.loss(step)
    return step, total


def by_hand(session, step, side: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction, w) of each head: D forwarded twice by the test, the rest in numpy and in loops."""
    method = session.manager.methods["augself"]
    chosen, d = method.options, session.trainer.discriminator
    draw = {name: value.numpy() for name, value in step.augmentation[side]["augself"].items()}
    with torch.no_grad():
        after, before = (
            d.features(step.built[name].detach(), None)[chosen.tap].flatten(1).numpy()
            for name in (side, f"{side}_raw")
        )
    height, width = step.built[side].shape[2:]
    names = chosen.heads if chosen.heads != "all" else chosen.policy
    pairs = []
    for word in names.split(","):
        head = method._heads.maps[word]
        weight = head.weight.detach().numpy() * getattr(head, "gain", 1.0)
        predicted = (after - before) @ weight.T + head.bias.detach().numpy()
        w = np.zeros_like(predicted)
        for i in range(len(w)):
            if word == "color":
                w[i] = [draw[name][i] for name in ("brightness", "saturation", "contrast")]
            elif word == "contrast":
                w[i] = draw["contrast"][i]
            for k, size in enumerate((height, width)):
                if word == "translation":
                    w[i, k] = draw["translation"][i, k] / (2 * int(size * chosen.translation + 0.5)) + 0.5
                elif word == "cutout":
                    w[i, k] = draw["cutout"][i, k] / (size - int(size * chosen.cutout + 0.5) % 2)
        pairs.append((predicted, w))
    return pairs


def squared(p: np.ndarray, w: np.ndarray, reduction: str) -> float:
    return float(((p - w) ** 2).mean() if reduction == "mean" else ((p - w) ** 2).sum(1).mean())


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_terms_equal_a_computation_by_hand(setting: str) -> None:
    session = tiny_session(["augself"], {"compute.precision": "float64", **SETTINGS[setting]})
    method = session.manager.methods["augself"]
    reduction = method.options.reduction
    step, _ = forwarded(session)
    step.caller = "augself"
    terms = method.d_loss(step)
    for side, sign in (("real", 1), ("fake", -1)):
        expected = sum(squared(p, sign * w, reduction) for p, w in by_hand(session, step, side))
        assert float(terms[f"predict_{side}"].detach()) == pytest.approx(expected, rel=1e-9)
    step, _ = forwarded(session, "g")
    step.caller = "augself"
    pairs = by_hand(session, step, "fake")
    expected = sum(squared(p, w, reduction) - squared(p, -w, reduction) for p, w in pairs)
    linear = -4 * sum((p * w).mean() if reduction == "mean" else (p * w).sum(1).mean() for p, w in pairs)
    assert expected == pytest.approx(linear, rel=1e-6)
    assert float(method.g_loss(step)["fool"].detach()) == pytest.approx(expected, rel=1e-7)
    session.close()


@pytest.mark.parametrize(("d", "g"), [(1.0, 1.0), (0.1, 0.1), (1.0, 0.2), (0.5, 0.0)])
def test_the_factors_weigh_the_terms(d: float, g: float) -> None:
    session = tiny_session(["augself"], {"augself.lambda_d": d, "augself.lambda_g": g, "augself.weight": 2.0})
    weights = {t.name: t.weight for t in session.plan.declarations.terms if t.method == "augself"}
    expected = {"predict_real": 2 * d, "predict_fake": 2 * d} | ({"fool": 2 * g} if g else {})
    assert weights == pytest.approx(expected)
    session.close()


def test_without_both_factors_only_the_augmentation_is_left() -> None:
    session = run_steps(tiny_session(["augself"], {"augself.lambda_d": 0.0, "augself.lambda_g": 0.0}), 1)
    assert not session.trainer.modules.modules
    assert [name for name, _ in session.trainer.chain.links] == ["augself"]
    session.close()


def test_without_both_factors_it_is_a_plain_augmentation() -> None:
    off = AugSelfOptions(lambda_d=0, lambda_g=0, tap="no-such-tap")
    claims = SPEC.claims(off)
    assert claims.tags == {"augments-scored-images"}
    assert [need.capability for need in claims.needs] == ["data:image"]
    session = tiny_session(["augself"], {"augself.lambda_d": 0.0, "augself.lambda_g": 0.0, "augself.tap": "none"})
    session.close()


def test_what_cannot_be_seen_at_this_shape_is_told() -> None:
    session = tiny_session(["augself"], {"augself.translation": 0.01})
    assert [text for text in session.warnings if "predict saturation, translation" in text]
    session.close()


def test_gs_gradient_flows_through_both_features() -> None:
    """At G's images it is the sum of what comes through T and of what comes past it."""
    session = tiny_session(["augself"], {"compute.precision": "float64"})
    method = session.manager.methods["augself"]
    step, _ = forwarded(session, "g")
    step.caller = "augself"
    images = step.built["fake_raw"]
    (got,) = torch.autograd.grad(method.g_loss(step)["fool"], images)
    d, draw = session.trainer.discriminator, step.augmentation["fake"]["augself"]
    x = images.detach().requires_grad_()

    def fool(through: Tensor, past: Tensor) -> Tensor:
        t = diffaugment.augment(through, draw, "color,translation,cutout")
        difference = d.features(t, None)["pooled"] - d.features(past, None)["pooled"]
        w = {word: method._target(draw, word, torch.float64) for word in method._operations}
        return sum(-4 * (p * w[word]).mean() for word, p in method._heads(difference).items())

    (through,) = torch.autograd.grad(fool(x, x.detach()), x)
    (past,) = torch.autograd.grad(fool(x.detach(), x), x)
    assert float(through.abs().max()) > 0 < float(past.abs().max())
    torch.testing.assert_close(got, through + past, rtol=1e-8, atol=1e-12)
    session.close()


@pytest.mark.parametrize("head", ["spectral", "linear", "equalised"])
def test_heads_train_with_d_and_are_frozen_for_g(head: str) -> None:
    session = tiny_session(["augself"], {"augself.head": head})
    trainer, module = session.trainer, session.manager.methods["augself"]._heads
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainer.update("g", 0)
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    trainer.update("d", 0)
    assert all(not torch.equal(before[name], p) for name, p in module.named_parameters())
    session.close()


def test_d_learns_to_predict_and_the_signs_part() -> None:
    """A short run: real predictions end on w's side, fake ones on -w's."""
    session = tiny_session(
        ["augself"],
        {"augself.policy": "brightness", "optimizer.d.lr": 2e-3, "augself.head": "linear", "train.batch": 16},
    )
    for _ in range(80):
        session.trainer.update("d", 0)
        session.trainer.step_index += 1
    step, _ = forwarded(session)
    step.caller = "augself"
    method = session.manager.methods["augself"]
    with torch.no_grad():
        means = {side: float(method.predictions(step, side)["brightness"][0].mean()) for side in ("real", "fake")}
    assert means["real"] > 0.15
    assert means["fake"] < -0.15
    session.close()


def test_one_draw_serves_image_and_target() -> None:
    session = tiny_session(["augself"])
    step, _ = forwarded(session)
    for side in ("real", "fake"):
        draw = step.augmentation[side]["augself"]
        image = diffaugment.augment(step.built[f"{side}_raw"], draw, "color,translation,cutout")
        assert torch.equal(step.built[side], image)
    session.close()


def test_presets_are_the_published_settings() -> None:
    from gancore.options import resolve_options

    def of(preset: str) -> tuple:
        o, _ = resolve_options(AugSelfOptions, {"preset": preset}, where="augself.")
        return o.lambda_d, o.lambda_g, o.head_words, o.translation, o.cutout, o.policy

    every, canonical = ("color", "translation", "cutout"), "color,translation,cutout"
    assert of("biggan") == (1, 1, every, 0.125, 0.5, canonical)
    assert of("plus") == (1, 1, every, 0.25, 0.75, canonical)
    assert of("stylegan2") == (1, 0.2, every, 0.125, 0.5, canonical)
    assert of("low_shot") == (1, 1, ("color",), 0.125, 0.5, canonical)
    assert of("low_shot_cats") == (0.1, 0.1, ("color",), 0.125, 0.5, canonical)


MIXES = {
    "hinge + r1": (["hinge", "r1"], {}),
    "r1 through the augmentation": (["r1"], {"r1.through_augmentation": True}),
    "adaptivemix paper": (["adaptivemix"], {}),
    "adaptivemix official": (["adaptivemix"], {"adaptivemix.preset": "official"}),
    "wgan + gp": (["wgan", "gp"], {"wgan.clip": 0.0}),
    "conditional": ([], {"data.conditional": True, "network.name": "sngan"}),
    "bf16": ([], {"compute.precision": "bf16"}),
    "one by one": ([], {"compute.execution": "sequential", "augself.preset": "stylegan2"}),
    "power iteration a view": ([], {"train.spectral_norm": "per_view"}),
    "several critics": ([], {"train.n_critic": 2}),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    skip_without(plugins)
    session = run_steps(tiny_session(["augself", *plugins], overrides), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


@pytest.mark.parametrize(("plugins", "options"), [(["kdd"], {"kdd.as_term": True}), (["icr"], {})])
def test_it_mixes_with_methods_of_other_distributions(plugins: list[str], options: dict) -> None:
    skip_without(plugins)
    session = run_steps(tiny_session(["augself", "hinge", *plugins], options), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_a_resumed_run_is_the_unbroken_one_and_logs_every_head(tmp_path: Path) -> None:
    config = tiny_config(["augself"], {"output.snap": 2, "compute.device": "cpu"})
    whole = gancore.train(config, outdir=tmp_path / "whole")
    broken = gancore.train(config, outdir=tmp_path / "broken")
    for file in broken.folder.checkpoints.glob("step-00000004.*"):
        file.unlink()
    resumed = gancore.run.resume(broken.path)
    first, second = (gancore.checkpoint.load_latest(run.folder.checkpoints).tensors for run in (whole, resumed))
    assert any("methods.augself.heads" in name for name in first)
    assert different(first, second) == []
    logged = set(whole.metrics[-1])
    heads = ("color", "translation", "cutout")
    assert {f"augself/{word}.{part}" for word in heads for part in ("real", "fake", "fool")} <= logged
    assert {"augself/predict_real.d", "augself/predict_fake.d", "augself/fool.g"} <= logged


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"policy": "colour"}, "unknown word 'colour' in policy; did you mean 'color'?"),
        ({"heads": "translate"}, "unknown word 'translate' in heads; did you mean 'translation'?"),
        (
            {"heads": "cutout", "policy": "color"},
            "heads names 'cutout', but the policy 'color' applies no cutout",
        ),
        ({"heads": "color", "policy": "contrast"}, "applies no brightness and no saturation; add it to policy"),
        ({"heads": "color,contrast"}, "heads names contrast by 'color' and by 'contrast'"),
        ({"heads": ""}, "heads is empty; name a word of the policy, or use -p diffaugment"),
        ({"policy": ""}, "policy is empty, so there is nothing to predict"),
        ({"lambda_d": 0.0}, "only D trains the heads"),
        ({"translation": 2.0}, "augself.translation = 2.0: expected a value <= 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(
    overrides: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_session(["augself"], {f"augself.{name}": value for name, value in overrides.items()})
    assert message in str(caught.value)


def test_what_cannot_be_mixed_names_both_and_a_way_out() -> None:
    with pytest.raises(PluginError) as caught:
        tiny_session(["augself", "diffaugment"])
    for part in (
        "augment:diffaugment",
        "'augself' and 'diffaugment'",
        "drop -p diffaugment",
        "set augself.policy",
    ):
        assert part in str(caught.value)
    hiding = Claims(tags=frozenset({"hides-parameters"}))
    with pytest.raises(
        PluginError, match="'augself' and 'ada' cannot be mixed: heads must know.*drop -p augself"
    ):
        check_claims({"augself": SPEC.claims(AugSelfOptions()), "ada": hiding}, None)
    with pytest.raises(PluginError, match="'augself' needs tap:middle .*augself.tap"):
        tiny_session(["augself"], {"augself.tap": "middle"})
    with pytest.raises(PluginError, match="'augself' needs data:image: it augments images; drop -p augself"):
        tiny_session(["augself"], {"network.name": "mlp"})
    assert "augments-scored-images" not in SPEC.claims(AugSelfOptions()).tags


def test_warnings_name_the_contradiction() -> None:
    moving = Claims(tags=frozenset({"invariant:translation"}))
    (text,) = warnings_of({"augself": SPEC.claims(AugSelfOptions()), "icr": moving})
    assert "augself with icr" in text
    assert "icr.transform = flip" in text
    still = SPEC.claims(AugSelfOptions(heads="color"))
    assert warnings_of({"augself": still, "icr": moving}) == []
    other = Claims(tags=frozenset({"augments-scored-images"}))
    (text,) = conflicts({"augself": still, "other": other})
    assert "can explain only what augself applies" in text
    (text,) = SPEC.claims(AugSelfOptions(saturation=0.0)).warnings
    assert "predict saturation, which cannot be seen at strength 0" in text
    assert SPEC.claims(AugSelfOptions(saturation=0.0, heads="cutout")).warnings == ()


def test_a_strength_of_zero_is_guarded() -> None:
    session = run_steps(tiny_session(["augself"], {"augself.translation": 0.0, "augself.cutout": 0.0}), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


class _Stranger(Method):
    """An augmenter that says nothing of itself."""

    @hookimpl
    def augment(self, run):  # type: ignore[no-untyped-def]
        return _Link()


@dataclass
class _Link:
    sides: tuple[str, ...] = ("fake",)

    def draw(self, step, side, shape):  # type: ignore[no-untyped-def]
        return {"flip": torch.zeros(shape[0])}

    def transform(self, images, draw):  # type: ignore[no-untyped-def]
        return images.flip(-1)


def test_another_link_of_the_chain_is_refused_before_the_first_step(tmp_path: Path) -> None:
    """Its part of the difference between the two features is in no target."""
    sys.modules["augself_test_stranger"] = sys.modules[__name__]
    registry = registry_with(
        MethodSpec(name="stranger", summary="Flips.", target="augself_test_stranger:_Stranger")
    )
    with pytest.raises(PluginError, match=r"'augself' predicts .* fake images .* and 'stranger' is part of"):
        gancore.train(tiny_config(["augself", "stranger"]), registry=registry, outdir=tmp_path / "run")


def test_the_package_imports_no_torch() -> None:
    code = "import sys, gancore_augself as p; p.SPEC.claims(p.SPEC.options()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
