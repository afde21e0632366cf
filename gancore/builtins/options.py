"""Options of the included objectives and penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancore.options import Options, option


@dataclass(frozen=True, kw_only=True)
class LeastSquaresOptions(Options):
    """``lsgan``: factor * (D - target)^2."""

    factor: float = option(0.5, help="Factor before each square; the paper has 1/2, other texts 1.", above=0)
    real_target: float = option(1.0, help="What D should say of a real (b), and of a fake in G's loss (c).")
    fake_target: float = option(0.0, help="What D should say of a fake (a).")

    def check(self) -> None:
        """Targets must differ, or there is nothing to learn."""
        if self.real_target == self.fake_target:
            raise ValueError(f"real_target and fake_target are both {self.real_target}; they must differ")


@dataclass(frozen=True, kw_only=True)
class WassersteinOptions(Options):
    """``wgan``: means of D, with D kept Lipschitz by clipping."""

    clip: float = option(
        0.01,
        help="Each weight of D is clipped to [-clip, clip] after its update; 0 for no clipping.",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class RelativisticOptions(Options):
    """``relativistic``."""

    form: Literal["paired", "average"] = option(
        "paired", help="Compare each real with the fake of the same row, or with the mean of all fakes."
    )
    loss: Literal["softplus", "hinge"] = option(
        "softplus", help="Loss of the difference; 'hinge' with 'average' halves both parts."
    )


@dataclass(frozen=True, kw_only=True)
class ZeroCentredOptions(Options):
    """``r1`` and ``r2``: gamma / 2 * E ||grad D||^2."""

    gamma: float = option(10.0, help="The factor gamma; the penalty is gamma / 2 * E ||grad D||^2.", above=0)
    every: int = option(1, help="Lazy interval in updates of D; the core scales the term by it.", minimum=1)
    through_augmentation: bool = option(
        True, help="Differentiate with respect to the images before the augmentation chain."
    )
    output: Literal["logits", "scores"] = option(
        "logits", help="'logits' of the clean images, or the 'scores' that the objective reads."
    )


@dataclass(frozen=True, kw_only=True)
class GradientPenaltyOptions(Options):
    """``gp``: lambda * E (||grad D(x^)|| - target)^2."""

    lam: float = option(10.0, help="The factor lambda.", above=0)
    target: float = option(1.0, help="The norm to pull to.", minimum=0)
    one_sided: bool = option(False, help="Penalise only norms above the target.")
    eps: float = option(0.0, help="Added inside the root of the norm: sqrt(||grad||^2 + eps).", minimum=0)
    every: int = option(1, help="Lazy interval in updates of D; the core scales the term by it.", minimum=1)
