"""The loop: what a step is, which gradients exist, and what adding a method may not change."""

from __future__ import annotations

import pytest
import torch
from methods_for_tests import ALL, Head, Shrink, broken, spec_of

from gancore.api import Claims, Method, hookimpl
from gancore.errors import PluginError
from gancore.testing import (
    different,
    registry_with,
    run_steps,
    tensors_of,
    tiny_session,
    training_tensors,
)

REGISTRY = registry_with(*ALL)


def after(plugins, overrides=None, steps=3, registry=REGISTRY):
    session = run_steps(tiny_session(plugins, overrides, registry), steps)
    session.close()
    return session


@pytest.mark.parametrize("weighted", ["adaptivemix", "shrink", "head", "near", "brighten", "r1"])
def test_weight_zero_is_bit_equal_to_absence(weighted: str) -> None:
    absent = after(["hinge"])
    present = after(["hinge", weighted], {f"{weighted}.weight": 0})
    assert not different(training_tensors(absent), training_tensors(present))


def test_weight_zero_in_a_mix_is_bit_equal_to_absence_in_it() -> None:
    absent = after(["adaptivemix", "r1", "brighten"])
    present = after(["adaptivemix", "shrink", "r1", "brighten"], {"shrink.weight": 0})
    assert not different(training_tensors(absent), training_tensors(present))


def test_a_weight_above_zero_does_change_the_run() -> None:
    """So the two tests above compare something."""
    assert different(training_tensors(after(["hinge"])), training_tensors(after(["hinge", "shrink"])))


def test_registration_order_changes_no_bit() -> None:
    first = after(["adaptivemix", "shrink", "head", "near", "r1", "hinge"])
    second = after(["hinge", "r1", "near", "head", "shrink", "adaptivemix"])
    assert not different(tensors_of(first), tensors_of(second))


def test_the_order_of_augmenters_is_meaning() -> None:
    class Darken(Method):
        @hookimpl
        def augment(self, run):
            return Power()

    class Power:
        sides = ("real", "fake")

        def draw(self, step, side, shape):
            return {"power": step.rng(side).uniform(1)}

        def transform(self, images, draw):
            return images * images * draw["power"]

    registry = registry_with(*ALL, spec_of(Darken, "darken"))
    first = after(["darken", "brighten"], registry=registry)
    second = after(["brighten", "darken"], registry=registry)
    assert different(training_tensors(first), training_tensors(second))


def test_adding_a_method_moves_neither_data_nor_latents_of_others() -> None:
    seen = {}

    def record(name):
        class Recorder(Shrink):
            @hookimpl
            def after_d_step(self, step):
                seen.setdefault(name, []).append((step.images["real"].clone(), step.latents.clone()))

        return spec_of(Recorder, "recorder")

    after(["recorder"], registry=registry_with(record("alone")))
    after(["recorder", "adaptivemix", "relativistic"], registry=registry_with(record("mixed")))
    for (reals_a, latents_a), (reals_b, latents_b) in zip(seen["alone"], seen["mixed"], strict=True):
        assert torch.equal(reals_a, reals_b)
        assert torch.equal(latents_a, latents_b)


def test_reals_of_the_g_phase_come_from_a_stream_of_their_own() -> None:
    session = tiny_session(["relativistic"], registry=REGISTRY)
    loader = session.loader
    calls = []
    batch = loader.batch
    loader.batch = lambda stream, start, count: (
        calls.append((stream, start, count)) or batch(stream, start, count)
    )
    run_steps(session, 2)
    assert calls == [("d", 0, 8), ("g", 0, 8), ("d", 8, 8), ("g", 8, 8)]
    session.close()


def test_gradients_reach_only_the_network_of_the_phase() -> None:
    touched = {}

    class Watcher(Head):
        @hookimpl
        def after_d_step(self, step):
            touched["d"] = {n for n, p in named.items() if p.grad is not None and p.grad.abs().sum() > 0}

        @hookimpl
        def after_g_step(self, step):
            touched["g"] = {n for n, p in named.items() if p.grad is not None and p.grad.abs().sum() > 0}

    session = tiny_session(
        ["watcher", "adaptivemix"],
        {"adaptivemix.preset": "official"},
        registry_with(spec_of(Watcher, "watcher", claims=lambda chosen: Claims())),
    )
    trainer = session.trainer
    named = {f"d.{n}": p for n, p in trainer.trained["d"].items()}
    named |= {f"g.{n}": p for n, p in trainer.trained["g"].items()}
    run_steps(session, 1)
    assert {n[0] for n in touched["d"]} == {"d"}
    assert "d.methods.watcher.linear.weight" in touched["d"]
    for parameter in named.values():
        parameter.grad = None
    trainer.update("g", 0)
    assert {n[0] for n in touched["g"]} == {"g"}
    session.close()


def test_parameters_no_term_reaches_leave_the_optimiser() -> None:
    session = tiny_session(["head"], registry=REGISTRY)
    assert session.trainer.unreached["d"] == {"methods.head.unused.weight", "methods.head.unused.bias"}
    assert "methods.head.unused.weight" not in session.trainer.optimizers["d"].named
    assert "methods.head.linear.weight" in session.trainer.optimizers["d"].named
    session.close()


def test_what_a_network_has_frozen_stays_frozen() -> None:
    """A fixed projection inside D or a method's head is neither trained nor thawed by the change of phases."""

    class Partly(Head):
        @hookimpl
        def setup(self, run):
            Head.setup(self, run)
            self.linear.bias.requires_grad_(False)

    session = tiny_session(
        ["partly"], registry=registry_with(spec_of(Partly, "partly", claims=lambda c: Claims()))
    )
    bias = session.manager.methods["partly"].linear.bias
    before = bias.clone()
    run_steps(session, 2)
    assert not bias.requires_grad
    assert torch.equal(bias, before)
    session.close()


def test_gradients_of_inactive_lazy_terms_are_zero_never_none() -> None:
    """Head's only reader is a term that is due in every second update."""

    class Lazy(Head):
        @hookimpl
        def declare(self, plan):
            self.width = plan.taps["pooled"].shape[0]
            plan.term("head", "d", reads={"real": ("pooled",), "fake": ("pooled",)}, every=2)

        @hookimpl
        def observe(self, step):
            pass

        @hookimpl
        def after_d_step(self, step):
            pass

        @hookimpl
        def d_loss(self, step):
            return Head.d_loss(self, step) if step.wants("head") else None

        @hookimpl
        def g_loss(self, step):
            return None

    session = tiny_session(["lazy"], registry=registry_with(spec_of(Lazy, "lazy")))
    weight = session.manager.methods["lazy"].linear.weight
    run_steps(session, 1)
    assert weight.grad.abs().sum() > 0
    session.trainer.update("d", 0)
    assert weight.grad is not None
    assert weight.grad.abs().sum() == 0
    session.close()


def test_the_probe_leaves_no_trace() -> None:
    """Buffers, spectral norms, method buffers and telemetry are as after construction."""
    session = tiny_session(["head", "near", "brighten"], registry=REGISTRY)
    generator = session.trainer.generator
    assert all(int(b) == 0 for n, b in generator.named_buffers() if n.endswith("num_batches_tracked"))
    assert all(float(b.abs().sum()) == 0 for n, b in generator.named_buffers() if n.endswith("running_mean"))
    assert float(session.manager.methods["head"].average.mean) == 0
    assert session.trainer.telemetry.flush() == {}
    session.close()


def test_n_critic_and_lazy_intervals_count_updates_of_d() -> None:
    session = tiny_session(["r1"], {"r1.every": 3, "train.n_critic": 2})
    run_steps(session, 3)  # D updates 0 … 5; due at 0 and 3
    moments = session.trainer.telemetry.flush()
    assert moments["loss/d"]["count"] == 6
    assert moments["loss/g"]["count"] == 3
    assert moments["r1/penalty.d"]["count"] == 2
    assert moments["r1/penalty.d.weighted"]["mean"] == pytest.approx(3 * moments["r1/penalty.d"]["mean"])
    assert session.trainer.images_seen == 24
    session.close()


def test_a_separate_lazy_phase_has_its_own_optimiser_step() -> None:
    session = tiny_session(["r1"], {"r1.every": 2, "train.lazy": "separate"})
    factors = []
    step = session.trainer.optimizers["d"].step
    session.trainer.optimizers["d"].step = lambda interval=1: factors.append(interval) or step(interval)
    run_steps(session, 3)
    assert factors == [2, 2, 2, 2, 2]  # both phases share the optimiser, so both are corrected
    assert session.trainer.telemetry.flush()["loss/d_reg"]["count"] == 2
    session.close()


def test_the_lazy_correction_scales_rate_and_betas() -> None:
    """Adam after one corrected step equals Adam with lr c and betas to the power c, c = k/(k+1)."""
    from gancore.optimizers import NetworkOptimizer
    from gancore.sections import OptimizerOptions

    start = torch.linspace(-1, 1, 5)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer = NetworkOptimizer({"w": ours}, OptimizerOptions(lr=0.1, betas=(0.5, 0.99)))
    c = 16 / 17
    reference = torch.optim.Adam([theirs], lr=0.1 * c, betas=(0.5**c, 0.99**c))
    for parameter in (ours, theirs):
        parameter.grad = torch.arange(5.0)
    optimizer.step(16)
    reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert optimizer.optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.optimizer.param_groups[0]["betas"] == (0.5, 0.99)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_optimisers_and_clipping_come_from_the_configuration(name: str) -> None:
    session = tiny_session(
        [],
        {"optimizer.d.name": name, "optimizer.d.lr": 1e-3, "optimizer.d.clip_norm": 1e-3, "optimizer.g.lr": 2e-3},
    )
    assert session.trainer.optimizers["d"].optimizer.param_groups[0]["lr"] == 1e-3
    assert session.trainer.optimizers["g"].optimizer.param_groups[0]["lr"] == 2e-3
    run_steps(session, 1)
    norm = torch.stack([p.grad.norm() for p in session.trainer.optimizers["d"].parameters]).norm()
    assert float(norm) <= 1e-3 * (1 + 1e-5)
    session.close()


def test_a_step_equals_a_hand_written_one() -> None:
    """Two steps of hinge + DCGAN in plain torch, from the same weights, data and latents: the same weights."""
    import copy

    from gancore.networks.spectral import power_iterate, spectral_norms
    from gancore.randomness import Rng

    session = tiny_session(["hinge"], {"compute.precision": "float64"})
    trainer = session.trainer
    g, d = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
    adam = {n: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n, net in (("g", g), ("d", d))}
    norms = spectral_norms(d)
    for index in range(2):
        reals, _ = session.loader.batch("d", index * 8, 8)
        power_iterate(norms)
        z = Rng(0, 0, index, 0, "d", "gancore").normal(8, g.latent_dim).double()
        with torch.no_grad():
            fakes = g(z)
        loss = torch.relu(1 - d(reals)).mean() + torch.relu(1 + d(fakes)).mean()
        adam["d"].zero_grad()
        loss.backward()
        adam["d"].step()
        power_iterate(norms)
        z = Rng(0, 0, index, 0, "g", "gancore").normal(8, g.latent_dim).double()
        loss = -d(g(z)).mean()
        adam["g"].zero_grad()
        loss.backward()
        adam["g"].step()
    run_steps(session, 2)
    for ours, theirs in ((trainer.generator, g), (trainer.discriminator, d)):
        for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)
    session.close()


def test_a_schedule_is_a_function_of_progress() -> None:
    class Fading(Method):
        @hookimpl
        def declare(self, plan):
            plan.term("t", "d", reads={"real": ("logits",)}, weight=lambda progress: 2.0 * (1 - progress))

        @hookimpl
        def d_loss(self, step):
            return self.terms(t=step.d["real"].logits.mean() * 0 + 1)

    session = tiny_session(["fading"], {"fading.weight": 3.0}, registry_with(spec_of(Fading, "fading")))
    values = []
    for _ in range(4):
        run_steps(session, 1)
        values.append(session.trainer.telemetry.flush()["fading/t.d.weighted"]["mean"])
    assert values == pytest.approx([6.0, 4.5, 3.0, 1.5])
    session.close()


def test_no_step_reads_a_value_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward, the losses and the telemetry of a step never wait for the device."""
    session = tiny_session(["adaptivemix", "head", "near", "r1"], registry=REGISTRY)
    run_steps(session, 1)
    inside = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def spy(self, *args, _name=name, _original=original, **kwargs):
            import sys

            frame = sys._getframe(1)
            if "/gancore/" in frame.f_code.co_filename and "data" not in frame.f_code.co_filename:
                inside.append((_name, frame.f_code.co_qualname))
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, spy)
    session.trainer.train_step()
    monkeypatch.undo()
    assert inside == []
    session.close()


@pytest.mark.parametrize("hook", ["declare", "setup", "augment", "before_d_step", "observe", "d_loss"])
def test_an_exception_names_plugin_and_hook_before_training(hook: str) -> None:
    def fail(*args):
        raise ZeroDivisionError("sorry")

    with pytest.raises(PluginError) as caught:
        tiny_session(["broken"], registry=registry_with(broken(hook, fail)))
    text = str(caught.value)
    assert "plugin 'broken'" in text
    assert f"'{hook}'" in text
    assert "ZeroDivisionError: sorry" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("hook", ["after_d_step", "before_g_step", "after_g_step"])
def test_an_exception_in_a_step_names_phase_and_step(hook: str) -> None:
    def fail(method, step):
        if step.index == 1:
            raise ZeroDivisionError("sorry")

    session = tiny_session(["broken"], registry=registry_with(broken(hook, fail)))
    with pytest.raises(PluginError) as caught:
        run_steps(session, 3)
    phase = "d" if "_d_" in hook else "g"
    expected = f"plugin 'broken' raised in '{hook}' (phase '{phase}', step 1): ZeroDivisionError: sorry"
    assert str(caught.value) == expected
    session.close()


def test_an_exception_in_a_view_names_the_view() -> None:
    class BadView(Shrink):
        def _near(self, step, images):
            raise ValueError("no")

    with pytest.raises(PluginError, match="plugin 'badview' raised in 'view 'badview.fake'' .phase 'd'"):
        tiny_session(["badview"], registry=registry_with(spec_of(BadView, "badview")))


RETURNS = {
    "a dictionary": (lambda m, s: {"t": s.d["real"].logits.mean()}, "returned dict; expected self.terms"),
    "nothing": (lambda m, s: None, "returned no value for its active terms"),
    "an undeclared term": (
        lambda m, s: m.terms(t=s.d["real"].logits.mean(), u=s.d["real"].logits.mean()),
        "returned term 'u', which it did not declare",
    ),
    "a vector": (lambda m, s: m.terms(t=s.d["real"].logits), "expected a 0-d tensor"),
    "an undeclared view": (
        lambda m, s: m.terms(t=s.d["fake"].logits.mean()),
        "reads view 'fake' in phase 'd' without having declared it for an active term; it declared: real: logits",
    ),
    "undeclared scores": (lambda m, s: m.terms(t=s.scores("real").mean()), "reads the scores of side 'real'"),
    "an undeclared margin": (lambda m, s: m.terms(t=s.margin("real").mean()), "reads the margin of side 'real'"),
    "an undeclared penalty": (lambda m, s: m.terms(t=s.input_gradient("t").sum()), "declared no penalty"),
}


@pytest.mark.parametrize("what", RETURNS)
def test_a_loss_hook_that_breaks_its_contract_is_refused(what: str) -> None:
    action, message = RETURNS[what]
    with pytest.raises(PluginError, match=message):
        tiny_session(["broken"], registry=registry_with(broken("d_loss", action)))


def test_resident_memory_of_telemetry_does_not_grow() -> None:
    session = tiny_session(["adaptivemix"])
    run_steps(session, 2)
    size = session.trainer.telemetry._sums.shape
    run_steps(session, 20)
    assert session.trainer.telemetry._sums.shape == size
    assert not session.trainer.telemetry._pending
    session.close()
