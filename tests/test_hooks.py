"""Every hook fires where the loop's pseudocode says, in the order of method names, with what it promises."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from methods_for_tests import BrightenLink, spec_of

from gancore import hookspecs
from gancore.api import Claims, Method, hookimpl
from gancore.evaluation import evaluate
from gancore.ops import OpLibrary
from gancore.plugin_manager import Origin, Registry
from gancore.testing import registry_with, run_steps, tiny_session

LOG: list[str] = []


class Spy(Method):
    """Writes down each call."""

    @hookimpl
    def declare_taps(self, plan):
        LOG.append(f"{self.name}.declare_taps")
        plan.tap(f"{self.name}.t", source="pooled", compute=lambda pooled: pooled, shape=(256,), help="A copy.")

    @hookimpl
    def declare(self, plan):
        LOG.append(f"{self.name}.declare")
        assert set(plan.taps) == {"trunk", "pooled", "a-spy.t", "b-spy.t"}
        assert plan.shape == (1, 16, 16)
        plan.view(f"{self.name}.v", self._build, sources=("real",))
        plan.term("often", "d", reads={f"{self.name}.v": ("logits",)})
        plan.term("rare", "d", reads={"real": ("trunk",)}, every=2)
        plan.term("t", "g", reads={"fake": ("logits",)})

    @hookimpl
    def setup(self, run):
        LOG.append(f"{self.name}.setup")
        assert (run.batch, run.n_critic, run.num_classes, run.dataset_size) == (8, 2, 0, 176)

    @hookimpl
    def augment(self, run):
        LOG.append(f"{self.name}.augment")

        class Link(BrightenLink):
            def draw(link, step, side, shape):
                LOG.append(f"{self.name}.draw.{side}")
                return super().draw(step, side, shape)

        return Link()

    def _build(self, step, images):
        LOG.append(f"{self.name}.view")
        return images

    @hookimpl
    def before_d_step(self, step):
        LOG.append(f"{self.name}.before_d_step.{step.phase}")

    @hookimpl
    def observe(self, step):
        LOG.append(f"{self.name}.observe.{step.phase}")
        assert not torch.is_grad_enabled()

    @hookimpl
    def d_loss(self, step):
        LOG.append(f"{self.name}.d_loss.{step.phase}")
        terms = {}
        if step.wants("often"):
            terms["often"] = step.d[f"{self.name}.v"].logits.mean()
        if step.wants("rare"):
            terms["rare"] = step.d["real"].taps["trunk"].mean()
        return self.terms(**terms)

    @hookimpl
    def after_d_step(self, step):
        LOG.append(f"{self.name}.after_d_step.{step.phase}")
        assert not torch.is_grad_enabled()

    @hookimpl
    def before_g_step(self, step):
        LOG.append(f"{self.name}.before_g_step.{step.phase}")

    @hookimpl
    def g_loss(self, step):
        LOG.append(f"{self.name}.g_loss.{step.phase}")
        return self.terms(t=step.d["fake"].logits.mean())

    @hookimpl
    def after_g_step(self, step):
        LOG.append(f"{self.name}.after_g_step.{step.phase}")

    @hookimpl
    def advise(self, values):
        LOG.append(f"{self.name}.advise")

    @hookimpl
    def evaluate(self, run, samples):
        LOG.append(f"{self.name}.evaluate")
        assert run.method == self.name
        return {f"{self.name}_count": float(len(samples.generate(2, 0)))}


SPECS = tuple(
    spec_of(Spy, name, claims=lambda chosen, name=name: Claims(offers=frozenset({f"tap:{name}.t"})))
    for name in ("a-spy", "b-spy")
)


def phase(name: str, hook: str, *, draws: bool = True, views: bool = True, observed: bool = False) -> list[str]:
    """The calls of one phase."""
    network = name[0]
    both = ("a-spy", "b-spy")
    lines = [f"{m}.before_{network}_step.{name}" for m in both]
    lines += [f"{m}.draw.{side}" for side in ("fake", "real") for m in ("b-spy", "a-spy")]
    if views:
        lines += [f"{m}.view" for m in both]
    if observed:
        lines += [f"{m}.observe.{name}" for m in both]
    return [*lines, *(f"{m}.{hook}.{name}" for m in both)]


def after(name: str) -> list[str]:
    return [f"{m}.after_{name[0]}_step.{name}" for m in ("a-spy", "b-spy")]


def test_the_order_of_a_run() -> None:
    LOG.clear()
    session = tiny_session(
        ["b-spy", "a-spy"], {"train.n_critic": 2, "train.lazy": "separate"}, registry_with(*SPECS)
    )
    d = phase("d", "d_loss", observed=True)
    d_reg = phase("d_reg", "d_loss", views=False)
    g = phase("g", "g_loss", views=False)
    before = [f"{m}.{hook}" for hook in ("declare_taps", "declare", "setup") for m in ("a-spy", "b-spy")]
    before += ["b-spy.augment", "a-spy.augment"]  # the chain keeps the order of -p
    assert [*before, *d, *d_reg, *g] == LOG  # and the probe runs every phase once
    LOG.clear()
    run_steps(session, 1)
    update, lazy = [*d, *after("d")], [*d_reg, *after("d_reg")]
    assert [*update, *lazy, *update, *g, *after("g")] == LOG  # update 0 is due, update 1 is not
    LOG.clear()
    assert evaluate(session).metrics == {"a-spy_count": 2.0, "b-spy_count": 2.0}
    assert LOG == ["a-spy.evaluate", "b-spy.evaluate"]
    session.close()


def test_every_training_hook_is_specified_and_spied_on() -> None:
    specified = {name for name in vars(hookspecs.RunHooks) if not name.startswith("_")}
    assert specified == set(hookspecs.TRAINING_HOOKS)
    assert specified <= set(vars(Spy))


def test_discovery_hooks_are_called_for_methods_networks_and_operations() -> None:
    from gancore import builtins

    called: dict[str, list[str]] = {"methods": [], "networks": []}
    builtins.register_methods(lambda spec: called["methods"].append(spec.name))
    builtins.register_networks(lambda spec: called["networks"].append(spec.name))
    assert called["networks"] == ["dcgan", "sngan", "mlp"]
    assert "nonsaturating" in called["methods"]
    specified = {name for name in vars(hookspecs.DiscoveryHooks) if not name.startswith("_")}
    assert specified == {"register_methods", "register_networks", "register_ops", "register_sinks"}
    library = OpLibrary(name="own_ops", package="own_ops")
    registry = Registry()
    plugin = SimpleNamespace(register_ops=hookimpl(lambda register: register(library)))
    registry.register(plugin, Origin("own", "0"))
    assert registry.libraries == {"own_ops": library}


def test_indices_name_the_reals_of_a_phase() -> None:
    seen = []

    class Indexed(Method):
        @hookimpl
        def declare(self, plan):
            plan.watch("d", reads={"real": ("images",)})

        @hookimpl
        def after_d_step(self, step):
            expected = session.dataset.read(step.indices.numpy())
            seen.append(
                torch.equal(((step.images["real"] + 1) * 127.5).round().byte(), torch.from_numpy(expected))
            )

    session = tiny_session(["indexed"], {"train.n_critic": 2}, registry_with(spec_of(Indexed, "indexed")))
    run_steps(session, 2)
    assert seen == [True] * 4
    session.close()
