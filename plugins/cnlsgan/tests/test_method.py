"""The method in a run: every term by hand from D and G, switches, mixes, resume, bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gancore
from gancore import checkpoint
from gancore.api import Claims, ConfigError, Method, MethodSpec, PluginError, hookimpl
from gancore.run import resume
from gancore.specs import check_claims, warnings_of
from gancore.testing import (
    different,
    registry_with,
    run_steps,
    skip_without,
    tiny_config,
    tiny_session,
    training_tensors,
)
from gancore_cnlsgan import SPEC
from gancore_cnlsgan.method import ALPHA
from gancore_cnlsgan.options import CnLsganOptions

EXTRAS = {"cnlsgan.adv": False}


class Grain(Method):
    """An augmenter whose draw shows in every pixel: it adds drawn noise."""

    @hookimpl
    def augment(self, run):
        return GrainLink()


class GrainLink:
    """Its link."""

    sides = ("real", "fake")

    def draw(self, step, side, shape):
        return {"noise": step.rng(side).normal(*shape)}

    def transform(self, images, draw):
        return 0.5 * images + draw["noise"].to(images.dtype)


class Watcher(Method):
    """Reads the objective's margin, as a controller does."""

    @hookimpl
    def declare(self, plan):
        plan.watch(margins=("real", "fake"))

    @hookimpl
    def observe(self, step):
        self.seen = {side: step.margin(side) for side in ("real", "fake")}


def spreading(options):
    return Claims(tags=frozenset({"spreads-fakes"}))


GRAIN = MethodSpec(name="grain", summary="Noise, for tests.", target=f"{__name__}:Grain")
WATCHER = MethodSpec(name="watcher", summary="Reads margins, for tests.", target=f"{__name__}:Watcher")
REGISTRY = registry_with(GRAIN, WATCHER)


def forwarded(session, phase="d"):
    trainer = session.trainer
    trainer.set_progress()
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    total = trainer.loss(step)
    return step, total.detach()


def terms_of(session, step):
    """The raw terms in a phase, without a graph."""
    step.caller = "cnlsgan"
    hook = getattr(session.manager.methods["cnlsgan"], f"{step.program.network}_loss")
    return {name: float(value.detach()) for name, value in hook(step).items()}


def numeric_gradient(d, image, label, h=1e-5):
    """d logit / d image by central differences, pixel by pixel."""
    flat = image.flatten()
    moves = h * torch.eye(len(flat), dtype=flat.dtype)
    rows = torch.cat([flat + moves, flat - moves]).reshape(-1, *image.shape)
    labels = None if label is None else label.expand(len(rows))
    with torch.no_grad():
        plus, minus = d.head(d.features(rows, labels), labels).chunk(2)
    return ((plus - minus) / (2 * h)).numpy()


VARIANTS = {
    "plain": ([], {}),
    "augmented, conditional": (["grain"], {"data.conditional": True}),
    "points": ([], {"network.name": "mlp"}),
    "eps": ([], {"network.name": "mlp", "cnlsgan.gp_eps": 0.3}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_terms_of_d_equal_a_computation_from_d_by_hand(variant: str) -> None:
    """The objective on what D sees; the penalty between un-augmented images, with the labels of the reals."""
    plugins, overrides = VARIANTS[variant]
    session = tiny_session(["cnlsgan", *plugins], {"compute.precision": "float64", **overrides}, REGISTRY)
    step, total = forwarded(session)
    d, chosen = session.trainer.discriminator, session.manager.methods["cnlsgan"].options
    logits, raw = {}, {}
    for side in ("real", "fake"):
        raw[side] = step.built.get(f"{side}_raw", step.built[side])
        seen = raw[side]
        if "grain" in plugins:
            seen = 0.5 * seen + step.augmentation[side]["grain"]["noise"].double()
        with torch.no_grad():
            logits[side] = d.head(d.features(seen, step.labels[side]), step.labels[side]).numpy()
    got = terms_of(session, step)
    adv = np.mean((logits["real"] - 1) ** 2) + np.mean(logits["fake"] ** 2)
    assert got["adv"] == pytest.approx(adv, rel=1e-10)
    values = []
    for i, alpha in enumerate(step.stash[ALPHA].double()):
        image = alpha * raw["real"][i] + (1 - alpha) * raw["fake"][i]
        label = None if step.labels["real"] is None else step.labels["real"][i]
        gradient = numeric_gradient(d, image, label)
        values.append((np.sqrt(np.sum(gradient**2) + chosen.gp_eps) - 1) ** 2)
    assert got["gp"] == pytest.approx(np.mean(values), rel=1e-6)
    assert float(total) == pytest.approx(got["adv"] + 10 * got["gp"], rel=1e-12)
    session.close()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"cnlsgan.reduction": "sum"},
        {"network.name": "mlp"},
        {"data.conditional": True, "cnlsgan.lambda_rec": 0.7},
    ],
)
def test_the_terms_of_g_equal_a_computation_from_d_and_g_by_hand(overrides: dict) -> None:
    """The i-th fake against the i-th real of G's own stream of reals, both un-augmented."""
    plugins = [] if "network.name" in overrides else ["grain"]
    session = tiny_session(["cnlsgan", *plugins], {"compute.precision": "float64", **overrides}, REGISTRY)
    step, total = forwarded(session, "g")
    d, g, chosen = (
        session.trainer.discriminator,
        session.trainer.generator,
        session.manager.methods["cnlsgan"].options,
    )
    labels = step.labels["fake"]
    real, _ = session.loader.batch("g", 0, 8)
    with torch.no_grad():
        fake = g(step.latents, labels)
        seen = 0.5 * fake + step.augmentation["fake"]["grain"]["noise"].double() if plugins else fake
        logits = d.head(d.features(seen, labels), labels).numpy()
    squares = ((fake - real) ** 2).flatten(1).numpy()
    rec = np.mean(squares.sum(1) if chosen.reduction == "sum" else squares.mean(1))
    got = terms_of(session, step)
    assert got == pytest.approx({"adv": np.mean((logits - 1) ** 2), "rec": rec}, rel=1e-8)
    assert float(total) == pytest.approx(got["adv"] + chosen.lambda_rec * rec, rel=1e-8)
    session.close()


def test_it_is_twice_lsgan_where_the_extras_are_off() -> None:
    """No halves: with the factor 1 the included lsgan is the same objective."""
    off = {"cnlsgan.lambda_gp": 0.0, "cnlsgan.lambda_rec": 0.0}
    first = run_steps(tiny_session(["cnlsgan"], off), 2)
    second = run_steps(tiny_session(["lsgan"], {"lsgan.factor": 1.0}), 2)
    assert not different(training_tensors(first), training_tensors(second))


def test_the_extras_stand_beside_another_objective() -> None:
    session = tiny_session(["cnlsgan", "hinge"], EXTRAS)
    step, _ = forwarded(session)
    assert session.plan.objective == "hinge"
    assert terms_of(session, step).keys() == {"gp"}
    assert step.leaves.keys() == {"cnlsgan.between"}
    step, _ = forwarded(session, "g")
    assert terms_of(session, step).keys() == {"rec"}
    session.close()


def test_the_margin_is_the_distance_from_the_middle_of_the_targets() -> None:
    session = tiny_session(["cnlsgan", "watcher"], {}, REGISTRY)
    step, _ = forwarded(session)
    for side in ("real", "fake"):
        logits = step.outputs[side]["logits"].detach()
        assert torch.equal(session.manager.methods["watcher"].seen[side], logits - 0.5)
    session.close()


SWITCHES = {
    "all": ({}, {("d", "adv"), ("g", "adv"), ("d", "gp"), ("g", "rec")}),
    "no objective": (EXTRAS, {("d", "gp"), ("g", "rec")}),
    "no penalty": ({"cnlsgan.lambda_gp": 0.0}, {("d", "adv"), ("g", "adv"), ("g", "rec")}),
    "no reconstruction": (
        {"cnlsgan.lambda_rec": 0.0, "cnlsgan.rec_decay": "linear"},
        {("d", "adv"), ("g", "adv"), ("d", "gp")},
    ),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_part_can_be_switched_off(switch: str) -> None:
    overrides, expected = SWITCHES[switch]
    session = run_steps(tiny_session(["cnlsgan"], overrides), 1)
    terms = {(t.network, t.name) for t in session.plan.declarations.terms if t.method == "cnlsgan"}
    assert terms == expected
    assert session.plan.objective == ("nonsaturating" if switch == "no objective" else "cnlsgan")
    session.close()


def test_with_every_part_off_the_run_is_that_without_it() -> None:
    off = {**EXTRAS, "cnlsgan.lambda_gp": 0.0, "cnlsgan.lambda_rec": 0.0}
    first, second = run_steps(tiny_session(["cnlsgan"], off), 2), run_steps(tiny_session(), 2)
    assert not different(training_tensors(first), training_tensors(second))


def test_reals_are_read_in_g_only_for_the_reconstruction() -> None:
    assert tiny_session(["cnlsgan"]).plan.full_program("g").needs_reals
    assert not tiny_session(["cnlsgan"], {"cnlsgan.lambda_rec": 0.0}).plan.full_program("g").needs_reals


@pytest.mark.parametrize(
    ("decay", "share", "expected"),
    [
        ("linear", 1.0, [0.1, 0.075, 0.05, 0.025]),
        ("linear", 0.5, [0.1, 0.05, 0, 0]),
        ("cosine", 0.5, [0.1, 0.05, 0, 0]),
    ],
)
def test_the_weight_of_the_reconstruction_decays(
    tmp_path: Path, decay: str, share: float, expected: list[float]
) -> None:
    overrides = {"cnlsgan.rec_decay": decay, "cnlsgan.rec_decay_share": share, "output.log_every": 1}
    rows = gancore.train(tiny_config(["cnlsgan"], overrides), outdir=tmp_path / "run").metrics
    ratios = [row["cnlsgan/rec.g.weighted"] / row["cnlsgan/rec.g"] for row in rows if "cnlsgan/rec.g" in row]
    assert ratios == pytest.approx(expected, rel=1e-5, abs=1e-9)


MIXES = {
    "r1 and augmentation": (["cnlsgan", "r1", "grain"], {}),
    "lazy r1 of its own": (["cnlsgan", "r1"], {"r1.every": 2, "train.lazy": "separate"}),
    "extras beside wgan": (["cnlsgan", "wgan"], {**EXTRAS, "wgan.clip": 0.0, "train.n_critic": 2}),
    "extras beside relativistic": (["cnlsgan", "relativistic"], EXTRAS),
    "reconstruction and gp": (["cnlsgan", "gp"], {"cnlsgan.lambda_gp": 0.0}),
    "points": (["cnlsgan"], {"network.name": "mlp", "cnlsgan.rec_decay": "cosine"}),
    "bf16": (["cnlsgan", "grain"], {"compute.precision": "bf16"}),
    "sngan, conditional": (["cnlsgan"], {"network.name": "sngan", "data.conditional": True}),
    "BatchNorm in D": (["cnlsgan"], {"network.d_norm": "batch", "cnlsgan.lambda_gp": 0.0}),
    "weight": (["cnlsgan"], {"cnlsgan.weight": 0.5}),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    skip_without(plugins, REGISTRY)
    session = run_steps(tiny_session(plugins, overrides, REGISTRY), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    """The decay goes on where it was."""
    config = tiny_config(
        ["cnlsgan", "grain"],
        {"train.steps": 4, "output.snap": 2, "output.log_every": 2, "cnlsgan.rec_decay": "linear"},
    )
    whole = gancore.train(config, registry=REGISTRY, outdir=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for file in (tmp_path / "part" / "checkpoints").iterdir():
        if "00000004" in file.name:
            file.unlink()
    part = resume(tmp_path / "part", registry=REGISTRY)
    first, second = (checkpoint.load_latest(run.folder.checkpoints) for run in (whole, part))
    assert first.step == second.step == 4
    assert not different(first.tensors, second.tensors)


# What it says of itself.


def test_claims_follow_the_options() -> None:
    whole = SPEC.claims(CnLsganOptions())
    assert set(whole.exclusive) == {"objective", "penalty:interpolated"}
    assert whole.offers == {"margin", "scalar-logit"}
    assert whole.tags == {"fixed-targets"}
    assert {need.capability for need in whole.needs} == {"d:uncoupled", "scalar-logit"}
    extras = SPEC.claims(CnLsganOptions(adv=False, lambda_gp=0.0))
    assert (dict(extras.exclusive), extras.offers, extras.tags, extras.needs) == (
        {},
        frozenset(),
        frozenset(),
        (),
    )
    assert SPEC.claims(CnLsganOptions(adv=False, lambda_gp=0.0, lambda_rec=0.0)) == Claims()


REFUSED = {
    "two objectives": (["hinge"], {}, "objective claimed by both 'cnlsgan' and 'hinge'.*cnlsgan.adv = false"),
    "two penalties": (
        ["gp"],
        {},
        "penalty:interpolated claimed by both 'cnlsgan' and 'gp'.*set cnlsgan.lambda_gp = 0; or drop -p gp",
    ),
    "BatchNorm in D": ([], {"network.d_norm": "batch"}, "needs d:uncoupled.*set cnlsgan.lambda_gp = 0"),
    "clipped weights": (["wgan"], EXTRAS, "set wgan.clip = 0"),
    "a share of no decay": ([], {"cnlsgan.rec_decay_share": 0.5}, "no effect with rec_decay = none"),
    "a share of nothing": ([], {"cnlsgan.rec_decay_share": 0.0}, "expected a value > 0"),
    "a share beyond the run": ([], {"cnlsgan.rec_decay_share": 1.5}, "expected a value <= 1"),
    "a negative weight": ([], {"cnlsgan.lambda_rec": -0.1}, "expected a value >= 0"),
    "another decay": ([], {"cnlsgan.rec_decay": "step"}, "cnlsgan.rec_decay = 'step'"),
    "a number for a switch": ([], {"cnlsgan.adv": 1}, "cnlsgan.adv = 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_training(case: str) -> None:
    plugins, overrides, message = REFUSED[case]
    with pytest.raises((ConfigError, PluginError), match=message):
        tiny_session(["cnlsgan", *plugins], overrides)


def test_the_extras_beside_an_objective_without_logits() -> None:
    vector = Claims(exclusive={"objective": "drop it"})
    with pytest.raises(
        PluginError, match="'cnlsgan' needs scalar-logit, which 'kde' does not offer: .*set cnlsgan.lambda_gp = 0"
    ):
        check_claims({"cnlsgan": SPEC.claims(CnLsganOptions(adv=False)), "kde": vector})
    check_claims({"cnlsgan": SPEC.claims(CnLsganOptions(adv=False, lambda_gp=0.0)), "kde": vector})


def test_a_method_that_spreads_fakes_apart_is_a_caution_while_both_pull() -> None:
    def said(options):
        return warnings_of({"cnlsgan": SPEC.claims(options), "far": spreading(None)})

    (text,) = said(CnLsganOptions())
    assert text.startswith("cnlsgan with far: opposing forces")
    assert said(CnLsganOptions(lambda_rec=0.0)) == []


@pytest.mark.parametrize(
    ("options", "warned"),
    [({}, False), ({"lambda_rec": 0.99}, False), ({"lambda_rec": 1.0}, True), ({"reduction": "sum"}, True),
     ({"reduction": "sum", "lambda_rec": 0.001}, False), ({"lambda_rec": 0.0, "reduction": "sum"}, False)],
)  # fmt: skip
def test_a_reconstruction_that_can_outweigh_the_objective_is_warned_of(options: dict, warned: bool) -> None:
    warnings = SPEC.claims(CnLsganOptions(**options)).warnings
    assert bool(warnings) is warned
    assert all("cnlsgan." in text for text in warnings)
