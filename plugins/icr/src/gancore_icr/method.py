"""ICR and CR in gancore's hooks: a changed view a side, and fakes at neighbouring latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from gancore.api import ConfigError, Declaration, LossTerms, Method, RunContext, Step, StepKey, hookimpl
from gancore_icr import functional
from gancore_icr.options import CrOptions, IcrOptions


@dataclass(frozen=True)
class Draw:
    """The random choices of one phase: T by side, and N(0, 1) of the latents' shape; only what is in use."""

    changes: dict[str, functional.Change] = field(default_factory=dict)
    noise: Tensor | None = None


ICR_DRAW = StepKey[Draw]("draw")
CR_DRAW = StepKey[Draw]("draw")


class Consistency(Method):
    """What bCR and CR share: D's output on the images of a side against its output on T of them.

    Views: ``NAME.real_t`` and ``NAME.fake_t``, T of the images before any augmentation, which then pass through
    the chain with the draws of their side, so that both sides of a difference are augmented alike.
    """

    options: IcrOptions | CrOptions
    drawn: ClassVar[StepKey[Draw]]  # one a method: both may be in a run

    @hookimpl
    def setup(self, run: RunContext) -> None:
        if self.options.balances and self.options.flips and not run.mirror:
            run.warn(
                "D is asked to answer mirrored images like the images, and reals are not mirrored: G may make "
                f"mirror images. Of digits, letters and the like set {self.name}.transform = translation; where "
                "a mirror image is as good as the image, mirror the reals too (--mirror)"
            )

    def _declare_balance(self, plan: Declaration, side: str, term: str, factor: float) -> None:
        """The term that compares a side with T of it."""
        if not factor:
            return
        self._shape = plan.shape
        self._check_moves()
        changed = f"{self.name}.{side}_t"
        augment = side if self.options.on == "augmented" else None
        plan.view(changed, self._change(side), sources=(f"{side}_raw",), augment=augment)
        reads = {view: (self.options.output,) for view in (self._seen(side), changed)}
        plan.term(term, "d", weight=factor, reads=reads)

    def _seen(self, side: str) -> str:
        """The view of a side that differences are taken from."""
        return side if self.options.on == "augmented" else f"{side}_raw"

    def _check_moves(self) -> None:
        """Refuse a T that changes no image of this size."""
        chosen, (height, width) = self.options, self._shape[1:]
        moves = any(functional.reach(side, chosen.max_shift) for side in (height, width))
        if chosen.transform == "translation" and not moves:
            raise ConfigError(
                f"{self.name}.transform = translation with {self.name}.max_shift = {chosen.max_shift} moves "
                f"{height}x{width} images by less than a pixel, so that T changes nothing: set "
                f"{self.name}.max_shift to at least {1 / max(height, width):.4g}"
            )

    def _draw_change(self, step: Step, side: str) -> functional.Change:
        chosen = self.options
        height, width = self._shape[1:]
        return functional.draw_change(
            step.batch,
            height,
            width,
            step.rng(side).torch,
            flip=chosen.flips,
            ratio=chosen.max_shift if chosen.translates else 0.0,
        )

    def _change(self, side: str):  # type: ignore[no-untyped-def]
        def build(step: Step, images: Tensor) -> Tensor:
            return functional.change(images, step.stash[self.drawn].changes[side])

        return build

    def _difference(self, step: Step, first: str, second: str) -> Tensor:
        return functional.consistency(self._read(step, first), self._read(step, second), self.options.reduction)

    def _read(self, step: Step, view: str) -> Tensor:
        output = self.options.output
        return step.d[view].logits if output == "logits" else step.d[view].taps[output]


class Cr(Consistency):
    """``-p cr``: reals against T of them."""

    options: CrOptions
    drawn = CR_DRAW

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        self._declare_balance(plan, "real", "consistency", self.options.lambda_real)

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        if step.wants("consistency"):
            step.stash[self.drawn] = Draw({"real": self._draw_change(step, "real")})

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("consistency"):
            return None
        return self.terms(consistency=self._difference(step, self._seen("real"), "cr.real_t"))


class Icr(Consistency):
    """``-p icr``: bCR on both sides, and zCR in both networks.

    Views beside those of :class:`Consistency`: ``icr.near``, the images of G at z', with the labels and the
    batch statistics mode of z; ``icr.near_seen``, the same through the augmentation chain with the fakes' draws.
    """

    options: IcrOptions
    drawn = ICR_DRAW

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        self._declare_balance(plan, "real", "bcr_real", chosen.lambda_real)
        self._declare_balance(plan, "fake", "bcr_fake", chosen.lambda_fake)
        plan.latents("icr.near", self._near)
        self._near_view = "icr.near"
        if chosen.on == "augmented":
            self._near_view = "icr.near_seen"
            plan.view("icr.near_seen", None, sources=("icr.near",), augment="fake")
        reads = {view: (chosen.output,) for view in (self._seen("fake"), self._near_view)}
        plan.term("zcr", "d", weight=chosen.lambda_dis, reads=reads)
        images = {view: ("images",) for view in ("fake_raw", "icr.near")}
        plan.term("zcr", "g", weight=chosen.lambda_gen, reads=images)

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def before_g_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        terms = {
            f"bcr_{side}": self._difference(step, self._seen(side), f"icr.{side}_t")
            for side in ("real", "fake")
            if step.wants(f"bcr_{side}")
        }
        if step.wants("zcr"):
            terms["zcr"] = self._difference(step, self._seen("fake"), self._near_view)
        return self.terms(**terms)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("zcr"):
            return None
        base, near = step.images["fake_raw"], step.images["icr.near"]
        # Unrelated samples are the scale on which neighbours are near or far.
        distance = functional.squared_distance
        step.log(near=distance(base, near).mean(), far=distance(base, base.roll(1, 0)).mean())
        return self.terms(zcr=functional.spread(base, near, self.options.reduction, self.options.gen_bound))

    @hookimpl
    def advise(self, values: Mapping[str, float]) -> Mapping[str, str] | None:
        """Say when G follows its zCR term too far."""
        near, far = values.get("near"), values.get("far")
        if near is None or far is None:
            return None
        found = {}
        if far > FAR:
            found["range"] = (
                f"fakes of unrelated latents differ by {far:.3g} (mean square), more than images in [-1, 1] can: "
                "nothing holds G's zCR term. Set icr.gen_bound, or lower icr.lambda_gen"
            )
        elif near > far / 2 > 0:
            found["neighbours"] = (
                f"G(z) and G(z') differ by {near:.3g} (mean square), fakes of unrelated latents by {far:.3g}: "
                "neighbouring latents are no longer neighbours. Lower icr.lambda_gen or icr.sigma, or set "
                "icr.gen_bound"
            )
        return found

    def _draw(self, step: Step) -> None:
        changes = {side: self._draw_change(step, side) for side in ("real", "fake") if step.wants(f"bcr_{side}")}
        noise = None
        if step.wants("zcr") and step.latents is not None:
            noise = step.rng("near").normal(*step.latents.shape)
        step.stash[self.drawn] = Draw(changes, noise)

    def _near(self, step: Step, latents: Tensor) -> Tensor:
        noise = step.stash[self.drawn].noise
        assert noise is not None  # this set is built where zcr is wanted, and there it was drawn
        return functional.near_latents(latents, noise, self.options.sigma)


FAR = 4.0
"""The largest mean square difference of two images in [-1, 1]."""
