"""CN-LSGAN, rough: least squares, gradient penalty on interpolates, reconstruction of a real batch in G."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gancore.api import (
    Claims,
    Declaration,
    LossTerms,
    Method,
    MethodSpec,
    Need,
    Options,
    Penalty,
    Step,
    StepKey,
    hookimpl,
    option,
)


@dataclass(frozen=True, kw_only=True)
class CnLsganOptions(Options):
    """``cnlsgan``."""

    lam_gp: float = option(10.0, help="lambda_1 of the gradient penalty.", minimum=0)
    lam_rec: float = option(0.1, help="lambda_2 of the reconstruction term at the start.", minimum=0)
    decay: bool = option(True, help="lambda_2 goes linearly to 0 over the run.")


ALPHA = StepKey[Tensor]()


class CnLsgan(Method):
    """``-p cnlsgan``."""

    options: CnLsganOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        plan.term("adv", "d", scores=("real", "fake"))
        plan.term("adv", "g", scores=("fake",))
        plan.margin(self._margin, reads={side: {side: ("logits",)} for side in ("real", "fake")})
        between = f"{self.name}.between"
        plan.view(between, self._between, sources=("real_raw", "fake_raw"))
        plan.term("gp", "d", weight=chosen.lam_gp, penalty=Penalty(view=between, leaf=between))
        images = {"fake_raw": ("images",), "real_raw": ("images",)}
        if chosen.decay and chosen.lam_rec:
            plan.term("rec", "g", reads=images, weight=lambda progress: chosen.lam_rec * (1 - progress))
        else:
            plan.term("rec", "g", reads=images, weight=chosen.lam_rec)

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        step.stash[ALPHA] = step.rng().uniform(step.batch)

    def _between(self, step: Step, real: Tensor, fake: Tensor) -> Tensor:
        return torch.lerp(fake, real, step.stash[ALPHA].to(real.dtype)[:, None, None, None])

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        terms = {}
        if step.wants("adv"):
            terms["adv"] = (step.scores("real") - 1).square().mean() + step.scores("fake").square().mean()
        if step.wants("gp"):
            norm = step.input_gradient("gp").flatten(1).norm(dim=1)
            terms["gp"] = (norm - 1).square().mean()
        return self.terms(**terms)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms:
        terms = {}
        if step.wants("adv"):
            terms["adv"] = (step.scores("fake") - 1).square().mean()
        if step.wants("rec"):
            terms["rec"] = (step.images["fake_raw"] - step.images["real_raw"]).square().mean()
        return self.terms(**terms)

    def _margin(self, step: Step, side: str) -> Tensor:
        return step.d[side].logits - 0.5


def claims(options: Any) -> Claims:
    exclusive = {"objective": "drop -p cnlsgan"}
    needs: tuple[Need, ...] = ()
    if options.lam_gp:
        exclusive["penalty:interpolated"] = "set cnlsgan.lam_gp = 0"
        needs = (Need("d:uncoupled", "its penalty is on each sample's own gradient"),)
    return Claims(exclusive=exclusive, needs=needs, offers=frozenset({"margin", "scalar-logit"}))


SPEC = MethodSpec(
    name="cnlsgan",
    summary="Least squares with an interpolated penalty and a reconstruction term (rough).",
    target=f"{__name__}:CnLsgan",
    options=CnLsganOptions,
    claims=claims,
)
