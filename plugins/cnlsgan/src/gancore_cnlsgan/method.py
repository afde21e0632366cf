"""CN-LSGAN in gancore's hooks: an objective and two extras, each of which can be switched off."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from gancore.api import (
    Declaration,
    LossTerms,
    Method,
    Penalty,
    Step,
    StepKey,
    gradient_norm,
    hookimpl,
    interpolate,
)
from gancore_cnlsgan import functional
from gancore_cnlsgan.options import CnLsganOptions

ALPHA = StepKey[Tensor]("alpha")


class CnLsgan(Method):
    """``-p cnlsgan``: terms ``adv`` in both networks, ``gp`` in D, ``rec`` in G.

    View: ``cnlsgan.between``, points between un-augmented reals and fakes, with the labels of the reals.
    """

    options: CnLsganOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        if chosen.adv:
            plan.term("adv", "d", scores=("real", "fake"))
            plan.term("adv", "g", scores=("fake",))
            plan.margin(self._margin, reads={side: {side: ("logits",)} for side in ("real", "fake")})
        plan.view("cnlsgan.between", self._between, sources=("real_raw", "fake_raw"), labels_from="real_raw")
        penalty = Penalty(view="cnlsgan.between", leaf="cnlsgan.between")
        plan.term("gp", "d", weight=chosen.lambda_gp, penalty=penalty)
        decays = chosen.lambda_rec and chosen.rec_decay != "none"
        plan.term(
            "rec",
            "g",
            weight=partial(_lambda_rec, chosen) if decays else chosen.lambda_rec,
            reads={"fake_raw": ("images",), "real_raw": ("images",)},
        )

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        if step.wants("gp"):
            step.stash[ALPHA] = step.rng().uniform(step.batch)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        terms = {}
        if step.wants("adv"):
            terms["adv"] = functional.adversarial_d(step.scores("real"), step.scores("fake"))
        if step.wants("gp"):
            terms["gp"] = gradient_norm(step.input_gradient("gp"), eps=self.options.gp_eps)
        return self.terms(**terms)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        terms = {}
        if step.wants("adv"):
            terms["adv"] = functional.adversarial_g(step.scores("fake"))
        if step.wants("rec"):
            fake, real = step.images["fake_raw"], step.images["real_raw"]
            terms["rec"] = functional.reconstruction(fake, real, self.options.reduction)
        return self.terms(**terms)

    def _between(self, step: Step, real: Tensor, fake: Tensor) -> Tensor:
        return interpolate(real, fake, step.stash[ALPHA])

    def _margin(self, step: Step, side: str) -> Tensor:
        return step.d[side].logits - functional.MIDDLE


def _lambda_rec(chosen: CnLsganOptions, progress: float) -> float:
    """lambda_2 at a progress in [0, 1]."""
    return chosen.lambda_rec * functional.decay(progress, chosen.rec_decay, chosen.rec_decay_share)
