"""Outputs that methods compute from D's taps: read by anyone, alike in every execution."""

from __future__ import annotations

import pytest
import torch
from methods_for_tests import spec_of
from torch import nn

from gancore.api import Claims, Method, Need, Penalty, PluginError, hookimpl
from gancore.testing import (
    different,
    largest_relative_difference,
    registry_with,
    run_steps,
    tensors_of,
    tiny_session,
)


class Head(Method):
    """Brings the tap ``head.vector`` and trains it a little."""

    source, shape = "pooled", (3,)

    @hookimpl
    def declare_taps(self, plan):
        plan.tap("head.vector", source=self.source, compute=self.compute, shape=self.shape, help="A vector.")

    @hookimpl
    def declare(self, plan):
        assert plan.taps["head.vector"].shape == (3,)
        plan.term("size", "d", reads={"real": ("head.vector",), "fake": ("head.vector",)})

    @hookimpl
    def setup(self, run):
        width = run.discriminator.taps["pooled"].shape[0]
        self.linear = run.add_module("linear", nn.Linear(width, 3), trained_by="d")

    def compute(self, features):
        assert not torch.is_autocast_enabled("cpu")
        return self.linear(features)

    @hookimpl
    def d_loss(self, step):
        return self.terms(size=sum(step.d[side].taps["head.vector"].square().mean() for side in ("real", "fake")))


class Reader(Method):
    """Reads another method's tap on a view of its own; declared before ``head`` by name."""

    @hookimpl
    def declare(self, plan):
        plan.view("a-reader.dark", lambda step, images: images * 0.5, sources=("real",))
        both = {"real": ("head.vector",), "a-reader.dark": ("head.vector", "logits")}
        plan.term("near", "d", reads=both)
        plan.term("slope", "d", penalty=Penalty("real", "real", "head.vector"), every=2)

    @hookimpl
    def d_loss(self, step):
        difference = step.d["real"].taps["head.vector"] - step.d["a-reader.dark"].taps["head.vector"]
        terms = {"near": difference.square().mean() + 0 * step.d["a-reader.dark"].logits.mean()}
        if step.wants("slope"):
            terms["slope"] = step.input_gradient("slope").square().mean()
        return self.terms(**terms)


def offering(*names):
    return lambda chosen: Claims(offers=frozenset(f"tap:{name}" for name in names))


HEAD = spec_of(Head, "head", claims=offering("head.vector"))
READER = spec_of(
    Reader, "a-reader", claims=lambda chosen: Claims(needs=(Need("tap:head.vector", "name -p head"),))
)


def session_of(plugins, *specs, **options):
    return tiny_session(plugins, options, registry_with(*specs))


@pytest.mark.parametrize("network", ["dcgan", "sngan"])
def test_concatenated_is_one_by_one(network) -> None:
    exact = {"compute.precision": "float64", "network.name": network}
    found = [
        run_steps(session_of(["head", "a-reader"], HEAD, READER, **exact, **{"compute.execution": how}), 2)
        for how in ("concat", "sequential")
    ]
    first, second = (tensors_of(session) for session in found)
    del first["telemetry.sums"], second["telemetry.sums"]
    assert largest_relative_difference(first, second) < 1e-10
    for session in found:
        session.close()


def test_its_values_are_the_method_applied_to_the_tap() -> None:
    session = session_of(["head"], HEAD)
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program("d"), 0)
    trainer.loss(step)
    pooled = trainer.discriminator.features(step.built["real"], None)["pooled"]
    expected = session.manager.methods["head"].linear(pooled)
    torch.testing.assert_close(step.outputs["real"]["head.vector"], expected, rtol=1e-5, atol=1e-6)
    assert "pooled" not in step.outputs["real"]  # nobody asked for it
    session.close()


def test_it_runs_in_float32_in_bf16_runs_and_its_module_trains() -> None:
    session = session_of(["head", "a-reader"], HEAD, READER, **{"compute.precision": "bf16"})
    before = tensors_of(session)
    after = tensors_of(run_steps(session, 1))
    assert "methods.head.linear.weight" in different(before, after)
    session.close()


def test_a_micro_batch_gives_the_same_gradients() -> None:
    exact = {"compute.precision": "float64"}
    found = [
        tensors_of(
            run_steps(
                session_of(["head", "a-reader"], HEAD, READER, **exact, **{"compute.micro_batch_d": rows}), 2
            )
        )
        for rows in (0, 3)
    ]
    for tensors in found:
        del tensors["telemetry.sums"]
    assert largest_relative_difference(*found) < 1e-10


def test_who_needs_a_tap_that_nobody_brings_is_told() -> None:
    with pytest.raises(
        PluginError, match="'a-reader' needs tap:head.vector, which no method of this run derives: name"
    ):
        session_of(["a-reader"], READER)


class WrongShape(Head):
    shape = (4,)


class UnknownSource(Head):
    source = "poled"


class Silent(Method):
    pass


@pytest.mark.parametrize(
    ("cls", "claims", "message"),
    [
        (WrongShape, offering("head.vector"), r"'head', tap 'head.vector' returned \(8, 3\)"),
        (UnknownSource, offering("head.vector"), "derives 'head.vector' from tap 'poled' .did you mean 'pooled'"),
        (Head, offering(), "without offering 'tap:head.vector'"),
        (Silent, offering("head.vector"), "'head' offers 'tap:head.vector' and does not declare it"),
    ],
)
def test_a_wrong_declaration_is_refused(cls, claims, message) -> None:
    if cls is WrongShape:
        cls.declare = hookimpl(lambda self, plan: plan.term("size", "d", reads={"real": ("head.vector",)}))
    with pytest.raises(PluginError, match=message):
        session_of(["head"], spec_of(cls, "head", claims=claims))


def test_no_feature_view_enters_there() -> None:
    class Enters(Head):
        @hookimpl
        def declare(self, plan):
            plan.feature_view("head.f", lambda step, v: v, tap="head.vector", sources=(("real", "head.vector"),))

    with pytest.raises(PluginError, match="enters D at tap 'head.vector'"):
        session_of(["head"], spec_of(Enters, "head", claims=offering("head.vector")))
