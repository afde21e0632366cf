"""Adversarial objectives: pure functions of scores, and the thin methods that hook them in.

In every function ``real`` and ``fake`` are the scores (B,) of reals and fakes; each returns a 0-d batch mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from gancore.api import Declaration, LossTerms, Method, Step, hookimpl


def nonsaturating_d(real: Tensor, fake: Tensor) -> Tensor:
    """E softplus(-D(x)) + E softplus(D(G(z))). Reference: arXiv:1406.2661, eq. 1, on logits."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def nonsaturating_g(fake: Tensor) -> Tensor:
    """E softplus(-D(G(z))). Reference: arXiv:1406.2661, section 3."""
    return F.softplus(-fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """E relu(1 - D(x)) + E relu(1 + D(G(z))). Reference: arXiv:1705.02894."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_g(fake: Tensor) -> Tensor:
    """-E D(G(z)). Also the Wasserstein loss of G."""
    return -fake.mean()


def least_squares_d(
    real: Tensor, fake: Tensor, *, factor: float = 0.5, real_target: float = 1.0, fake_target: float = 0.0
) -> Tensor:
    """factor * (E (D(x) - b)^2 + E (D(G(z)) - a)^2). Reference: arXiv:1611.04076, eq. 2, on raw outputs."""
    return factor * ((real - real_target).square().mean() + (fake - fake_target).square().mean())


def least_squares_g(fake: Tensor, *, factor: float = 0.5, real_target: float = 1.0) -> Tensor:
    """factor * E (D(G(z)) - c)^2 with c = b. Reference: arXiv:1611.04076, eq. 2."""
    return factor * (fake - real_target).square().mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x). Reference: arXiv:1701.07875, eq. 3, as a loss to minimise."""
    return fake.mean() - real.mean()


def relativistic_d(real: Tensor, fake: Tensor, *, form: str = "paired", loss: str = "softplus") -> Tensor:
    """Loss of D in terms of how much more real the reals are than the fakes.

    ``paired``: E f(D(G(z)) - D(x)) with f = softplus or relu(1 + .). ``average``: each side against the mean of
    the other, both parts added; the hinge form takes their mean.

    Reference: arXiv:1807.00734, sections 4.1 (RpGAN) and 4.2 (RaGAN).
    """
    if form == "paired":
        difference = fake - real
        return F.softplus(difference).mean() if loss == "softplus" else F.relu(1 + difference).mean()
    above, below = real - fake.mean(), fake - real.mean()
    if loss == "softplus":
        return F.softplus(-above).mean() + F.softplus(below).mean()
    return (F.relu(1 - above).mean() + F.relu(1 + below).mean()) / 2


def relativistic_g(real: Tensor, fake: Tensor, *, form: str = "paired", loss: str = "softplus") -> Tensor:
    """Loss of G: :func:`relativistic_d` with reals and fakes exchanged."""
    return relativistic_d(fake, real, form=form, loss=loss)


class _ScoreObjective(Method):
    """An objective of scores alone: one term ``adv`` in each network's loss."""

    g_sides: ClassVar[tuple[str, ...]] = ("fake",)
    margin_reads: ClassVar[Mapping[str, Any]] = {"real": {"real": ("logits",)}, "fake": {"fake": ("logits",)}}

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        plan.term("adv", "d", scores=("real", "fake"))
        plan.term("adv", "g", scores=self.g_sides)
        if self.margin_reads:
            plan.margin(self.margin, reads=self.margin_reads)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("adv"):
            return None
        return self.terms(adv=self.loss_d(step.scores("real"), step.scores("fake")))

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("adv"):
            return None
        return self.terms(adv=self.loss_g(*(step.scores(side) for side in self.g_sides)))

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        raise NotImplementedError

    def loss_g(self, *scores: Tensor) -> Tensor:
        raise NotImplementedError

    def margin(self, step: Step, side: str) -> Tensor:
        """The logit: 0 is the point of indifference of the logistic and the hinge loss."""
        return step.d[side].logits


class NonSaturating(_ScoreObjective):
    """``-p nonsaturating``."""

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return nonsaturating_d(real, fake)

    def loss_g(self, *scores: Tensor) -> Tensor:
        return nonsaturating_g(*scores)


class Hinge(_ScoreObjective):
    """``-p hinge``."""

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return hinge_d(real, fake)

    def loss_g(self, *scores: Tensor) -> Tensor:
        return hinge_g(*scores)


class LeastSquares(_ScoreObjective):
    """``-p lsgan``."""

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        chosen = self.options
        return least_squares_d(
            real,
            fake,
            factor=chosen.factor,
            real_target=chosen.real_target,
            fake_target=chosen.fake_target,
        )

    def loss_g(self, *scores: Tensor) -> Tensor:
        return least_squares_g(*scores, factor=self.options.factor, real_target=self.options.real_target)

    def margin(self, step: Step, side: str) -> Tensor:
        """The logit's distance from the middle of both targets, towards the real one."""
        logits = step.d[side].logits
        chosen = self.options
        middle: float = (chosen.real_target + chosen.fake_target) / 2
        return logits - middle if chosen.real_target > chosen.fake_target else middle - logits


class Wasserstein(_ScoreObjective):
    """``-p wgan``. It has no margin: a critic's zero means nothing."""

    margin_reads: ClassVar[Mapping[str, Any]] = {}

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return wasserstein_d(real, fake)

    def loss_g(self, *scores: Tensor) -> Tensor:
        return hinge_g(*scores)

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        if self.options.clip:
            for parameter in step.d_parameters:
                parameter.clamp_(-self.options.clip, self.options.clip)


class Relativistic(_ScoreObjective):
    """``-p relativistic``. G's loss needs real logits."""

    g_sides = ("real", "fake")
    margin_reads: ClassVar[Any] = {side: {"real": ("logits",), "fake": ("logits",)} for side in ("real", "fake")}

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        return relativistic_d(real, fake, form=self.options.form, loss=self.options.loss)

    def loss_g(self, *scores: Tensor) -> Tensor:
        return relativistic_g(*scores, form=self.options.form, loss=self.options.loss)

    def margin(self, step: Step, side: str) -> Tensor:
        """D(real) - D(fake), row by row or against the mean; its negative for the fakes."""
        real, fake = step.d["real"].logits, step.d["fake"].logits
        if self.options.form == "paired":
            return real - fake if side == "real" else fake - real
        return real - fake.mean() if side == "real" else fake - real.mean()
