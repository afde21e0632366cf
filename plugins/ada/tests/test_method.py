"""The method in a run: its link, its controller, what it claims, refuses and warns of."""

from __future__ import annotations

import pytest
import torch

from gancore.api import Claims, ConfigError, Need, PluginError, Rng
from gancore.config import resolve
from gancore.plugin_manager import discover
from gancore.specs import check_claims, warnings_of
from gancore.testing import different, run_steps, skip_without, tiny_config, tiny_session, training_tensors
from gancore_ada import SPEC, functional
from gancore_ada.method import Ada, Link
from gancore_ada.options import GROUPS, AdaOptions

PIPES = {
    "blit": ["blit"],
    "geom": ["geom"],
    "color": ["color"],
    "filter": ["filter"],
    "noise": ["noise"],
    "cutout": ["cutout"],
    "bg": ["blit", "geom"],
    "bgc": ["blit", "geom", "color"],
    "bgcf": ["blit", "geom", "color", "filter"],
    "bgcfn": ["blit", "geom", "color", "filter", "noise"],
    "bgcfnc": ["blit", "geom", "color", "filter", "noise", "cutout"],
}


class Phase:
    """As much of a step as a link's draw needs."""

    device = torch.device("cpu")

    def rng(self, stream: str) -> Rng:
        return Rng("test", stream)


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    trainer.loss(step)
    return step


def claims(**options) -> Claims:
    return SPEC.claims(AdaOptions(**options))


@pytest.mark.parametrize("pipe", PIPES)
def test_a_pipe_is_a_set_of_multipliers(pipe: str) -> None:
    config = resolve(discover(), [("test", tiny_config(["ada"], {"ada.preset": pipe}))])
    chosen = config.methods["ada"]
    ops = [op for group in PIPES[pipe] for op in GROUPS[group]]
    assert chosen.multipliers() == {op: float(op in ops) for op in functional.OPS}
    draw = Link(chosen, torch.tensor(1.0)).draw(Phase(), "real", (8, 3, 16, 16))
    names = {"blit": {"geometry"}, "geom": {"geometry"}, "color": {"color"}, "filter": {"bands"}}
    names |= {"noise": {"noise", "sigma"}, "cutout": {"cutout"}}
    assert set(draw) == set().union(*(names[group] for group in PIPES[pipe]))
    assert all(len(value) == 8 for value in draw.values())


def test_a_given_multiplier_wins_over_the_pipe() -> None:
    config = resolve(discover(), [("test", tiny_config(["ada"], {"ada.preset": "blit", "ada.noise": 0.5}))])
    assert config.methods["ada"].multipliers() == {
        op: {"xflip": 1.0, "rotate90": 1.0, "xint": 1.0, "noise": 0.5}.get(op, 0.0) for op in functional.OPS
    }


@pytest.mark.parametrize("blit", ["wavelet", "exact"])
def test_d_sees_the_pipeline_of_the_draws(blit: str) -> None:
    options = {"ada.preset": "bgcfnc", "ada.p": 0.8, "ada.blit": blit, "compute.precision": "float64"}
    session = tiny_session(["ada", "r1"], options)
    step = forwarded(session)
    assert ("blit" in step.augmentation["real"]["ada"]) == (blit == "exact")
    for side in ("real", "fake"):
        images = step.built[f"{side}_raw"]
        expected = functional.apply(images, step.augmentation[side]["ada"])
        torch.testing.assert_close(step.built[side], expected)
        assert not torch.equal(step.built[side], images)
    real, fake = (step.augmentation[side]["ada"]["geometry"] for side in ("real", "fake"))
    assert not torch.equal(real, fake)
    session.close()


def test_both_sides_are_augmented_in_both_phases() -> None:
    session = tiny_session(["ada", "relativistic"], {"ada.p": 0.8})
    for phase in ("d", "g"):
        assert set(forwarded(session, phase).augmentation) == {"real", "fake"}
    session.close()


def test_r1_flows_through_the_augmentation() -> None:
    """The penalty's gradient at raw images, against finite differences through D and the pipeline."""
    session = tiny_session(["ada", "r1"], {"ada.p": 0.8, "compute.precision": "float64"})
    step = forwarded(session)
    d, draw = session.trainer.discriminator, step.augmentation["real"]["ada"]
    step.caller = "r1"
    term = next(t.name for t in step.program.terms if t.method == "r1")
    gradient = step.input_gradient(term)
    images = step.built["real_raw"].detach()
    direction = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def total(scale: float) -> float:
        seen = functional.apply(images + scale * direction, draw)
        with torch.no_grad():
            return float(d.head(d.features(seen, None), None).sum())

    slope = (total(1e-5) - total(-1e-5)) / 2e-5
    assert float((gradient.detach() * direction).sum()) == pytest.approx(slope, rel=1e-4)
    session.close()


def test_a_percentile_is_one_strength_for_all(tmp_path) -> None:
    session = tiny_session(["ada"], {"ada.debug_percentile": 0.3, "ada.target": 0.0})
    draw = forwarded(session).augmentation["real"]["ada"]
    assert torch.equal(draw["geometry"], draw["geometry"][:1].expand(8, 3, 3))
    shape = (8, *session.dataset.shape)
    parameters = functional.sample(
        shape, 0.0, session.manager.methods["ada"].options.multipliers(), percentile=0.3
    )
    assert torch.equal(draw["color"], functional.compose(parameters, shape)["color"])
    assert "for tests" in session.warnings[0]
    session.close()


# Absence.


@pytest.mark.parametrize(
    "options",
    [
        {"ada.target": 0.0, "ada.p": 0.0},
        {"ada.weight": 0.0, "ada.p": 0.5},
        {"ada.preset": "noise", "ada.noise": 0.0, "ada.p": 0.5},
    ],
)
def test_what_never_acts_is_absent(options) -> None:
    with_ada = run_steps(tiny_session(["r1", "ada"], options), 2)
    without = run_steps(tiny_session(["r1"]), 2)
    assert with_ada.trainer.chain.links == ()
    assert "ada.controller" not in with_ada.trainer.modules.modules
    assert different(training_tensors(with_ada), training_tensors(without)) == []
    with_ada.close()
    without.close()


def test_what_never_acts_claims_nothing() -> None:
    assert claims(target=0.0) == Claims()
    check_claims({"ada": claims(target=0.0)}, frozenset({"data:points"}))


# What it says of itself.


def test_claims_tags_and_needs() -> None:
    adapting, fixed = claims(), claims(target=0.0, p=0.5)
    for found in (adapting, fixed):
        assert found.tags == {"augments-scored-images", "hides-parameters"}
        assert list(found.exclusive) == ["augment:ada"]
        assert "data:image" in {need.capability for need in found.needs}
    assert {need.capability for need in adapting.needs} - {need.capability for need in fixed.needs} == {"margin"}
    with pytest.raises(PluginError, match="augment:ada claimed by both 'ada' and 'twin'; keep one: .*ada.p = 0"):
        check_claims({"ada": adapting, "twin": Claims(exclusive={"augment:ada": "drop -p twin"})})
    other = {"ada": fixed, "t": Claims(tags=frozenset({"augments-scored-images"}))}
    assert warnings_of(other) == [
        "ada with t: both augment the images that D judges, one after the other in the order of -p; drop one of "
        "them unless that is meant"
    ]
    assert all(isinstance(need, Need) for need in adapting.needs)


def test_an_objective_without_a_margin_is_told_the_way_out() -> None:
    with pytest.raises(
        PluginError, match="'ada' needs margin.*: .*set ada.target = 0 and a fixed ada.p, or name an"
    ):
        tiny_session(["ada", "wgan"])
    run_steps(tiny_session(["ada", "wgan"], {"ada.target": 0.0, "ada.p": 0.3}), 1).close()


def test_points_are_refused() -> None:
    with pytest.raises(PluginError, match="'ada' needs data:image"):
        tiny_session(["ada"], {"network.name": "mlp"})


class Plan:
    """As much of a declaration as a refusal needs."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.watched: list[tuple[str, ...]] = []

    def watch(self, network: str, *, margins: tuple[str, ...]) -> None:
        self.watched.append(margins)


def test_channels_and_sides_that_it_cannot_serve_are_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="these have 4 channels: prepare the set with data.channels = 'rgb'"):
        Ada(SPEC, AdaOptions()).declare(Plan(4, 32, 32))
    exact = Ada(SPEC, AdaOptions(blit="exact"))
    with pytest.raises(ConfigError, match="ada.blit = 'exact': an exact quarter turn of 32 x 33"):
        exact.declare(Plan(3, 32, 33))
    plan = Plan(1, 32, 32)
    exact.declare(plan)
    assert plan.watched == [("real",)]
    Ada(SPEC, AdaOptions(target=0.0)).declare(Plan(4, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ada.p": 0.7, "ada.p_max": 0.6}, "p = 0.7 lies above p_max = 0.6"),
        ({"ada.p": 1.5}, "p = 1.5 lies above p_max = 1"),
        ({"ada.unbounded": True, "ada.p_max": 0.8}, "unbounded = true takes the bound of p away"),
        ({"ada.weight": 0.5}, "weight = 0.5: an augmentation has no term to weigh"),
        ({"ada.preset": "bgx"}, "unknown preset 'bgx'"),
        ({"ada.xfip": 1.0}, "unknown option 'ada.xfip'.*xflip"),
        ({"ada.hue": -1.0}, "ada.hue = -1.0: expected a value >= 0"),
        ({"ada.debug_percentile": 1.0}, "ada.debug_percentile = 1.0: expected a value < 1"),
        ({"ada.interval": 0}, "ada.interval = 0: expected a value >= 1"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(discover(), [("test", tiny_config(["ada"], options))])


def test_warnings_before_and_during_a_run() -> None:
    assert claims().warnings == claims(p=0.9).warnings == claims(p=0.8, target=0.0).warnings == ()
    assert "ada.p = 0.9 is fixed above 0.8" in claims(p=0.9, target=0.0).warnings[0]
    nothing = AdaOptions(**dict.fromkeys(functional.OPS, 0.0))
    assert "every multiplier is 0" in SPEC.claims(nothing).warnings[0]
    method = Ada(SPEC, AdaOptions())
    assert method.advise({"p": 0.8, "sign": 0.5}) is None
    assert method.advise({}) is None
    assert "set ada.p_max = 0.8" in method.advise({"p": 0.81})["leaks"]


def test_a_link_repeats_its_draws_for_copies() -> None:
    """What the core does for views of several rows: each value repeated along the batch."""
    chosen = AdaOptions(p=0.9)
    shape = (3, 1, 16, 16)
    parameters = functional.sample(
        shape, 0.9, chosen.multipliers(), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    draw = functional.compose(parameters, shape)
    link = Link(chosen, torch.tensor(0.9))
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    twice = link.transform(
        images.repeat(2, 1, 1, 1), {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in draw.items()}
    )
    torch.testing.assert_close(twice, link.transform(images, draw).repeat(2, 1, 1, 1))


MIXES = {
    "r1": (["r1"], {}),
    "hinge": (["hinge"], {}),
    "lsgan": (["lsgan"], {}),
    "relativistic": (["relativistic", "r1", "r2"], {}),
    "gp": (["wgan", "gp"], {"ada.target": 0.0, "wgan.clip": 0.0}),
    "bf16": (["r1"], {"compute.precision": "bf16"}),
    "conditional": ([], {"data.conditional": True, "ada.blit": "exact"}),
    "colour, sngan": (["hinge"], {"network.name": "sngan", "ada.preset": "bgcfnc", "data.channels": "rgb"}),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    skip_without(plugins)
    session = run_steps(tiny_session(["ada", *plugins], {"ada.p": 0.6, **overrides}), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()
