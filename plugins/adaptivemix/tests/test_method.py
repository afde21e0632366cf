"""The method in a run: presets, terms, scores, mixes, its draws."""

from __future__ import annotations

import pytest
import torch

from gancore.api import PluginError
from gancore.testing import run_steps, tiny_session
from gancore_adaptivemix import SPEC, functional
from gancore_adaptivemix.method import DRAW
from gancore_adaptivemix.options import AdaptiveMixOptions


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    trainer.loss(step)
    return step


def test_the_paper_preset_leaves_the_objective_alone_and_trains_only_d() -> None:
    session = tiny_session(["adaptivemix"])
    terms = {(t.network, t.key) for t in session.plan.declarations.terms if t.method == "adaptivemix"}
    assert terms == {("d", "adaptivemix/shrink_real"), ("d", "adaptivemix/shrink_fake")}
    assert session.plan.declarations.scores is None
    session.close()


def test_the_official_preset_claims_scores_and_trains_g_too() -> None:
    session = tiny_session(["adaptivemix"], {"adaptivemix.preset": "official"})
    terms = {(t.network, t.key) for t in session.plan.declarations.terms if t.method == "adaptivemix"}
    assert ("g", "adaptivemix/shrink_fake") in terms
    assert session.plan.declarations.scores.method == "adaptivemix"
    session.close()


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_the_terms_equal_a_direct_computation(preset: str) -> None:
    """From D itself: F at the images, F at the mixed images, the distance of the preset."""
    session = tiny_session(["adaptivemix"], {"adaptivemix.preset": preset, "compute.precision": "float64"})
    step = forwarded(session)
    d = session.trainer.discriminator
    for side in ("real", "fake"):
        images, draw = step.built[side], step.stash[DRAW][side]
        lam = draw.lam.double()
        mixed = d.features(lam * images + (1 - lam) * images[draw.permutation], None)["trunk"]
        base = d.features(images, None)["trunk"]
        m = lam * base + (1 - lam) * base[draw.permutation]
        noise = draw.noise.double()
        if preset == "paper":
            expected = (m - (mixed + noise)).abs().mean()
        else:
            a, b = mixed.flatten(1), (m + noise).flatten(1)
            expected = -((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
        step.caller = "adaptivemix"
        got = session.manager.methods["adaptivemix"]._shrinkage(step, side)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)
        if preset == "official":
            step.caller = "nonsaturating"
            scores = step.scores(side)
            torch.testing.assert_close(scores, d.head({"trunk": m}, None) + d.head({"trunk": mixed}, None))
    session.close()


def test_reals_and_fakes_have_draws_of_their_own_and_noise_follows_its_option() -> None:
    session = tiny_session(["adaptivemix"], {"adaptivemix.noise": 0.0})
    step = forwarded(session)
    real, fake = step.stash[DRAW]["real"], step.stash[DRAW]["fake"]
    assert not torch.equal(real.lam, fake.lam)
    assert real.noise is None
    session.close()


def test_only_sides_in_use_are_drawn() -> None:
    """The paper's preset does nothing in G's phase; the official one there looks at fakes alone."""
    for preset, drawn in (("paper", set()), ("official", {"fake"})):
        session = tiny_session(["adaptivemix"], {"adaptivemix.preset": preset})
        assert set(forwarded(session, "g").stash[DRAW]) == drawn
        assert set(forwarded(session, "d").stash[DRAW]) == {"real", "fake"}
        session.close()


def test_one_lambda_a_sample_and_no_fixed_points() -> None:
    session = tiny_session(["adaptivemix"], {"adaptivemix.per_sample_lambda": True, "adaptivemix.derange": True})
    draw = forwarded(session).stash[DRAW]["real"]
    assert draw.lam.shape == (8,)
    assert not (draw.permutation == torch.arange(8)).any()
    session.close()


def test_alpha_shapes_lambda() -> None:
    """Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    session = tiny_session(["adaptivemix"], {"adaptivemix.alpha": 4.0, "adaptivemix.per_sample_lambda": True})
    method = session.manager.methods["adaptivemix"]
    from gancore.api import Rng

    lam = method._draw_side(Rng(0), 20_000).lam
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(lam.var()) == pytest.approx(1 / 36, rel=0.05)
    session.close()


MIXES = {
    "r1 on clean logits": (["r1"], {}),
    "r1 on the scores": (["r1"], {"adaptivemix.preset": "official", "r1.output": "scores"}),
    "hinge": (["hinge"], {"adaptivemix.preset": "official", "adaptivemix.adv_on": "mixed_mean"}),
    "wgan + gp": (["wgan", "gp"], {"wgan.clip": 0.0}),
    "relativistic": (["relativistic"], {"adaptivemix.preset": "official"}),
    "conditional": ([], {"data.conditional": True, "adaptivemix.preset": "official"}),
    "another tap": ([], {"adaptivemix.tap": "pooled", "adaptivemix.distance": "l2"}),
    "points": ([], {"network.name": "mlp"}),
    "bf16": ([], {"compute.precision": "bf16", "adaptivemix.distance": "cosine"}),
    "sngan": ([], {"network.name": "sngan", "adaptivemix.distance": "mse"}),
    "sum": ([], {"adaptivemix.reduction": "sum", "adaptivemix.apply_in_g": True}),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    session = run_steps(tiny_session(["adaptivemix", *plugins], overrides), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_a_second_owner_of_the_scores_is_told_the_way_out() -> None:
    claims = SPEC.claims(AdaptiveMixOptions(preset="official", adv_on="mixed_sum"))
    assert claims.exclusive == {"scores": "set adaptivemix.adv_on = clean"}
    assert "mixes-scores" in claims.tags


def test_an_objective_without_scalar_logits_is_refused() -> None:
    from gancore.api import Claims
    from gancore.specs import check_claims

    vector = Claims(exclusive={"objective": "drop it"})
    with pytest.raises(
        PluginError,
        match="'adaptivemix' needs scalar-logit, which 'kde' does not offer: .*adaptivemix.adv_on = clean",
    ):
        check_claims({"adaptivemix": SPEC.claims(AdaptiveMixOptions(adv_on="mixed_sum")), "kde": vector})


def test_the_functional_core_stands_alone() -> None:
    """A third party can test against it without gancore."""
    names = {name for name in vars(functional) if not name.startswith("_")}
    assert {"mix", "shrinkage", "mixed_scores", "derangement"} <= names


def test_a_sum_of_logits_against_fixed_targets_is_cautioned() -> None:
    official = {"adaptivemix.preset": "official"}
    session = tiny_session(["adaptivemix", "hinge"], official)
    assert [text for text in session.warnings if "adaptivemix.adv_on = mixed_mean" in text]
    session.close()
    for plugins, options in ((["hinge"], {"adaptivemix.adv_on": "mixed_mean"}), ([], {})):
        session = tiny_session(["adaptivemix", *plugins], {**official, **options})
        assert session.warnings == []
        session.close()
