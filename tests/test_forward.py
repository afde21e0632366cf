"""Execution changes nothing: concatenated or one by one, whole or in pieces; leaves are isolated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from methods_for_tests import ALL, BRIGHTEN, NEAR
from torch import Tensor, nn

from gancore.api import Discriminator, TapSpec
from gancore.assembly import Session
from gancore.errors import ConfigError
from gancore.testing import (
    different,
    largest_relative_difference,
    registry_with,
    run_steps,
    tensors_of,
    tiny_session,
)

MIX = ["adaptivemix", "shrink", "head", "near", "r1"]

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "dcgan": {"network.name": "dcgan"},
    "dcgan, BatchNorm in D": {"network.name": "dcgan", "network.d_norm": "batch"},
    "dcgan, conditional": {"network.name": "dcgan", "data.conditional": True},
    "sngan": {"network.name": "sngan"},
    "sngan, conditional": {"network.name": "sngan", "data.conditional": True},
    "mlp": {"network.name": "mlp"},
    "mlp, conditional": {"network.name": "mlp", "data.conditional": True},
}


def trained(plugins: list[str], overrides: Mapping[str, Any], steps: int = 2) -> dict[str, Tensor]:
    session = tiny_session(
        plugins, {"compute.precision": "float64", "train.batch": 4, **overrides}, registry_with(*ALL)
    )
    run_steps(session, steps)
    session.close()
    return tensors_of(session)


@pytest.mark.parametrize("network", NETWORKS)
def test_concatenated_equals_one_by_one(network: str) -> None:
    """Weights, averages, moments and running buffers after two steps, to 1e-10 in float64."""
    plugins = MIX if network.startswith("mlp") else [*MIX, "brighten"]
    together = trained(plugins, NETWORKS[network])
    apart = trained(plugins, {**NETWORKS[network], "compute.execution": "sequential"})
    assert largest_relative_difference(together, apart) < 1e-10


def test_concatenation_does_merge_calls() -> None:
    """The check above compares two different executions."""
    counts = {}
    for execution in ("concat", "sequential"):
        session = tiny_session(["shrink"], {"compute.execution": execution}, registry_with(*ALL))
        calls = []
        features = session.trainer.discriminator.features
        session.trainer.discriminator.features = lambda *a: calls.append(len(a[0])) or features(*a)
        run_steps(session, 1)
        counts[execution] = calls
        session.close()
    assert counts["concat"] == [32, 8]
    assert counts["sequential"] == [8, 8, 8, 8, 8]


@pytest.mark.parametrize("rows", [3, 4, 8])
def test_micro_batches_give_the_gradients_of_the_whole_batch(rows: int) -> None:
    """Also for a batch-wide loss, a penalty and views that need no logits."""
    plugins = ["adaptivemix", "shrink", "head", "r1"]
    network = {"network.name": "mlp"}
    whole = trained(plugins, network)
    pieces = trained(plugins, {**network, "compute.micro_batch_d": rows, "compute.micro_batch_g": rows})
    assert largest_relative_difference(whole, pieces) < 1e-10


def test_micro_batches_of_d_beside_a_coupled_generator() -> None:
    whole = trained(["adaptivemix", "r1", "gp"], {})
    pieces = trained(["adaptivemix", "r1", "gp"], {"compute.micro_batch_d": 3})
    assert largest_relative_difference(whole, pieces) < 1e-10


def test_coupled_networks_refuse_micro_batches() -> None:
    with pytest.raises(ConfigError, match="micro_batch_g = 2: rows of this network depend on each other"):
        tiny_session([], {"compute.micro_batch_g": 2})
    with pytest.raises(ConfigError, match="micro_batch_d = 2"):
        tiny_session([], {"compute.micro_batch_d": 2, "network.d_norm": "batch"})


def test_micro_batches_and_iterating_in_every_pass_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="choose per_phase, or no micro-batches"):
        tiny_session([], {"compute.micro_batch_d": 2, "train.spectral_norm": "per_view"})


def test_extra_latents_leave_the_running_statistics_alone() -> None:
    """The base latents alone move G's running statistics: adding a latent set changes none of them."""
    registry = registry_with(NEAR)
    alone = run_steps(tiny_session([], registry=registry), 1)
    mixed = run_steps(tiny_session(["near"], registry=registry), 1)
    # G's statistics after one D phase and one G phase depend on the base latents and on G's first weights only
    names = [n for n in tensors_of(alone) if n.startswith("g.") and "running" in n]
    assert names
    assert not [n for n in different(tensors_of(alone), tensors_of(mixed)) if n in names]


def test_statistics_of_a_latent_set_are_its_own() -> None:
    """Images at near latents equal those of a separate call of G in training mode."""
    session = tiny_session(["near"], {"compute.precision": "float64"}, registry_with(NEAR))
    step = forwarded(session, "d")
    latents = step.latents
    step.caller = "near"
    near = latents + 0.05 * step.rng("near").normal(*latents.shape).to(latents.dtype)
    with torch.no_grad():
        expected = session.trainer.generator(near)
    assert torch.equal(step.built["near.near"], expected)
    session.close()


def forwarded(session: Session, phase: str):
    """A step of a phase whose program has run and whose losses are computed."""
    trainer = session.trainer
    program = trainer.plan.full_program(phase)
    assert program is not None
    step = trainer.new_step(program, 0)
    trainer.loss(step)
    return step


def test_a_penalty_isolates_what_depends_on_its_leaf() -> None:
    """R1 on augmented reals: only `real` is in the leaf's group, and other views see constants."""
    session = tiny_session(["shrink", "r1", "brighten"], registry=registry_with(*ALL))
    program = session.plan.full_program("d")
    assert program is not None
    leaf_groups = [g for g in program.groups if g.key.leaves]
    assert [g.views for g in leaf_groups] == [("real",)]
    assert leaf_groups[0].key.leaves == {"real_raw"}
    step = forwarded(session, "d")
    assert step.leaves["real_raw"].requires_grad
    assert not step.built["real"].requires_grad
    assert not step.built["shrink.real"].requires_grad
    session.close()


def test_r1_flows_through_the_augmentation() -> None:
    """With respect to raw reals the gradient carries the augmentation's factor 0.9; to augmented ones not."""
    norms = {}
    for through in (True, False):
        session = tiny_session(
            ["r1", "brighten"],
            {"r1.through_augmentation": through, "compute.precision": "float64"},
            registry_with(BRIGHTEN),
        )
        step = forwarded(session, "d")
        step.caller = "r1"
        norms[through] = step.input_gradient("penalty").detach()
        session.close()
    torch.testing.assert_close(norms[True], 0.9 * norms[False], rtol=1e-12, atol=0)


def test_views_of_one_side_share_the_draw() -> None:
    """A view with augment="fake" is augmented exactly as the fakes are."""
    session = tiny_session(["near", "brighten"], {"compute.precision": "float64"}, registry_with(NEAR, BRIGHTEN))
    step = forwarded(session, "d")
    images = step.built
    torch.testing.assert_close(
        images["near.fake"] - images["near.near"] * 0.9, images["fake"] - images["fake_raw"] * 0.9
    )
    session.close()


def test_d_is_frozen_in_the_phases_of_g_and_reals_need_no_graph() -> None:
    session = tiny_session(["relativistic", "head"], registry=registry_with(*ALL))
    program = session.plan.full_program("g")
    assert program is not None
    grads = {view: group.key.grad for group in program.groups for view in group.views}
    assert grads == {"real": False, "fake": True}
    session.close()


def test_precision_is_part_of_the_group_key() -> None:
    """A float32 pair never shares a forward with views in reduced precision, and keeps its digits."""
    from gancore.declaration import Declarations, ImageView, Term
    from gancore.program import Compiler

    declared = Declarations()
    for name, precision in (("m.a", "float32"), ("m.b", "float32"), ("m.c", None)):
        declared.images[name] = ImageView(
            name, "m", lambda s, x: x, ("real",), "real", 1, None, precision, True, True
        )
    reads = {name: ("trunk",) for name in ("m.a", "m.b", "m.c", "real")}
    term = Term("m", "jac", "d", 1.0, 1, reads, (), None)
    compiler = Compiler(declared, taps=["trunk"], augmented_sides=frozenset(), objective="m")
    groups = compiler.compile("d", [term], []).groups
    assert [(g.key.precision, g.views) for g in groups] == [(None, ("real", "m.c")), ("float32", ("m.a", "m.b"))]


def test_spectral_norm_iterates_once_a_phase_in_both_executions() -> None:
    for execution in ("concat", "sequential"):
        session = tiny_session(["shrink"], {"compute.execution": execution}, registry_with(*ALL))
        trainer = session.trainer
        norm = trainer.forward._d_norms[0].parametrisation
        before = norm._u.clone()
        trainer.forward.begin_phase()
        once = norm._u.clone()
        forward = forwarded(session, "d")
        assert forward is not None
        # begin_phase ran once more inside the phase; all views then shared that one state
        assert not torch.equal(before, once)
        assert not norm.training
        session.close()


def test_per_view_power_iteration_is_an_option() -> None:
    session = tiny_session([], {"train.spectral_norm": "per_view"})
    run_steps(session, 1)
    assert session.trainer.forward._d_norms[0].parametrisation.training
    session.close()


class GroupedD(Discriminator):
    """Minibatch standard deviation over strided groups of two, by hand."""

    def __init__(self) -> None:
        super().__init__(taps={"trunk": TapSpec((3,), "sum over pixels")}, coupling="grouped", group_size=2)
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.float64))

    def features(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"trunk": images.flatten(2).sum(2).repeat(1, 3)[:, :3]}

    def head(self, features: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        trunk = features["trunk"]
        grouped = trunk.reshape(2, len(trunk) // 2, 3)  # sample n is in group n mod (N / 2)
        spread = grouped.var(0, unbiased=False).add(1e-8).sqrt().mean(1).repeat(2)
        return torch.cat([trunk, spread[:, None]], 1) @ self.weight


def test_grouped_coupling_is_interleaved() -> None:
    """Minibatch statistics stay inside a view: one interleaved call equals one call a view."""
    results = {}
    for execution in ("concat", "sequential"):
        session = tiny_session(
            ["shrink"], {"compute.precision": "float64", "compute.execution": execution}, registry_with(*ALL)
        )
        torch.manual_seed(0)
        session.trainer.forward.discriminator = GroupedD()
        step = forwarded(session, "d")
        results[execution] = {view: out["logits"] for view, out in step.outputs.items() if "logits" in out}
        session.close()
    assert set(results["concat"]) == {"real", "fake", "shrink.fake"}
    for view, logits in results["concat"].items():
        torch.testing.assert_close(logits, results["sequential"][view], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", ["dcgan", "sngan", "mlp"])
def test_bf16_is_finite_and_losses_are_float32(network: str) -> None:
    plugins = ["adaptivemix", "r1", "gp"]
    session = tiny_session(plugins, {"network.name": network, "compute.precision": "bf16"})
    step = forwarded(session, "d")
    assert {tensor.dtype for outputs in step.outputs.values() for tensor in outputs.values()} == {torch.float32}
    run_steps(session, 2)
    assert session.trainer.telemetry.is_finite()
    session.close()


def test_channels_last_gives_the_same_numbers() -> None:
    plain = trained(["adaptivemix"], {})
    channels_last = trained(["adaptivemix"], {"compute.memory_format": "channels_last"})
    assert largest_relative_difference(plain, channels_last) < 1e-10
