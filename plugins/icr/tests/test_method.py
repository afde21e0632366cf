"""Both methods in a run: every term by hand from D and G, switches, mixes, resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gancore
from gancore import checkpoint
from gancore.api import Method, MethodSpec, hookimpl
from gancore.run import resume
from gancore.testing import (
    different,
    registry_with,
    run_steps,
    skip_without,
    tensors_of,
    tiny_config,
    tiny_session,
    training_tensors,
)
from gancore_icr import functional
from gancore_icr.method import CR_DRAW, ICR_DRAW

OFF = {"icr.lambda_real": 0.0, "icr.lambda_fake": 0.0, "icr.lambda_dis": 0.0, "icr.lambda_gen": 0.0}


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


GRAIN = MethodSpec(name="grain", summary="Noise, for tests.", target=f"{__name__}:Grain")
REGISTRY = registry_with(GRAIN)


def forwarded(session, phase="d"):
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    total = trainer.loss(step)
    return step, total


def terms_of(session, step, method):
    """The raw terms of a method in a phase, without a graph."""
    step.caller = method
    hook = getattr(session.manager.methods[method], f"{step.program.network}_loss")
    return {name: value.detach() for name, value in hook(step).items()}


def looped(a, b, reduction="mean"):
    """Mean over the batch of the mean (or sum) of squares, in numpy."""
    squares = (a.detach().numpy() - b.detach().numpy()) ** 2
    per_sample = squares.reshape(len(squares), -1)
    return np.mean(per_sample.mean(1) if reduction == "mean" else per_sample.sum(1))


def by_hand_t(images, drawn):
    """T from its definition, with numpy's padding."""
    out = []
    height, width = images.shape[2:]
    for i, image in enumerate(images.detach().numpy()):
        if drawn.flip is not None and drawn.flip[i]:
            image = image[:, :, ::-1]
        if drawn.shift is not None:
            down, right = drawn.shift[i].tolist()
            padded = np.pad(image, ((0, 0), (8, 8), (8, 8)), mode="reflect")
            image = padded[:, 8 - down : 8 - down + height, 8 - right : 8 - right + width]
        out.append(torch.from_numpy(np.ascontiguousarray(image)))
    return torch.stack(out)


VARIANTS = {
    "plain": ([], {}),
    "augmented": (["grain"], {}),
    "augmented, clean differences": (["grain"], {"icr.on": "clean"}),
    "conditional, biggan": (["grain"], {"data.conditional": True, "icr.preset": "biggan"}),
    "features": (["hinge"], {"icr.output": "trunk", "icr.reduction": "sum"}),
    "flip alone": ([], {"icr.transform": "flip"}),
    "translation alone": (["grain"], {"icr.transform": "translation", "icr.max_shift": 0.4}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_terms_of_d_equal_a_computation_from_d_and_g_by_hand(variant: str) -> None:
    """Both sides of a difference have the labels of their row and the draws of their side's augmentation."""
    plugins, overrides = VARIANTS[variant]
    session = tiny_session(["icr", *plugins], {"compute.precision": "float64", **overrides}, REGISTRY)
    step, _ = forwarded(session)
    chosen = session.manager.methods["icr"].options
    d, g = session.trainer.discriminator, session.trainer.generator
    drawn = step.stash[ICR_DRAW]

    def augmented(images, side):
        if "grain" not in plugins or chosen.on == "clean":
            return images
        return 0.5 * images + step.augmentation[side]["grain"]["noise"].double()

    def output(images, labels):
        taps = d.features(images, labels)
        return d.head(taps, labels) if chosen.output == "logits" else taps[chosen.output]

    noise = drawn.noise.double()
    with torch.no_grad():
        near = g(step.latents + chosen.sigma * noise, step.labels["fake"])
    raw = {side: step.built.get(f"{side}_raw", step.built[side]) for side in ("real", "fake")}
    torch.testing.assert_close(near, step.built["icr.near"], rtol=1e-12, atol=1e-12)
    got = terms_of(session, step, "icr")
    for side in ("real", "fake"):
        labels = step.labels[side]
        changed = by_hand_t(raw[side], drawn.changes[side])
        assert not torch.equal(changed, raw[side])
        first, second = (output(augmented(images, side), labels) for images in (raw[side], changed))
        expected = looped(first, second, chosen.reduction)
        assert float(got[f"bcr_{side}"]) == pytest.approx(expected, rel=1e-9)
    first, second = (output(augmented(images, "fake"), step.labels["fake"]) for images in (raw["fake"], near))
    assert float(got["zcr"]) == pytest.approx(looped(first, second, chosen.reduction), rel=1e-7)
    session.close()


@pytest.mark.parametrize(
    "options", [{}, {"icr.reduction": "sum"}, {"icr.gen_bound": 1e-6}, {"data.conditional": True}]
)
def test_the_term_of_g_equals_a_computation_from_g_by_hand(options: dict) -> None:
    session = tiny_session(["icr", "grain"], {"compute.precision": "float64", **options}, REGISTRY)
    step, _ = forwarded(session, "g")
    chosen = session.manager.methods["icr"].options
    g = session.trainer.generator
    with torch.no_grad():
        base = g(step.latents, step.labels["fake"])
        near = g(step.latents + chosen.sigma * step.stash[ICR_DRAW].noise.double(), step.labels["fake"])
    squares = ((base - near) ** 2).flatten(1).numpy()
    distances = squares.sum(1) if chosen.reduction == "sum" else squares.mean(1)
    expected = -np.mean(np.minimum(distances, chosen.gen_bound) if chosen.gen_bound else distances)
    assert float(terms_of(session, step, "icr")["zcr"]) == pytest.approx(expected, rel=1e-7)
    session.close()


def test_both_sides_of_every_difference_pass_the_chain_with_the_same_draws() -> None:
    session = tiny_session(["icr", "grain"], {"compute.precision": "float64"}, REGISTRY)
    step, _ = forwarded(session)
    built, drawn = step.built, step.stash[ICR_DRAW]
    pairs = {
        "real": ("icr.real_t", functional.change(built["real_raw"], drawn.changes["real"])),
        "fake": ("icr.fake_t", functional.change(built["fake_raw"], drawn.changes["fake"])),
    }
    for side, (view, clean) in pairs.items():
        noise = built[side] - 0.5 * built[f"{side}_raw"]
        assert noise.std() > 0.5
        torch.testing.assert_close(built[view] - 0.5 * clean, noise)
    fake_noise = built["fake"] - 0.5 * built["fake_raw"]
    torch.testing.assert_close(built["icr.near_seen"] - 0.5 * built["icr.near"], fake_noise)
    session.close()


def test_clean_differences_are_taken_from_images_without_augmentation() -> None:
    session = tiny_session(["icr", "grain"], {"icr.on": "clean"}, REGISTRY)
    step, _ = forwarded(session)
    assert set(session.plan.full_program("d").readable["icr"]) == {
        "real_raw", "icr.real_t", "fake_raw", "icr.fake_t", "icr.near",
    }  # fmt: skip
    torch.testing.assert_close(
        step.built["icr.real_t"], functional.change(step.built["real_raw"], step.stash[ICR_DRAW].changes["real"])
    )
    session.close()


def test_without_an_augmenter_clean_and_augmented_are_the_same_run() -> None:
    first = run_steps(tiny_session(["icr"], {"icr.on": "augmented"}), 2)
    second = run_steps(tiny_session(["icr"], {"icr.on": "clean"}), 2)
    assert not different(tensors_of(first), tensors_of(second))


def test_the_weights_are_those_of_the_options_and_the_terms_carry_their_names() -> None:
    session = tiny_session(["icr"])
    weights = {(t.network, t.key): t.weight for t in session.plan.declarations.terms if t.method == "icr"}
    assert weights == {
        ("d", "icr/bcr_real"): 10.0,
        ("d", "icr/bcr_fake"): 10.0,
        ("d", "icr/zcr"): 5.0,
        ("g", "icr/zcr"): 0.5,
    }
    assert session.plan.full_program("d").rows() == 5
    assert session.plan.full_program("g").rows() == 1
    session.close()


def test_the_loss_is_the_weighted_sum() -> None:
    session = tiny_session(["icr"], {"compute.precision": "float64"})
    step, total = forwarded(session)
    own, adv = terms_of(session, step, "icr"), terms_of(session, step, "nonsaturating")["adv"]
    expected = adv + 10 * own["bcr_real"] + 10 * own["bcr_fake"] + 5 * own["zcr"]
    torch.testing.assert_close(total.detach(), expected, rtol=1e-12, atol=0)
    step, total = forwarded(session, "g")
    own, adv = terms_of(session, step, "icr"), terms_of(session, step, "nonsaturating")["adv"]
    torch.testing.assert_close(total.detach(), adv + 0.5 * own["zcr"], rtol=1e-12, atol=0)
    session.close()


@pytest.mark.parametrize(("preset", "values"), [("dcgan", (0.03, 5.0, 0.5)), ("biggan", (0.05, 20.0, 0.5))])
def test_presets(preset: str, values: tuple[float, ...]) -> None:
    session = tiny_session(["icr"], {"icr.preset": preset})
    chosen = session.manager.methods["icr"].options
    assert (chosen.sigma, chosen.lambda_dis, chosen.lambda_gen) == values
    assert (chosen.lambda_real, chosen.lambda_fake) == (10.0, 10.0)
    session.close()


@pytest.mark.parametrize("name", sorted(OFF))
def test_each_term_alone_needs_only_what_is_its_own(name: str) -> None:
    alone = {key: value for key, value in OFF.items() if key != name}
    session = tiny_session(["icr"], alone)
    declared = {(t.network, t.name) for t in session.plan.declarations.terms if t.method == "icr"}
    term, network, views = {
        "icr.lambda_real": ("bcr_real", "d", {"icr.real_t"}),
        "icr.lambda_fake": ("bcr_fake", "d", {"icr.fake_t"}),
        "icr.lambda_dis": ("zcr", "d", {"icr.near", "icr.near_seen"}),
        "icr.lambda_gen": ("zcr", "g", {"icr.near"}),
    }[name]
    assert declared == {(network, term)}
    built = {n.name for phase in "dg" for n in session.plan.full_program(phase).images if "icr" in n.name}
    assert built == views
    step, _ = forwarded(session, network)
    drawn = step.stash[ICR_DRAW]
    assert set(drawn.changes) == ({term.removeprefix("bcr_")} if network == "d" and term != "zcr" else set())
    assert (drawn.noise is not None) == (term == "zcr")
    run_steps(session, 1).close()


def test_all_weights_zero_are_the_same_as_absence() -> None:
    first, second = (
        run_steps(tiny_session(["icr", "cr"], {**OFF, "cr.lambda_real": 0.0}), 2),
        run_steps(tiny_session(), 2),
    )
    assert not different(training_tensors(first), training_tensors(second))


def test_dropping_one_term_moves_no_other_draw() -> None:
    sessions = tiny_session(["icr"]), tiny_session(["icr"], {"icr.lambda_real": 0.0})
    first, second = (forwarded(session)[0].stash[ICR_DRAW] for session in sessions)
    assert torch.equal(first.changes["fake"].shift, second.changes["fake"].shift)
    assert torch.equal(first.noise, second.noise)
    assert not torch.equal(first.changes["real"].shift, first.changes["fake"].shift)


def test_cr_is_bcr_on_reals_alone() -> None:
    """The same T of other draws: their values agree when the draw does."""
    session = tiny_session(["cr"], {"compute.precision": "float64"})
    step, total = forwarded(session)
    d, drawn = session.trainer.discriminator, step.stash[CR_DRAW].changes["real"]
    first, second = (
        d.head(d.features(images, None), None)
        for images in (step.built["real"], by_hand_t(step.built["real"], drawn))
    )
    got = terms_of(session, step, "cr")
    assert float(got["consistency"]) == pytest.approx(looped(first, second), rel=1e-9)
    adv = terms_of(session, step, "nonsaturating")["adv"]
    torch.testing.assert_close(total.detach(), adv + 10 * got["consistency"], rtol=1e-12, atol=0)
    assert not [t for t in session.plan.declarations.terms if t.method == "cr" and t.network == "g"]
    assert session.plan.full_program("d").rows() == 3
    session.close()


MIXES = {
    "r1": (["icr", "r1"], {}),
    "r1 through the chain": (["icr", "r1", "grain"], {"r1.every": 2, "train.lazy": "separate"}),
    "wgan + gp, n_critic 2": (["icr", "wgan", "gp"], {"wgan.clip": 0.0, "train.n_critic": 2}),
    "cr + zcr": (["icr", "cr"], {"icr.lambda_real": 0.0, "icr.lambda_fake": 0.0}),
    "cr + hinge": (["cr", "hinge", "grain"], {"cr.on": "clean", "cr.output": "pooled", "cr.reduction": "sum"}),
    "relativistic, features": (["icr", "relativistic"], {"icr.output": "pooled"}),
    "points": (["icr"], {"network.name": "mlp", "icr.lambda_real": 0.0, "icr.lambda_fake": 0.0}),
    "points, bound": (["icr"], {"network.name": "mlp", **OFF, "icr.lambda_gen": 1.0, "icr.gen_bound": 0.1}),
    "bf16": (["icr", "grain"], {"compute.precision": "bf16"}),
    "sngan, conditional": (["icr"], {"network.name": "sngan", "data.conditional": True}),
    "BatchNorm in D": (["icr"], {"network.d_norm": "batch"}),
    "micro-batches": (["icr", "grain"], {"compute.micro_batch_d": 3}),
}  # fmt: skip


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_train(mix: str) -> None:
    plugins, overrides = MIXES[mix]
    skip_without(plugins, REGISTRY)
    session = run_steps(tiny_session(plugins, overrides, REGISTRY), 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_concatenated_and_one_by_one_agree() -> None:
    given = {"compute.precision": "float64"}
    first = run_steps(tiny_session(["icr", "r1", "grain"], given, REGISTRY), 1)
    second = run_steps(
        tiny_session(["icr", "r1", "grain"], {**given, "compute.execution": "sequential"}, REGISTRY), 1
    )
    for name, tensor in training_tensors(first).items():
        torch.testing.assert_close(tensor, training_tensors(second)[name], rtol=1e-8, atol=1e-10)


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    config = tiny_config(["icr", "grain", "r1"], {"train.steps": 4, "output.snap": 2, "output.log_every": 2})
    whole = gancore.train(config, registry=REGISTRY, outdir=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for file in (tmp_path / "part" / "checkpoints").iterdir():
        if "00000004" in file.name:
            file.unlink()
    part = resume(tmp_path / "part", registry=REGISTRY)
    first, second = (checkpoint.load_latest(run.folder.checkpoints) for run in (whole, part))
    assert first.step == second.step == 4
    assert not different(first.tensors, second.tensors)
    assert whole.metrics[-1]["icr/near"] == part.metrics[-1]["icr/near"]


def test_what_advice_is_made_of_is_logged(tmp_path: Path) -> None:
    config = tiny_config(["icr"], {"train.steps": 2, "output.log_every": 1, "icr.reduction": "sum"})
    row = gancore.train(config, outdir=tmp_path / "run").metrics[-1]
    assert row["icr/near"] == pytest.approx(-row["icr/zcr.g"] / 256, rel=1e-5)
    assert row["icr/far"] > row["icr/near"] > 0


def test_the_functional_core_stands_alone() -> None:
    source = Path(functional.__file__).read_text(encoding="utf-8")
    assert "gancore" not in source.replace("gancore_icr", "")
