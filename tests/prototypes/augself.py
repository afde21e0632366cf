"""AugSelf, rough: D tells from two features which augmentation lies between, with opposite signs by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancore.api import (
    Augment,
    Claims,
    Clash,
    Declaration,
    LossTerms,
    Method,
    MethodSpec,
    Need,
    Options,
    RunContext,
    Step,
    hookimpl,
    option,
)
from prototypes import pixelops

DIMENSIONS = {"color": 3, "translation": 2, "cutout": 2}


@dataclass(frozen=True, kw_only=True)
class AugSelfOptions(Options):
    """``augself``."""

    lam_d: float = option(1.0, help="Factor of D's term.", minimum=0)
    lam_g: float = option(1.0, help="Factor of G's term.", minimum=0)
    tap: str = option("pooled", help="The tap of D whose difference the heads read.")


class Link:
    """DiffAugment, always on."""

    sides = ("real", "fake")

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return pixelops.draw_diffaugment(step.rng(side), shape[0], shape[1:])

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        return pixelops.diffaugment(images, draw)


class AugSelf(Method):
    """``-p augself``."""

    options: AugSelfOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen, tap = self.options, (self.options.tap,)
        self._size = plan.shape[-2:]
        fake = {"fake": tap, "fake_raw": tap}
        plan.term("heads", "d", weight=chosen.lam_d, reads={"real": tap, "real_raw": tap, **fake})
        plan.term("heads", "g", weight=chosen.lam_g, reads=fake)

    @hookimpl
    def setup(self, run: RunContext) -> None:
        width = torch.Size(run.discriminator.taps[self.options.tap].shape).numel()
        heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in DIMENSIONS.items()})
        self._heads = cast(nn.ModuleDict, run.add_module("heads", heads, trained_by="d"))

    @hookimpl
    def augment(self, run: RunContext) -> Augment | None:
        return Link()

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("heads"):
            return None
        loss = torch.zeros((), device=step.device)
        for side, sign in (("real", 1), ("fake", -1)):
            loss = loss + self._error(step, side, sign)
        return self.terms(heads=loss)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("heads"):
            return None
        return self.terms(heads=self._error(step, "fake", 1) - self._error(step, "fake", -1))

    def _error(self, step: Step, side: str, sign: int) -> Tensor:
        tap, target = self.options.tap, self._targets(step, side)
        difference = (step.d[side].taps[tap] - step.d[f"{side}_raw"].taps[tap]).flatten(1)
        return torch.stack(
            [
                F.mse_loss(self._heads[name](difference), sign * target[name].to(difference.dtype))
                for name in DIMENSIONS
            ]
        ).sum()

    def _targets(self, step: Step, side: str) -> dict[str, Tensor]:
        draw = step.augmentation[side][self.name]
        reach = draw["translation"].new_tensor([max(pixelops.reach(size), 1) for size in self._size])
        span = draw["cutout"].new_tensor([size - pixelops.cut(size) % 2 for size in self._size])
        return {
            "color": draw["color"],
            "translation": draw["translation"] / (2 * reach) + 0.5,
            "cutout": draw["cutout"] / span,
        }


def claims(options: Any) -> Claims:
    return Claims(
        clashes=(Clash("augments", "augself predicts its own augmentation alone; drop one of them"),),
        needs=(Need(f"tap:{options.tap}", "its heads read features there"), Need("data:image", "it augments")),
    )


SPEC = MethodSpec(
    name="augself",
    summary="Self-supervision by signed augmentation parameters (rough).",
    target=f"{__name__}:AugSelf",
    options=AugSelfOptions,
    claims=claims,
)
