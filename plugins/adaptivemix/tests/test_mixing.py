"""Beside other methods: derived taps, margins, augmentation, penalties, labels, small batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gancore.api import Claims, ConfigError, Method, MethodSpec, Need, PluginError, hookimpl
from gancore.testing import registry_with, run_steps, tiny_session
from gancore_adaptivemix.method import DRAW

OFFICIAL = {"adaptivemix.preset": "official"}
EXACT = {"compute.precision": "float64"}
MATRIX = torch.arange(5 * 64, dtype=torch.float64).sin().reshape(64, 5)


class Folded(Method):
    """Derives a tap of five numbers."""

    @hookimpl
    def declare_taps(self, plan) -> None:
        plan.tap("folded.five", source="pooled", compute=self.fold, shape=(5,), help="five sums of pooled")

    @staticmethod
    def fold(features):
        rows = MATRIX.to(features.dtype).repeat(features.shape[1] // 64, 1)
        return features @ rows


class Watcher(Method):
    """Looks at the margins of both sides, as a controller does."""

    @hookimpl
    def declare(self, plan) -> None:
        plan.watch("d", margins=("real", "fake"))

    @hookimpl
    def observe(self, step) -> None:
        self.seen = {side: step.margin(side) for side in ("real", "fake")}


class Reader(Method):
    """Lets G look at mixed fakes, which the paper's preset leaves to D."""

    @hookimpl
    def declare(self, plan) -> None:
        plan.term("looks", "g", reads={"adaptivemix.fake": ("logits",)})

    @hookimpl
    def g_loss(self, step):
        return self.terms(looks=step.d["adaptivemix.fake"].logits.mean())


class Brighten(Method):
    """Augments what D sees."""

    sides = ("real", "fake")

    @hookimpl
    def augment(self, run):
        return self

    def draw(self, step, side, shape):
        return {"shift": step.rng(side).uniform(shape[0])}

    def transform(self, images, draw):
        return images * 0.5 + draw["shift"].to(images.dtype).reshape(-1, 1, 1, 1)


def spec(cls: type[Method], claims: Claims) -> MethodSpec:
    return MethodSpec(
        name=cls.__name__.lower(),
        summary="For tests.",
        target=f"{__name__}:{cls.__name__}",
        claims=lambda _: claims,
    )


REGISTRY = registry_with(
    spec(Folded, Claims(offers=frozenset({"tap:folded.five"}))),
    spec(Watcher, Claims(needs=(Need("margin", "it watches it"),))),
    spec(Brighten, Claims()),
    spec(Reader, Claims()),
)


def session_of(*plugins: str, **overrides: object):
    return tiny_session(["adaptivemix", *plugins], {**EXACT, **overrides}, REGISTRY)


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    trainer.loss(step)
    return step


def mixed(values, draw):
    lam = draw.lam.to(values.dtype)
    return lam * values + (1 - lam) * values[draw.permutation]


def shrinkage(session, step, side):
    step.caller = "adaptivemix"
    return session.manager.methods["adaptivemix"]._shrinkage(step, side)


# Taps that another method derives.


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_features_of_another_method_are_shrunk(preset: str) -> None:
    """As long as the objective judges clean images; the distance is that of the preset."""
    options = {"adaptivemix.preset": preset, "adaptivemix.adv_on": "clean", "adaptivemix.tap": "folded.five"}
    session = session_of("folded", **options)
    step = forwarded(session)
    d = session.trainer.discriminator
    for side in ("real", "fake"):
        images, draw = step.built[side], step.stash[DRAW][side]
        of_mixed = Folded.fold(d.features(mixed(images, draw), None)["pooled"])
        target = mixed(Folded.fold(d.features(images, None)["pooled"]), draw)
        noise = draw.noise.double()
        assert noise.shape == (8, 5)
        if preset == "paper":
            expected = (target - of_mixed - noise).abs().mean()
        else:
            expected = -torch.nn.functional.cosine_similarity(of_mixed, target + noise, dim=1).mean()
        torch.testing.assert_close(shrinkage(session, step, side), expected, rtol=1e-9, atol=1e-12)
    session.close()


@pytest.mark.parametrize("adv_on", ["mixed_sum", "mixed_mean"])
def test_mixed_features_cannot_enter_at_a_derived_tap(adv_on: str) -> None:
    """D has no head that goes on from there; said when the run is built, with the way out."""
    options = {**OFFICIAL, "adaptivemix.adv_on": adv_on, "adaptivemix.tap": "folded.five"}
    expected = rf"'folded.five' is derived .* no head .*adv_on = {adv_on} .*adv_on = clean, or .*'trunk'"
    with pytest.raises(ConfigError, match=expected):
        session_of("folded", **options)


def test_a_tap_that_nobody_has_is_refused() -> None:
    with pytest.raises(PluginError, match="needs tap:folded.five, .*set adaptivemix.tap .*or name the method"):
        session_of(**{"adaptivemix.tap": "folded.five"})


# What controllers see, and the order of augmentation and mixing.


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("objective", ["nonsaturating", "relativistic", "lsgan"])
def test_margins_are_those_of_clean_logits(preset: str, objective: str) -> None:
    """A controller judges D on whole images, augmented as D sees them, whatever the objective is trained on."""
    session = session_of("watcher", "brighten", objective, **{"adaptivemix.preset": preset})
    step = forwarded(session)
    d = session.trainer.discriminator
    clean = {side: d(step.built[side], None).detach() for side in ("real", "fake")}
    if objective == "relativistic":
        clean = {"real": clean["real"] - clean["fake"], "fake": clean["fake"] - clean["real"]}
    elif objective == "lsgan":
        clean = {side: logits - 0.5 for side, logits in clean.items()}
    seen = session.manager.methods["watcher"].seen
    for side in ("real", "fake"):
        torch.testing.assert_close(seen[side], clean[side], rtol=1e-9, atol=1e-12)
    session.close()


def test_mixing_comes_after_augmentation() -> None:
    session = session_of("brighten", **OFFICIAL)
    step = forwarded(session)
    for side in ("real", "fake"):
        augmented = step.built[f"{side}_raw"] * 0.5 + step.augmentation[side]["brighten"][
            "shift"
        ].double().reshape(-1, 1, 1, 1)
        torch.testing.assert_close(step.built[side], augmented)
        draw = step.stash[DRAW][side]
        torch.testing.assert_close(step.built[f"adaptivemix.{side}"], mixed(augmented, draw))
    session.close()


# What the released code computes.


def test_labels_are_those_of_the_first_of_each_pair() -> None:
    session = session_of(**OFFICIAL, **{"data.conditional": True})
    step = forwarded(session)
    d = session.trainer.discriminator
    for side in ("real", "fake"):
        images, labels, draw = step.built[side], step.labels[side], step.stash[DRAW][side]
        m = mixed(d.features(images, labels)["trunk"], draw)
        expected = d.head({"trunk": m}, labels) + d(mixed(images, draw), labels)
        step.caller = "nonsaturating"
        torch.testing.assert_close(step.scores(side), expected, rtol=1e-9, atol=1e-12)
    session.close()


def test_r1_of_the_scores_is_that_of_the_summed_mixed_logits() -> None:
    session = session_of("r1", **OFFICIAL, **{"r1.output": "scores"})
    step = forwarded(session)
    d, draw = session.trainer.discriminator, step.stash[DRAW]["real"]
    reals = step.built["real"].detach().requires_grad_()
    m = mixed(d.features(reals, None)["trunk"], draw)
    total = d.head({"trunk": m}, None).sum() + d(mixed(reals, draw), None).sum()
    (expected,) = torch.autograd.grad(total, reals)
    step.caller = "r1"
    torch.testing.assert_close(step.input_gradient("penalty"), expected, rtol=1e-9, atol=1e-12)
    session.close()


def test_g_is_moved_through_the_mixed_images_alone() -> None:
    """The target is detached in G's phase too."""
    session = session_of(**OFFICIAL)
    step = forwarded(session, "g")
    d, draw = session.trainer.discriminator, step.stash[DRAW]["fake"]
    fakes = step.built["fake"]
    (got,) = torch.autograd.grad(shrinkage(session, step, "fake"), fakes, retain_graph=True)
    base = fakes.detach().requires_grad_()
    target = mixed(d.features(base, None)["trunk"], draw).detach() + draw.noise.double()
    h = d.features(mixed(base, draw), None)["trunk"]
    loss = -torch.nn.functional.cosine_similarity(h.flatten(1), target.flatten(1), dim=1).mean()
    (expected,) = torch.autograd.grad(loss, base)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-14)
    session.close()


# Batches and draws.


@pytest.mark.parametrize(
    "options", [{}, OFFICIAL, {"adaptivemix.derange": True}], ids=["paper", "official", "derange"]
)
def test_a_batch_of_one_has_nothing_to_mix(options) -> None:
    with pytest.raises(ConfigError, match=r"train.batch = 1: AdaptiveMix mixes .* choose a batch of 2 or more"):
        session_of(**options, **{"train.batch": 1})


@pytest.mark.parametrize("batch", [2, 3])
def test_small_batches_are_mixed(batch: int) -> None:
    session = session_of(**OFFICIAL, **{"adaptivemix.derange": True, "train.batch": batch})
    run_steps(session, 2)
    assert session.trainer.telemetry.is_finite()
    draw = forwarded(session).stash[DRAW]["real"]
    assert not (draw.permutation == torch.arange(batch)).any()
    session.close()


def test_noise_is_drawn_where_a_term_takes_it() -> None:
    """Scores take none; and what is drawn beside it does not depend on it."""
    session = session_of(**OFFICIAL, **{"adaptivemix.apply_in_g": False})
    with_term = session_of(**OFFICIAL)
    without, taken = forwarded(session, "g").stash[DRAW]["fake"], forwarded(with_term, "g").stash[DRAW]["fake"]
    assert without.noise is None
    assert taken.noise.shape == (8, *session.trainer.discriminator.taps["trunk"].shape)
    for field in dataclasses.fields(taken):
        if field.name != "noise":
            assert torch.equal(getattr(without, field.name), getattr(taken, field.name))
    session.close()
    with_term.close()


def test_other_methods_may_read_the_mixed_images_where_this_one_does_not() -> None:
    session = session_of("reader")
    step = forwarded(session, "g")
    expected = mixed(step.built["fake"], step.stash[DRAW]["fake"])
    torch.testing.assert_close(step.built["adaptivemix.fake"], expected)
    session.close()


def test_noise_has_its_standard_deviation_and_is_independent() -> None:
    session = session_of(**{"adaptivemix.noise": 0.3, "train.batch": 64})
    noise = forwarded(session).stash[DRAW]["real"].noise
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(noise.mean(0).std()) == pytest.approx(0.3 / 8, rel=0.3)
    session.close()
