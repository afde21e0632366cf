"""The method in a step: what it declares, computes, refuses and says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from gancore import ranks
from gancore.api import ConfigError, PluginError
from gancore.testing import run_steps, skip_without, tiny_session
from gancore_diffaugment import functional as diffaugment
from gancore_kdd import SPEC, functional, modules
from gancore_kdd.method import DRAW, RATIOS
from gancore_kdd.options import KddOptions

EXACT = {"compute.precision": "float64"}


def terms_of(session) -> set[tuple[str, str]]:
    return {(t.network, t.name) for t in session.plan.declarations.terms if t.method == "kdd"}


def values_of(session) -> dict[str, float]:
    """What was recorded since the last look."""
    session.trainer.telemetry.commit()
    return {name: moment["mean"] for name, moment in session.trainer.telemetry.flush().items()}


def phi_un_of(session, images, labels=None):
    """phi_UN of images, from D and W themselves."""
    pooled = session.trainer.discriminator.features(images, labels)["pooled"]
    return pooled @ session.manager.methods["kdd"].head.linear.weight.T


def test_as_the_objective_it_trains_d_and_g_and_leaves_the_scalar_logit_alone() -> None:
    session = tiny_session(["kdd"])
    assert session.plan.objective == "kdd"
    assert terms_of(session) == {("d", "hinge"), ("g", "ratio")}
    assert any(name.startswith("logit") for name in session.trainer.unreached["d"])
    before = session.manager.methods["kdd"].head.linear.weight.detach().clone()
    run_steps(session, 2)
    assert not torch.equal(before, session.manager.methods["kdd"].head.linear.weight)
    session.close()


def test_joint_training_is_a_term_beside_the_objective() -> None:
    session = tiny_session(["hinge", "kdd"], {"kdd.as_term": True, "kdd.weight": 0.5})
    assert session.plan.objective == "hinge"
    weights = {t.key: t.weight for t in session.plan.declarations.terms}
    assert weights["kdd/hinge"] == weights["kdd/ratio"] == 0.5
    assert weights["hinge/adv"] == 1.0
    run_steps(session, 1)
    session.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kdd.tau": 0.3, "kdd.divisor": "literal", "kdd.feature_dim": 5},
        {"kdd.anchors": 2, "kdd.anchors_in_g": 1},
        {"kdd.anchors": 1, "kdd.anchors_in_g": 0},
        {"kdd.anchors_in_g": 2},
    ],
)
def test_both_losses_equal_the_double_loop_on_features_of_d_itself(slow, options) -> None:
    session = tiny_session(["kdd"], {**EXACT, **options})
    chosen = session.config.methods["kdd"]
    for phase, count in (("d", chosen.anchors), ("g", chosen.copies_in_g)):
        step, _ = slow.forwarded(session, phase)
        anchors = {}
        for side in ("real", "fake"):
            rows = [step.built[side]]
            view = f"kdd.{side}_copies" + ("_g" if phase == "g" and count != chosen.anchors else "")
            if count:
                repeated = torch.cat([step.built[side]] * count)
                expected = diffaugment.augment(repeated, step.stash[DRAW].copies[view], chosen.policy)
                torch.testing.assert_close(step.built[view], expected)
                rows.append(expected)
            anchors[side] = slow.unit(torch.cat([phi_un_of(session, images) for images in rows]))
            assert len(anchors[side]) == 8 * (1 + count)
        real, fake = slow.ratios(anchors["real"], anchors["fake"], 8, 8, chosen.tau, chosen.divisor)
        values = values_of(session)
        if phase == "d":
            assert values["kdd/hinge.d"] == pytest.approx(slow.hinge(real, fake), rel=1e-9)
            assert values["kdd/ratio_real"] == pytest.approx(real.mean(), rel=1e-9)
            assert values["kdd/active_fake"] == pytest.approx(np.mean(fake > -1))
        else:
            assert values["kdd/ratio.g"] == pytest.approx(-fake.mean(), rel=1e-9)
    session.close()


def test_copies_are_anchors_and_are_never_judged(slow) -> None:
    """Only B points a side enter the hinge, and reals in G's step need no gradient."""
    session = tiny_session(["kdd"], {"kdd.preset": "da3"})
    step, _ = slow.forwarded(session)
    assert {side: len(ratio) for side, ratio in step.stash[RATIOS].items()} == {"real": 8, "fake": 8}
    assert len(step.outputs["kdd.real_copies"]["kdd.phi"]) == 24
    step, _ = slow.forwarded(session, "g")
    assert step.outputs["kdd.fake_copies"]["kdd.phi"].requires_grad
    assert not step.outputs["kdd.real_copies"]["kdd.phi"].requires_grad
    session.close()


@pytest.mark.parametrize("projection", ["phi", "phi_un", "none"])
def test_with_labels_the_class_term_joins_the_log_ratio(slow, projection: str) -> None:
    overrides = {**EXACT, "data.conditional": True, "kdd.projection": projection}
    session = tiny_session(["kdd"], overrides)
    for phase in ("d", "g"):
        step, _ = slow.forwarded(session, phase)
        raw = {side: phi_un_of(session, step.built[side], step.labels[side]) for side in ("real", "fake")}
        unit = {side: slow.unit(rows) for side, rows in raw.items()}
        ratios = dict(zip(("real", "fake"), slow.ratios(unit["real"], unit["fake"], 8, 8, 1.0), strict=True))
        classes = session.manager.methods["kdd"].head.classes
        assert (classes is None) == (projection == "none")
        if classes is not None:
            features = unit if projection == "phi" else raw
            for side in ("real", "fake") if phase == "d" else ("fake",):
                rows = [classes.weight[int(label)] for label in step.labels[side]]
                ratios[side] = ratios[side] + np.array(
                    [float((v @ f).detach()) for v, f in zip(rows, features[side], strict=True)]
                )
        values = values_of(session)
        if phase == "d":
            assert values["kdd/hinge.d"] == pytest.approx(slow.hinge(ratios["real"], ratios["fake"]), rel=1e-9)
        else:
            assert values["kdd/ratio.g"] == pytest.approx(-ratios["fake"].mean(), rel=1e-9)
    if projection != "none":
        before = classes.weight.detach().clone()
        run_steps(session, 1)
        assert not torch.equal(before, classes.weight)
    session.close()


@pytest.mark.parametrize("precision", ["float64", "float32", "bf16"])
def test_the_jacobian_term_equals_a_direct_difference_of_d(slow, precision: str) -> None:
    """In a bfloat16 run too: the pair stays in float32, or the difference would be noise."""
    overrides = {"kdd.preset": "jacd", "compute.precision": precision, "kdd.lambda_jac": 0.5}
    session = tiny_session(["hinge", "kdd"], {**overrides, "kdd.as_term": True})
    step, _ = slow.forwarded(session)
    total = 0.0
    for side in ("real", "fake"):
        images, direction = step.built[side], step.stash[DRAW].directions[side]
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(8, dtype=direction.dtype))
        with torch.no_grad():
            moved = phi_un_of(session, images + 1e-3 * direction) - phi_un_of(session, images)
        slopes = [float(row.norm()) / 1e-3 for row in moved]
        total += sum(abs(slope - 1) for slope in slopes) / 8  # the divisor is |S_r|, for both sides
    values = values_of(session)
    assert values["kdd/jac.d"] == pytest.approx(total, rel=1e-9 if precision == "float64" else 2e-3)
    assert values["kdd/jac.d.weighted"] == pytest.approx(values["kdd/jac.d"] * 0.5)
    assert "jac" not in {t.name for t in session.plan.declarations.terms if t.network == "g"}
    groups = session.plan.full_program("d").groups
    pairs = [group for group in groups if any(view.endswith("_near") for view in group.views)]
    assert pairs
    assert all(group.key.precision == "float32" for group in pairs)
    session.close()


def test_it_looks_at_clean_images_where_an_augmenter_runs(slow) -> None:
    options = {**EXACT, "kdd.as_term": True}
    session = tiny_session(["hinge", "kdd", "diffaugment"], options)
    step, _ = slow.forwarded(session)
    clean = [slow.unit(phi_un_of(session, step.built[f"{side}_raw"])) for side in ("real", "fake")]
    expected = slow.hinge(*slow.ratios(*clean, 8, 8, 1.0))
    assert values_of(session)["kdd/hinge.d"] == pytest.approx(expected, rel=1e-9)
    session.close()


def test_as_the_objective_it_refuses_an_augmenter_that_it_would_not_see() -> None:
    with pytest.raises(PluginError, match=r"kdd.augmented = true.*kdd.as_term = true.*drop the augmentation"):
        tiny_session(["kdd", "diffaugment"])


def test_augmented_evaluates_images_as_the_chain_leaves_them(slow) -> None:
    session = tiny_session(["kdd", "diffaugment"], {**EXACT, "kdd.augmented": True, "kdd.anchors": 1})
    step, _ = slow.forwarded(session)
    assert not torch.equal(step.built["real"], step.built["real_raw"])
    anchors = [
        slow.unit(phi_un_of(session, torch.cat((step.built[side], step.built[f"kdd.{side}_copies"]))))
        for side in ("real", "fake")
    ]
    expected = slow.hinge(*slow.ratios(*anchors, 8, 8, 1.0))
    assert values_of(session)["kdd/hinge.d"] == pytest.approx(expected, rel=1e-9)
    session.close()


def test_mixed_scores_are_refused_and_clean_ones_are_not() -> None:
    skip_without(["adaptivemix"])
    with pytest.raises(PluginError, match=r"adaptivemix.adv_on = clean"):
        tiny_session(["adaptivemix", "hinge", "kdd"], {"adaptivemix.preset": "official", "kdd.as_term": True})
    given = {"adaptivemix.preset": "official", "adaptivemix.adv_on": "clean", "adaptivemix.tap": "kdd.phi_un"}
    session = run_steps(tiny_session(["adaptivemix", "kdd"], given), 2)
    session.close()


def test_other_methods_read_its_taps(slow) -> None:
    skip_without(["adaptivemix"])
    session = tiny_session(["adaptivemix", "kdd"], {**EXACT, "adaptivemix.tap": "kdd.phi"})
    step, _ = slow.forwarded(session)
    found = step.outputs["real"]["kdd.phi"]
    torch.testing.assert_close(found, slow.unit(phi_un_of(session, step.built["real"])))
    torch.testing.assert_close(step.outputs["adaptivemix.real"]["kdd.phi"].norm(dim=1), torch.ones(8).double())
    session.close()


def test_detach_anchors_changes_the_gradient_and_not_the_loss(slow) -> None:
    gradients, losses = [], []
    for detach in (False, True):
        session = tiny_session(["kdd"], {**EXACT, "kdd.detach_anchors": detach})
        _, total = slow.forwarded(session)
        (weight,) = session.manager.methods["kdd"].head.parameters()
        gradients.append(torch.autograd.grad(total, weight)[0])
        losses.append(float(total.detach()))
        session.close()
    assert losses[0] == losses[1]
    assert not torch.allclose(*gradients)


def test_the_margin_is_the_log_ratio_of_both_sides(slow) -> None:
    session = tiny_session(["kdd"], EXACT)
    step, _ = slow.forwarded(session)
    method, ratios = session.manager.methods["kdd"], step.stash[RATIOS]
    step.caller = "kdd"
    with torch.no_grad():
        computed = method._ratios(step)
    for side in ("real", "fake"):
        assert method._margin(step, side) is ratios[side]
        torch.testing.assert_close(computed[side], ratios[side])
    offers = SPEC.claims(KddOptions()).offers
    assert {"margin", "tap:kdd.phi", "tap:kdd.phi_un"} == offers
    assert "margin" not in SPEC.claims(KddOptions(as_term=True)).offers
    session.close()


def test_anchors_of_other_ranks_come_after_the_own_ones(slow, monkeypatch) -> None:
    """With a second rank that holds the same features turned around: more anchors, the same points."""

    def both(values: torch.Tensor) -> torch.Tensor:
        return torch.cat((values, -values))

    monkeypatch.setattr(ranks, "gather", both)
    for where, count in (("all", 16), ("local", 8)):
        session = tiny_session(["kdd"], {**EXACT, "kdd.gather": where})
        step, _ = slow.forwarded(session)
        anchors = []
        for side in ("real", "fake"):
            phi = slow.unit(phi_un_of(session, step.built[side]))
            anchors.append(both(phi) if where == "all" else phi)
        assert len(anchors[0]) == count
        expected = slow.hinge(*slow.ratios(*anchors, 8, 8, 1.0))
        assert values_of(session)["kdd/hinge.d"] == pytest.approx(expected, rel=1e-9)
        session.close()


@pytest.mark.parametrize(
    ("network", "spectral", "expected"),
    [("sngan", "as-d", True), ("dcgan", "as-d", False), ("dcgan", "on", True), ("sngan", "off", False)],
)
def test_spectral_norm_of_w_and_v_follows_d(network: str, spectral: str, expected: bool) -> None:
    overrides = {"network.name": network, "kdd.spectral": spectral, "data.conditional": True}
    if network == "dcgan":
        overrides["network.d_norm"] = "none"
    session = run_steps(tiny_session(["kdd"], overrides), 1)
    head = session.manager.methods["kdd"].head
    assert parametrize.is_parametrized(head.linear) == expected
    assert parametrize.is_parametrized(head.classes) == expected
    session.close()


def test_w_starts_with_the_angles_of_the_features() -> None:
    session = tiny_session(["kdd"])
    weight = session.manager.methods["kdd"].head.linear.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
    assert len(weight) == session.trainer.discriminator.taps["pooled"].shape[0]
    session.close()


def test_a_very_wide_w_starts_with_rows_of_length_about_one(monkeypatch) -> None:
    """Orthogonalising it would take minutes."""
    monkeypatch.setattr(modules, "MOST_ORTHOGONAL", 16)
    with torch.random.fork_rng(devices=[]):
        weight = modules.Head(300, 200, 0, spectral=False).linear.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(200), rtol=0.2, atol=0)
    torch.testing.assert_close((weight @ weight.T).mean(), torch.tensor(1 / 200), rtol=1, atol=0)


def test_points_of_a_plane_are_fine_without_copies() -> None:
    given = {"network.name": "mlp", "kdd.lambda_jac": 1e-3}
    session = run_steps(tiny_session(["kdd"], given), 2)
    session.close()
    with pytest.raises(PluginError, match="kdd.anchors = 0"):
        tiny_session(["kdd"], {**given, "kdd.anchors": 1})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.batch": 1, "output.grid": 1}, "leave-one-out.*batch of 2"),
        ({"kdd.tap": "poled"}, "kdd.tap"),
        ({"kdd.tap": "kdd.phi"}, "one of D's own taps .*pooled"),
        ({"kdd.feature_dim": 1}, "kdd.feature_dim to 2"),
        ({"kdd.anchors": 65}, "<= 64"),
        ({"kdd.reals_in_g": "cache"}, "dagger = true"),
        ({"kdd.dagger": True, "kdd.augmented": True}, "augmented"),
        ({"kdd.anchors": 1, "kdd.policy": " "}, "policy is empty"),
        ({"kdd.anchors": 1, "kdd.policy": "colour"}, "did you mean 'color'"),
        ({"kdd.anchors_in_g": 1, "kdd.policy": "saturation"}, "changes no image"),
        ({"kdd.dagger": True, "kdd.dagger_limit": 1e-5}, "GiB.*kdd.feature_dim"),
        ({"kdd.tau": 0.0}, ">= 0.0001"),
        ({"kdd.anchors": -1}, ">= 0"),
    ],
)
def test_what_cannot_work_is_refused_before_training(overrides, message: str) -> None:
    with pytest.raises((ConfigError, PluginError), match=message):
        tiny_session(["kdd"], overrides)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (KddOptions(), []),
        (KddOptions(tau=5.0), [r"2 / tau = 0.4.*between 1.2 and 2.8"]),
        (KddOptions(tau=0.05), []),
        (KddOptions(tau=0.01), [r"nearest anchor alone.*2 / tau = 200"]),
        (KddOptions(tau=0.05, anchors=1), [r"own copies.*2 / tau = 40"]),
        (KddOptions(lambda_jac=1e-5, anchors=7), ["diverged"]),
        (KddOptions(lambda_jac=1e-5, anchors=7, as_term=True), []),
    ],
)
def test_warnings_that_options_alone_tell(options: KddOptions, expected: list[str]) -> None:
    found = SPEC.claims(options).warnings
    assert len(found) == len(expected)
    for text, pattern in zip(found, expected, strict=True):
        with pytest.raises(AssertionError, match=pattern):
            raise AssertionError(text)


def test_a_difference_that_float32_loses_is_told() -> None:
    small = {"kdd.lambda_jac": 1e-5, "kdd.delta": 1e-5}
    session = tiny_session(["kdd"], small)
    assert [text for text in session.warnings if "measures noise" in text]
    session.close()
    session = tiny_session(["kdd"], {**small, "compute.precision": "float64"})
    assert not [text for text in session.warnings if "measures noise" in text]
    session.close()


def test_a_saturated_hinge_is_reported_and_an_active_one_is_not() -> None:
    session = tiny_session(["kdd"], {"kdd.tau": 0.05, "kdd.anchors": 1})
    method = session.manager.methods["kdd"]
    said = method.advise({"active_real": 0.001, "active_fake": 0.0})
    assert "raise kdd.tau" in said["saturated"]
    assert "augmented copies" in said["saturated"]
    for values in (
        {"active_real": 0.5, "active_fake": 0.0},
        {},
        {"active_real": float("nan"), "active_fake": 0.0},
    ):
        assert method.advise(values) is None
    session.close()
    session = tiny_session(["kdd"])
    said = session.manager.methods["kdd"].advise({"active_real": 0.0, "active_fake": 0.0})
    assert "lower optimizer.d.lr" in said["saturated"]
    session.close()


def test_presets_hold_the_settings_of_the_paper() -> None:
    names = {field.name for field in dataclasses.fields(KddOptions)}
    for values in KddOptions.presets.values():
        assert set(values) <= names
        KddOptions(**values).check()
    session = tiny_session(["hinge", "kdd"], {"kdd.preset": "joint_dagger", "kdd.weight": 1.0})
    chosen = session.config.methods["kdd"]
    assert (chosen.weight, chosen.dagger, chosen.as_term) == (1.0, True, True)
    session.close()


def test_a_dead_feature_leaves_everything_finite() -> None:
    """D's features are all zero: no direction, no gradient, no NaN."""
    session = tiny_session(["kdd"])
    method = session.manager.methods["kdd"]
    with torch.no_grad():
        method.head.linear.weight.zero_()
    run_steps(session, 1)
    assert all(torch.isfinite(p).all() for p in session.trainer.discriminator.parameters())
    assert functional.unit(torch.zeros(2, 3)).abs().max() == 0
    session.close()
