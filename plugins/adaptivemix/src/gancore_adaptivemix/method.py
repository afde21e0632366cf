"""AdaptiveMix in gancore's hooks: one extra view a side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gancore.api import (
    ConfigError,
    Declaration,
    LossTerms,
    Method,
    PluginError,
    Rng,
    RunContext,
    Step,
    StepKey,
    hookimpl,
)
from gancore_adaptivemix import functional
from gancore_adaptivemix.options import AdaptiveMixOptions


@dataclass(frozen=True)
class MixDraw:
    """The random choices for one side in one phase.

    ``permutation`` is (B,) int64, ``lam`` 0-d or (B,), ``noise`` as one batch of features, or None where no
    term of the phase takes it.
    """

    permutation: Tensor
    lam: Tensor
    noise: Tensor | None


DRAW = StepKey[dict[str, MixDraw]]("draw")


class AdaptiveMix(Method):
    """Mix images pairwise and pull F of the mix towards the mix of F; reals with reals, fakes with fakes.

    Views: ``adaptivemix.real`` and ``adaptivemix.fake``, the mixed (augmented) images, with the labels of the
    first of each pair; with ``adv_on`` other than ``clean`` also ``adaptivemix.real_features`` and
    ``…fake_features``, which enter D at the tap.
    """

    options: AdaptiveMixOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        self._shape = plan.taps[chosen.tap].shape
        mixed = chosen.adv_on != "clean"
        for side in ("real", "fake"):
            plan.view(f"adaptivemix.{side}", self._mix_side(side), sources=(side,))
            if mixed:
                self._declare_features(plan, side)
            reads = {side: (chosen.tap,), f"adaptivemix.{side}": (chosen.tap,)}
            plan.term(f"shrink_{side}", "d", reads=reads)
            if side == "fake" and chosen.apply_in_g:
                plan.term("shrink_fake", "g", reads=reads)
        if mixed:
            plan.scores(
                self._scores,
                reads={
                    side: {f"adaptivemix.{side}_features": ("logits",), f"adaptivemix.{side}": ("logits",)}
                    for side in ("real", "fake")
                },
            )

    def _declare_features(self, plan: Declaration, side: str) -> None:
        tap = self.options.tap
        try:
            plan.feature_view(
                f"adaptivemix.{side}_features", self._mix_side(side), tap=tap, sources=((side, tap),)
            )
        except PluginError as error:  # the claims need the tap, so D lacks it and another method derives it
            raise ConfigError(
                f"adaptivemix.tap = '{tap}' is derived from D's features, and D has no head that goes on from "
                f"there, which adaptivemix.adv_on = {self.options.adv_on} needs for mixed features: set "
                "adaptivemix.adv_on = clean, or adaptivemix.tap to a tap of D itself, such as 'trunk'"
            ) from error

    @hookimpl
    def setup(self, run: RunContext) -> None:
        if run.batch < 2:
            raise ConfigError(
                f"train.batch = {run.batch}: AdaptiveMix mixes an image with another one of its batch, and there "
                "is none; choose a batch of 2 or more"
            )

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def before_g_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        return self._terms(step)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms:
        return self._terms(step)

    def _draw(self, step: Step) -> None:
        step.stash[DRAW] = {
            side: self._draw_side(step.rng(side), step.batch, noisy=step.wants(f"shrink_{side}"))
            for side in ("real", "fake")
            if f"adaptivemix.{side}" in step.d
        }

    def _draw_side(self, rng: Rng, batch: int, *, noisy: bool = True) -> MixDraw:
        chosen = self.options
        permutation = rng.permutation(batch)
        if chosen.derange:
            permutation = functional.derangement(permutation)
        lam = rng.beta(chosen.alpha, chosen.alpha, *((batch,) if chosen.per_sample_lambda else ()))
        noise = rng.normal(batch, *self._shape) * chosen.noise if noisy and chosen.noise else None
        return MixDraw(permutation, lam, noise)

    def _mix_side(self, side: str) -> Callable[[Step, Tensor], Tensor]:
        def build(step: Step, values: Tensor) -> Tensor:
            draws = step.stash[DRAW]
            if side not in draws:  # another method reads this view in a phase where no term of this one does
                draws[side] = self._draw_side(step.rng(side), step.batch, noisy=False)
            draw = draws[side]
            return functional.mix(values, draw.permutation, draw.lam)

        return build

    def _scores(self, step: Step, side: str) -> Tensor:
        of_features = step.d[f"adaptivemix.{side}_features"].logits
        of_mixed = step.d[f"adaptivemix.{side}"].logits
        mean = self.options.adv_on == "mixed_mean"
        return functional.mixed_scores(of_features, of_mixed, "mixed_mean" if mean else "mixed_sum")

    def _terms(self, step: Step) -> LossTerms:
        terms = {
            f"shrink_{side}": self._shrinkage(step, side)
            for side in ("real", "fake")
            if step.wants(f"shrink_{side}")
        }
        return self.terms(**terms)

    def _shrinkage(self, step: Step, side: str) -> Tensor:
        chosen, draw = self.options, step.stash[DRAW][side]
        features = step.d[side].taps[chosen.tap]
        noise = None if draw.noise is None else draw.noise.to(features.dtype)
        return functional.mixed_shrinkage(
            features,
            draw.permutation,
            draw.lam,
            step.d[f"adaptivemix.{side}"].taps[chosen.tap],
            noise,
            distance=chosen.distance,
            noise_on=chosen.noise_on,
            detach_target=chosen.detach_target,
            reduction=chosen.reduction,
        )
