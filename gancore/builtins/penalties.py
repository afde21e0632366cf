"""Gradient penalties: pure functions of an input gradient, and the thin methods that hook them in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore.api import Declaration, LossTerms, Method, Penalty, Step, StepKey, hookimpl


def zero_centred(gradient: Tensor, gamma: float) -> Tensor:
    """gamma / 2 * E ||grad||^2, summed over all but the batch, which is averaged.

    Args:
        gradient: (B, …), of D's output with respect to its input.

    Reference: arXiv:1801.04406, eq. 9 (R1) and 10 (R2).
    """
    return gamma / 2 * gradient.flatten(1).square().sum(1).mean()


def gradient_norm(gradient: Tensor, *, target: float = 1.0, one_sided: bool = False, eps: float = 0.0) -> Tensor:
    """E (||grad|| - target)^2, or E relu(||grad|| - target)^2; the norm is sqrt(||grad||^2 + eps).

    Args:
        gradient: (B, …).

    Reference: arXiv:1704.00028, eq. 3. With eps = 0 a gradient of exactly zero has subgradient zero.
    """
    flat = gradient.flatten(1)
    norm = torch.linalg.vector_norm(flat, dim=1) if eps == 0 else (flat.square().sum(1) + eps).sqrt()
    excess = norm - target
    return (F.relu(excess) if one_sided else excess).square().mean()


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """alpha * real + (1 - alpha) * fake, one alpha a sample.

    Args:
        real, fake: (B, …). alpha: (B,) in [0, 1].
    """
    alpha = alpha.to(real.dtype).reshape(-1, *[1] * (real.dim() - 1))
    return alpha * real + (1 - alpha) * fake


class _ZeroCentred(Method):
    side = ""

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        leaf = f"{self.side}_raw" if chosen.through_augmentation else self.side
        plan.term(
            "penalty",
            "d",
            every=chosen.every,
            penalty=Penalty(view=self.side, leaf=leaf, output=chosen.output),
        )

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("penalty"):
            return None
        return self.terms(penalty=zero_centred(step.input_gradient("penalty"), self.options.gamma))


class R1(_ZeroCentred):
    """``-p r1``: on reals."""

    side = "real"


class R2(_ZeroCentred):
    """``-p r2``: on fakes."""

    side = "fake"


@dataclass(frozen=True)
class _Draw:
    alpha: Tensor


_DRAW = StepKey[_Draw]("draw")


class GradientPenalty(Method):
    """``-p gp``: on interpolates of un-augmented reals and fakes, with the labels of the reals."""

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        view = f"{self.name}.interpolate"
        plan.view(view, self._interpolate, sources=("real_raw", "fake_raw"))
        plan.term(
            "penalty",
            "d",
            weight=self.options.lam,
            every=self.options.every,
            penalty=Penalty(view=view, leaf=view),
        )

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        if step.wants("penalty"):
            step.stash[_DRAW] = _Draw(step.rng().uniform(step.batch))

    def _interpolate(self, step: Step, real: Tensor, fake: Tensor) -> Tensor:
        return interpolate(real, fake, step.stash[_DRAW].alpha)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("penalty"):
            return None
        gradient = step.input_gradient("penalty")
        chosen = self.options
        return self.terms(
            penalty=gradient_norm(gradient, target=chosen.target, one_sided=chosen.one_sided, eps=chosen.eps)
        )
