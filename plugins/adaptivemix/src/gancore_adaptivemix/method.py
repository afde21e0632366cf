"""AdaptiveMix in gancore's hooks: one extra view a side."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gancore.api import Declaration, LossTerms, Method, Rng, Step, StepKey, hookimpl
from gancore_adaptivemix import functional
from gancore_adaptivemix.options import AdaptiveMixOptions


@dataclass(frozen=True)
class MixDraw:
    """The random choices for one side in one phase.

    ``permutation`` is (B,) int64, ``lam`` 0-d or (B,), ``noise`` as one batch of features, or None.
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
                plan.feature_view(
                    f"adaptivemix.{side}_features",
                    self._mix_side(side),
                    tap=chosen.tap,
                    sources=((side, chosen.tap),),
                )
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
            side: self._draw_side(step.rng(side), step.batch)
            for side in ("real", "fake")
            if f"adaptivemix.{side}" in step.d
        }

    def _draw_side(self, rng: Rng, batch: int) -> MixDraw:
        chosen = self.options
        permutation = rng.permutation(batch)
        if chosen.derange:
            permutation = functional.derangement(permutation)
        lam = rng.beta(chosen.alpha, chosen.alpha, *((batch,) if chosen.per_sample_lambda else ()))
        noise = rng.normal(batch, *self._shape) * chosen.noise if chosen.noise else None
        return MixDraw(permutation, lam, noise)

    def _mix_side(self, side: str):  # type: ignore[no-untyped-def]
        def build(step: Step, values: Tensor) -> Tensor:
            draw = step.stash[DRAW][side]
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
        return functional.shrinkage(
            functional.mix(features, draw.permutation, draw.lam),
            step.d[f"adaptivemix.{side}"].taps[chosen.tap],
            noise,
            distance=chosen.distance,
            noise_on=chosen.noise_on,
            detach_target=chosen.detach_target,
            reduction=chosen.reduction,
        )
