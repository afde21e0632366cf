"""Mistakes that an author can make, each as the smallest method that shows it: refused by name, or harmless."""

from __future__ import annotations

import pytest
import torch
from methods_for_tests import BRIGHTEN
from torch import nn

from gancore.api import (
    Claims,
    Method,
    MethodSpec,
    Need,
    PluginError,
    hookimpl,
)
from gancore.plugin_manager import Registry
from gancore.testing import registry_with, run_steps, tiny_session


class LogitTerm(Method):
    """One term of D: the mean logit of the reals."""

    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",)})

    @hookimpl
    def d_loss(self, step):
        return self.terms(t=step.d["real"].logits.mean())


class ReadsScoresEarly(Method):
    @hookimpl
    def declare(self, plan):
        plan.watch("d", scores=("real", "fake"))

    @hookimpl
    def observe(self, step):
        for side in ("real", "fake"):
            step.scores(side)


class UnguardedController(Method):
    @hookimpl
    def declare(self, plan):
        plan.watch("d", margins=("real",))

    @hookimpl
    def after_d_step(self, step):
        step.margin("real")


class ReadsMoreThanDeclared(LogitTerm):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("pooled",)})


class TwiceTheRows(Method):
    rows, augment = 2, "real"

    @hookimpl
    def declare(self, plan):
        plan.view(f"{self.name}.v", self._build, sources=("real_raw",), rows=self.rows, augment=self.augment)
        plan.term("t", "d", reads={f"{self.name}.v": ("logits",)})

    def _build(self, step, images):
        return images.repeat(2, 1, 1, 1)

    @hookimpl
    def d_loss(self, step):
        return self.terms(t=step.d[f"{self.name}.v"].logits.mean())


class UndeclaredRows(TwiceTheRows):
    rows, augment = 1, None


class NoGradient(Method):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "g", reads={"fake_raw": ("images",)})

    @hookimpl
    def g_loss(self, step):
        return self.terms(t=step.images["fake_raw"].detach().mean())


class RebindsBuffer(Method):
    @hookimpl
    def declare(self, plan):
        plan.watch("d", reads={"real": ("logits",)})

    @hookimpl
    def setup(self, run):
        module = nn.Module()
        module.register_buffer("count", torch.zeros(()))
        self.module = run.add_module("state", module)

    @hookimpl
    def observe(self, step):
        self.module.count = self.module.count + 1


class SpectralHead(LogitTerm):
    @hookimpl
    def setup(self, run):
        head = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
        self.head = run.add_module("head", head, trained_by="d")

    @hookimpl
    def d_loss(self, step):
        logits = step.d["real"].logits[:, None].expand(-1, 16)
        assert torch.equal(self.head(logits), self.head(logits))
        return self.terms(t=self.head(logits).mean())


class InPlaceLink(LogitTerm):
    sides = ("real",)

    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",), "real_raw": ("images",)})

    @hookimpl
    def augment(self, run):
        return self

    def draw(self, step, side, shape):
        return {}

    def transform(self, images, draw):
        return images.mul_(0)


class ForgottenMark(LogitTerm):
    def after_d_step(self, step):
        raise AssertionError("never called")


class NeedsTapInSetup(LogitTerm):
    @hookimpl
    def setup(self, run):
        self.width = run.discriminator.taps["missing"].shape


CLAIMS = {
    "UnguardedController": Claims(needs=(Need("margin", "it reads it"),)),
    "NeedsTapInSetup": Claims(needs=(Need("tap:missing", "it reads it"),)),
}


def specs() -> list[MethodSpec]:
    """A spec for each method of this file, by its lower-case name."""
    found = [cls for cls in globals().values() if isinstance(cls, type) and issubclass(cls, Method)]
    return [
        MethodSpec(
            name=cls.__name__.lower(),
            summary="A mistake.",
            target=f"{__name__}:{cls.__name__}",
            claims=lambda options, name=cls.__name__: CLAIMS.get(name, Claims()),
        )
        for cls in found
        if cls is not Method
    ]


@pytest.fixture(scope="module")
def known() -> Registry:
    return registry_with(*specs(), BRIGHTEN)


def train(known: Registry, plugins: str, **options):
    session = run_steps(tiny_session(plugins.split(), options, known), 2)
    session.close()
    return session


def refuses(known: Registry, plugins: str, **options) -> str:
    with pytest.raises(PluginError) as caught:
        train(known, plugins, **options)
    return str(caught.value)


def test_scores_read_by_an_observer_keep_their_gradient(known):
    official = {"adaptivemix.preset": "official"}
    assert train(known, "adaptivemix readsscoresearly", **official).trainer.unreached["d"] == frozenset()


def test_a_controller_needs_no_guard_against_lazy_phases(known):
    train(known, "unguardedcontroller r1", **{"r1.every": 2, "train.lazy": "separate"})


def test_undeclared_outputs_are_refused_in_every_mix(known):
    assert "reads 'logits' of view 'real'" in refuses(known, "hinge readsmorethandeclared")


def test_a_view_of_many_rows_is_augmented_copy_by_copy(known):
    train(known, "brighten twicetherows")


def test_a_view_with_other_rows_than_declared_is_refused(known):
    assert "'undeclaredrows', view 'undeclaredrows.v' returned (16" in refuses(known, "hinge undeclaredrows")


def test_a_term_without_a_gradient_is_refused(known):
    assert "term 'nogradient/t' of phase 'g' has no gradient" in refuses(known, "hinge nogradient")


def test_the_probe_notices_a_buffer_that_is_bound_anew(known):
    assert "binds a new tensor to the buffer 'count'" in refuses(known, "hinge rebindsbuffer")


def test_spectral_norm_of_a_methods_module_iterates_once_a_phase(known):
    train(known, "hinge spectralhead")


def test_an_augmentation_in_place_is_refused(known):
    assert "'inplacelink' changes images in place" in refuses(known, "hinge inplacelink")


def test_a_hook_without_its_mark_is_refused(known):
    assert "defines 'after_d_step' without @hookimpl" in refuses(known, "hinge forgottenmark")


def test_needs_are_checked_before_setup(known):
    assert "needs tap:missing" in refuses(known, "hinge needstapinsetup")


def test_an_augmenter_of_weight_zero_is_absent(known):
    session = train(known, "r1 brighten", **{"brighten.weight": 0.0})
    assert session.trainer.chain.links == ()
