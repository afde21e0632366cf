"""ICR, rough: D balanced under a small augmentation of images (bCR) and smooth in the latents (zCR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore.api import (
    Claims,
    Declaration,
    LossTerms,
    Method,
    MethodSpec,
    Need,
    Options,
    Step,
    StepKey,
    hookimpl,
    option,
)
from prototypes import pixelops

SIDES = ("real", "fake")


@dataclass(frozen=True, kw_only=True)
class IcrOptions(Options):
    """``icr``."""

    lam_real: float = option(10.0, help="bCR on reals.", minimum=0)
    lam_fake: float = option(10.0, help="bCR on fakes.", minimum=0)
    lam_dis: float = option(5.0, help="zCR in D.", minimum=0)
    lam_gen: float = option(0.5, help="zCR in G.", minimum=0)
    sigma: float = option(0.03, help="Standard deviation of the latent's noise.", above=0)


@dataclass(frozen=True)
class Draw:
    """T's parameters by side; each (flip (B,) bool, shift (B, 2) int64)."""

    t: dict[str, tuple[Tensor, Tensor]]


DRAW = StepKey[Draw]()


class Icr(Method):
    """``-p icr``. Both sides of each difference pass through the chain with the same draws."""

    options: IcrOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen, name, logits = self.options, self.name, ("logits",)
        for side, factor in (("real", chosen.lam_real), ("fake", chosen.lam_fake)):
            view = f"{name}.{side}_t"
            plan.view(view, self._transform(side), sources=(f"{side}_raw",), augment=side)
            plan.term(f"bcr_{side}", "d", weight=factor, reads={side: logits, view: logits})
        plan.latents(f"{name}.near", self._near)
        plan.view(f"{name}.near_d", _same, sources=(f"{name}.near",), augment="fake")
        plan.term("zcr", "d", weight=chosen.lam_dis, reads={"fake": logits, f"{name}.near_d": logits})
        images = {"fake_raw": ("images",), f"{name}.near": ("images",)}
        plan.term("zcr", "g", weight=chosen.lam_gen, reads=images)

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        draws = {}
        for side in SIDES:
            rng = step.rng(side)
            draws[side] = (rng.uniform(step.batch) < 0.5, rng.uniform(step.batch, 2))
        step.stash[DRAW] = Draw(draws)

    def _transform(self, side: str):  # type: ignore[no-untyped-def]
        def build(step: Step, images: Tensor) -> Tensor:
            gate, place = step.stash[DRAW].t[side]
            most = torch.tensor([size // 8 for size in images.shape[2:]], device=images.device)
            shift = (place * (2 * most + 1)).floor().to(torch.int64) - most
            return pixelops.shift_reflect(pixelops.flip(images, gate), *shift.unbind(1))

        return build

    def _near(self, step: Step, latents: Tensor) -> Tensor:
        return latents + self.options.sigma * step.rng("near").normal(*latents.shape).to(latents.dtype)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        terms = {}
        pairs = {f"bcr_{side}": (side, f"{self.name}.{side}_t") for side in SIDES}
        for term, (first, second) in {**pairs, "zcr": ("fake", f"{self.name}.near_d")}.items():
            if step.wants(term):
                terms[term] = F.mse_loss(_logits(step, second), _logits(step, first))
        return self.terms(**terms)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("zcr"):
            return None
        return self.terms(zcr=-F.mse_loss(step.images[f"{self.name}.near"], step.images["fake_raw"]))


def _same(step: Step, images: Tensor) -> Tensor:
    return images


def _logits(step: Step, view: str) -> Tensor:
    logits = step.d[view].logits
    assert logits is not None
    return logits


def claims(options: Any) -> Claims:
    return Claims(
        needs=(
            Need("scalar-logit", "it compares logits; name an objective that has them"),
            Need("data:image", "it flips and shifts images"),
        )
    )


SPEC = MethodSpec(
    name="icr",
    summary="Balanced and latent consistency (rough).",
    target=f"{__name__}:Icr",
    options=IcrOptions,
    claims=claims,
)
