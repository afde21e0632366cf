"""KDD GAN, rough: a hinge on the log-ratio of two leave-one-out kernel densities of unit features."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    merge_reads,
    option,
)
from prototypes import pixelops

SIDES = ("real", "fake")


@dataclass(frozen=True, kw_only=True)
class KddOptions(Options):
    """``kdd``. ``weight`` is gamma."""

    as_term: bool = option(False, help="A term beside another objective instead of the objective.")
    tau: float = option(1.0, help="Temperature.", above=0)
    anchors: int = option(0, help="Augmented copies of each image that are anchors too.", minimum=0)
    lam_jac: float = option(0.0, help="Weight of the Jacobian term of D.", minimum=0)
    delta: float = option(1e-3, help="Step of its finite difference.", above=0)
    tap: str = option("pooled", help="The tap of D whose unit features are compared.")


def log_density(points: Tensor, anchors: Tensor, tau: float, *, leave_out: bool) -> Tensor:
    """log of the mean kernel at each of ``points``; with ``leave_out`` row i is not an anchor of point i."""
    similar = points @ anchors.T / tau
    count = len(anchors)
    if leave_out:
        own = torch.eye(len(points), count, dtype=torch.bool, device=points.device)
        similar, count = similar.masked_fill(own, -math.inf), count - 1
    return similar.logsumexp(1) - math.log(count)


def log_ratio(points: Tensor, side: str, anchors: Mapping[str, Tensor], tau: float) -> Tensor:
    """log p_r - log p_g at ``points``, which are the first anchors of their own side."""
    real, fake = (log_density(points, anchors[s], tau, leave_out=s == side) for s in SIDES)
    return real - fake


@dataclass(frozen=True)
class Draw:
    """Augmentations of the anchors and unit directions, by side."""

    copies: dict[str, dict[str, Tensor]]
    directions: dict[str, Tensor]


DRAW = StepKey[Draw]()


class Kdd(Method):
    """``-p kdd``: the adversarial loss; with ``as_term`` an addition to another one, on clean images."""

    options: KddOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen, name = self.options, self.name
        self._shape = plan.shape
        self._view = {side: f"{side}_raw" if chosen.as_term else side for side in SIDES}
        if chosen.anchors:
            for side in SIDES:
                plan.view(
                    f"{name}.{side}_copies",
                    self._copies(side),
                    sources=(f"{side}_raw",),
                    rows=chosen.anchors,
                )
        reads = merge_reads(*(self._reads(side) for side in SIDES))
        if not chosen.as_term:
            plan.margin(self._margin, reads={side: reads for side in SIDES})
        plan.term("hinge", "d", reads=reads)
        plan.term("ratio", "g", reads=reads)
        if chosen.lam_jac:
            pair: dict[str, tuple[str, ...]] = {}
            for side in SIDES:
                for end, build in (("at", _same), ("near", self._near(side))):
                    view = f"{name}.{side}_{end}"
                    plan.view(view, build, sources=(f"{side}_raw",), precision="float32")
                    pair[view] = (chosen.tap,)
            plan.term("jac", "d", weight=chosen.lam_jac, reads=pair)

    def _reads(self, side: str) -> dict[str, tuple[str, ...]]:
        tap = (self.options.tap,)
        copies = {f"{self.name}.{side}_copies": tap} if self.options.anchors else {}
        return {self._view[side]: tap, **copies}

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def before_g_step(self, step: Step) -> None:
        self._draw(step)

    def _draw(self, step: Step) -> None:
        copies, directions = {}, {}
        for side in SIDES:
            count = step.batch * self.options.anchors
            copies[side] = pixelops.draw_diffaugment(step.rng(f"copies {side}"), count, self._shape)
            if self.options.lam_jac and step.phase.startswith("d"):
                noise = step.rng(f"direction {side}").normal(step.batch, *self._shape)
                directions[side] = noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
        step.stash[DRAW] = Draw(copies, directions)

    def _copies(self, side: str):  # type: ignore[no-untyped-def]
        def build(step: Step, images: Tensor) -> Tensor:
            # Copy by copy, since labels are repeated so.
            repeated = images.repeat(self.options.anchors, 1, 1, 1)
            return pixelops.diffaugment(repeated, step.stash[DRAW].copies[side])

        return build

    def _near(self, side: str):  # type: ignore[no-untyped-def]
        def build(step: Step, images: Tensor) -> Tensor:
            return images + self.options.delta * step.stash[DRAW].directions[side].to(images.dtype)

        return build

    def _ratios(self, step: Step, sides: tuple[str, ...]) -> list[Tensor]:
        tap, anchors, points = self.options.tap, {}, {}
        for side in SIDES:
            raw = [step.d[view].taps[tap] for view in self._reads(side)]
            units = [F.normalize(features.flatten(1), dim=1) for features in raw]
            points[side], anchors[side] = units[0], torch.cat(units)
        return [log_ratio(points[side], side, anchors, self.options.tau) for side in sides]

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        terms = {}
        if step.wants("hinge"):
            real, fake = self._ratios(step, SIDES)
            terms["hinge"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            step.log(ratio_real=real.mean(), ratio_fake=fake.mean())
        if step.wants("jac"):
            terms["jac"] = sum((self._jacobian(step, side) for side in SIDES), start=torch.tensor(0.0))
        return self.terms(**terms)

    def _jacobian(self, step: Step, side: str) -> Tensor:
        at, near = (step.d[f"{self.name}.{side}_{end}"].taps[self.options.tap] for end in ("at", "near"))
        slope = (near - at).flatten(1).norm(dim=1) / self.options.delta
        return (slope - 1).abs().mean()

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("ratio"):
            return None
        (fake,) = self._ratios(step, ("fake",))
        return self.terms(ratio=-fake.mean())

    def _margin(self, step: Step, side: str) -> Tensor:
        (ratio,) = self._ratios(step, (side,))
        return ratio if side == "real" else -ratio


def _same(step: Step, images: Tensor) -> Tensor:
    return images


def claims(options: Any) -> Claims:
    needs = (
        Need(f"tap:{options.tap}", "its kernel compares features there; set kdd.tap"),
        Need("data:image", "its anchors are augmented images"),
    )
    if options.as_term:
        return Claims(needs=needs)
    way_out = "drop -p kdd or set kdd.as_term = true"
    return Claims(exclusive={"objective": way_out}, needs=needs, offers=frozenset({"margin"}))


SPEC = MethodSpec(
    name="kdd",
    summary="Kernel density discrimination (rough).",
    target=f"{__name__}:Kdd",
    options=KddOptions,
    claims=claims,
)
