"""KDD GAN in gancore's hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gancore.api import (
    ConfigError,
    Declaration,
    LossTerms,
    Method,
    RunContext,
    Step,
    StepKey,
    hookimpl,
    merge_reads,
)
from gancore_diffaugment import functional as diffaugment
from gancore_kdd import functional
from gancore_kdd.modules import Head, Last, Memory, has_spectral_norm, memory_bytes
from gancore_kdd.options import KddOptions

SIDES = ("real", "fake")
GIB = 2**30
SMALL_DELTA = 1e-4
IDLE = 0.02
"""Share of samples with a gradient below which the hinge is called saturated."""


@dataclass(frozen=True)
class KddDraw:
    """The random choices of one phase: DiffAugment's draws by view, unit directions (B, C, H, W) by side."""

    copies: dict[str, dict[str, Tensor]]
    directions: dict[str, Tensor]


DRAW = StepKey[KddDraw]("draw")
RATIOS = StepKey[dict[str, Tensor]]("log-ratios")


class Kdd(Method):
    """A hinge on r(x), the log-ratio of two leave-one-out kernel densities of D's unit features.

    Taps: ``kdd.phi_un`` and ``kdd.phi``. Views: ``kdd.real_copies`` and ``kdd.fake_copies``, augmented images
    that are anchors and never judged (``…_copies_g`` where G's step takes another number of them);
    ``kdd.real_at``, ``kdd.real_near`` and those of the fakes, the pairs of the Jacobian term, in float32.
    """

    options: KddOptions

    @hookimpl
    def declare_taps(self, plan: Declaration) -> None:
        chosen = self.options
        if chosen.tap not in plan.own_taps:
            raise ConfigError(
                f"kdd.tap = {chosen.tap!r}: W reads one of D's own taps ({', '.join(plan.own_taps)}), and this "
                "one is derived from them by a method"
            )
        self._width = math.prod(plan.taps[chosen.tap].shape)
        self._dimension = chosen.feature_dim or self._width
        if self._dimension == 1:
            raise ConfigError(
                f"kdd compares {self._dimension} feature of '{chosen.tap}': on the unit sphere it is +1 or -1 "
                "and has no gradient; set kdd.feature_dim to 2 or more"
            )
        self.phi_un, self.phi = f"{self.name}.phi_un", f"{self.name}.phi"
        for tap, compute, help_text in (
            (self.phi_un, self._phi_un, f"W * {chosen.tap}: what KDD compares, before it is normalised"),
            (self.phi, self._phi, "kdd.phi_un on the unit sphere"),
        ):
            plan.tap(tap, source=chosen.tap, compute=compute, shape=(self._dimension,), help=help_text)

    def _phi_un(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(features)
        return out

    def _phi(self, features: Tensor) -> Tensor:
        return functional.unit(self._phi_un(features))

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        self._shape = plan.shape
        self._classes = plan.num_classes if chosen.projection != "none" else 0
        self._base = {side: side if chosen.augmented else f"{side}_raw" for side in SIDES}
        self._copies = {"d": self._declare_copies(plan, "d", chosen.anchors)}
        self._copies["g"] = self._copies["d"]
        if chosen.copies_in_g != chosen.anchors:
            self._copies["g"] = self._declare_copies(plan, "g", chosen.copies_in_g)
        outputs = (self.phi, self.phi_un) if self._classes and chosen.projection == "phi_un" else (self.phi,)
        reads_d = merge_reads(*(self._reads("d", side, outputs) for side in SIDES))
        reads_g = self._reads("g", "fake", outputs)
        if chosen.reals_in_g != "last":
            reads_g = merge_reads(reads_g, self._reads("g", "real", (self.phi,)))
        plan.term("hinge", "d", reads=reads_d)
        plan.term("ratio", "g", reads=reads_g)
        if not chosen.as_term:
            plan.margin(self._margin, reads=dict.fromkeys(SIDES, reads_d))
        if chosen.dagger or chosen.reals_in_g == "last":
            plan.watch("d", reads=self._reads("d", "real", (self.phi,)))
        if chosen.lambda_jac:
            self._declare_jacobian(plan)

    def _declare_copies(self, plan: Declaration, phase: str, count: int) -> dict[str, str]:
        views = {}
        for side in SIDES if count else ():
            view = f"{self.name}.{side}_copies" + ("_g" if phase == "g" else "")
            plan.view(view, self._copy(view, count), sources=(self._base[side],), rows=count)
            views[side] = view
        return views

    def _declare_jacobian(self, plan: Declaration) -> None:
        reads = {}
        for side in SIDES:
            for end, build in (("at", None), ("near", self._near(side))):
                view = f"{self.name}.{side}_{end}"
                plan.view(view, build, sources=(self._base[side],), precision="float32")
                reads[view] = (self.phi_un,)
        plan.term("jac", "d", weight=self.options.lambda_jac, reads=reads)

    def _reads(self, phase: str, side: str, outputs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        copies = self._copies[phase].get(side)
        return {self._base[side]: outputs, **({copies: (self.phi,)} if copies else {})}

    @hookimpl
    def setup(self, run: RunContext) -> None:
        chosen = self.options
        if run.batch < 2:
            raise ConfigError(
                f"train.batch = {run.batch}: KDD takes a sample away from the density that it is judged by "
                "(leave-one-out), and no other sample would be left; choose a batch of 2 or more"
            )
        if chosen.anchors or chosen.copies_in_g:
            self._check_policy()
        spectral = chosen.spectral == "on" or (chosen.spectral == "as-d" and has_spectral_norm(run.discriminator))
        head = Head(self._width, self._dimension, self._classes, spectral=spectral)
        self.head = run.add_module("head", head, trained_by="d")
        own = sum(parameter.numel() for parameter in run.discriminator.parameters())
        if self._width * self._dimension > own:
            smaller = 1 << max((own // (2 * self._width)).bit_length() - 1, 3)
            run.warn(
                f"W has {self._dimension} x {self._width} parameters, more than all of D ({own:,}), since the "
                f"tap '{self.options.tap}' is wide; kdd.feature_dim = {smaller} makes it smaller"
            )
        if chosen.lambda_jac and chosen.delta < SMALL_DELTA and run.dtype != torch.float64:
            run.warn(
                f"kdd.delta = {chosen.delta:g} in float32: a step of that length is lost in rounding, so that "
                f"the Jacobian term measures noise; take {SMALL_DELTA:g} or more"
            )
        self._dtype = run.dtype
        if chosen.dagger:
            self.memory = run.add_module("memory", self._new_memory(run))
        if chosen.reals_in_g == "last":
            rows = run.batch * (1 + chosen.anchors)
            self.last = run.add_module("last", Last(rows, self._dimension))

    def _check_policy(self) -> None:
        policy, shape = self.options.policy, self._shape
        try:
            effective = diffaugment.effective(policy, diffaugment.DEFAULTS, (shape[0], shape[1], shape[2]))
        except ValueError as error:
            raise ConfigError(f"kdd.policy = {policy!r}: {error}") from None
        if not effective:
            raise ConfigError(
                f"kdd.policy = {policy!r} changes no image of shape {tuple(shape)}, so that copies would equal "
                "the point that leave-one-out takes away; name another operation, or set kdd.anchors = 0 and "
                "kdd.anchors_in_g = 0"
            )

    def _new_memory(self, run: RunContext) -> Memory:
        variants = 2 if run.mirror else 1
        size = memory_bytes(run.dataset_size, variants, self._dimension, run.dtype) / GIB
        if size > self.options.dagger_limit:
            mirrored = " in two variants (data.mirror)" if run.mirror else ""
            raise ConfigError(
                f"kdd.dagger remembers {self._dimension} features of {run.dataset_size} images{mirrored}: "
                f"{size:.2f} GiB in memory and in every checkpoint, above kdd.dagger_limit = "
                f"{self.options.dagger_limit:g}; lower kdd.feature_dim, raise the limit, or leave dagger out"
            )
        return Memory(run.dataset_size, variants, self._dimension)

    # Draws and views.

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        self._draw(step)

    @hookimpl
    def before_g_step(self, step: Step) -> None:
        self._draw(step)

    def _draw(self, step: Step) -> None:
        copies = {}
        for phase, count in (("d", self.options.anchors), ("g", self.options.copies_in_g)):
            for side, view in self._copies[phase].items():
                if view in step.d and view not in copies:
                    copies[view] = diffaugment.draw(
                        step.rng(f"copies {side}").torch,
                        step.batch * count,
                        (self._shape[0], self._shape[1], self._shape[2]),
                        self.options.policy,
                    )
        directions = {}
        for side in SIDES:
            if f"{self.name}.{side}_near" in step.d:
                noise = step.rng(f"direction {side}").normal(step.batch, *self._shape)
                directions[side] = functional.directions(noise.to(self._dtype))
        step.stash[DRAW] = KddDraw(copies, directions)

    def _copy(self, view: str, count: int) -> Callable[[Step, Tensor], Tensor]:
        def build(step: Step, images: Tensor) -> Tensor:
            repeated = images.repeat(count, *[1] * (images.dim() - 1))
            return diffaugment.augment(repeated, step.stash[DRAW].copies[view], self.options.policy)

        return build

    def _near(self, side: str) -> Callable[[Step, Tensor], Tensor]:
        def build(step: Step, images: Tensor) -> Tensor:
            return images + self.options.delta * step.stash[DRAW].directions[side]

        return build

    # Log-ratios.

    def _anchors(self, step: Step, phase: str, side: str, first: Tensor) -> Tensor:
        """Anchors of a side, (N, K): ``first``, then augmented copies; own rows before those of other ranks."""
        view = self._copies[phase].get(side)
        rows = first if view is None else torch.cat((first, step.d[view].taps[self.phi]))
        return self._gathered(step, rows)

    def _gathered(self, step: Step, rows: Tensor) -> Tensor:
        return step.gather(rows) if self.options.gather == "all" else rows

    def _recalled(self, step: Step) -> Tensor:
        phi = step.d[self._base["real"]].taps[self.phi]
        return self.memory.recall(step.indices, step.mirrored.long(), phi)

    def _densities(
        self, step: Step, real: Tensor, fake: Tensor, **more: Tensor | int | None
    ) -> tuple[Tensor, ...]:
        chosen = self.options
        return functional.log_ratios(
            real,
            fake,
            chosen.tau,
            fake_points=step.batch,
            detach_anchors=chosen.detach_anchors,
            divisor=chosen.divisor,
            unit_rows=True,
            **more,  # type: ignore[arg-type]
        )

    def _ratios(self, step: Step) -> dict[str, Tensor]:
        """r at both sides, as D's step takes it; (B,) each."""
        phi = {side: step.d[self._base[side]].taps[self.phi] for side in SIDES}
        memory = None
        if self.options.dagger:
            real = phi["real"]
            memory = self._anchors(step, "d", "real", self._recalled(step))
        else:
            real = self._anchors(step, "d", "real", phi["real"])
        fake = self._anchors(step, "d", "fake", phi["fake"])
        found = self._densities(step, real, fake, real_points=step.batch, memory=memory)
        return {side: self._with_class(step, side, r) for side, r in zip(SIDES, found, strict=True)}

    def _with_class(self, step: Step, side: str, ratio: Tensor) -> Tensor:
        labels = step.labels[side]
        if not self._classes or labels is None or self.head.classes is None:
            return ratio
        tap = self.phi_un if self.options.projection == "phi_un" else self.phi
        features = step.d[self._base[side]].taps[tap]
        return ratio + functional.projection(features, self.head.classes.weight, labels)

    def _margin(self, step: Step, side: str) -> Tensor:
        """r, with its class term: positive where D says "real"."""
        if RATIOS not in step.stash:
            step.stash[RATIOS] = self._ratios(step)
        return step.stash[RATIOS][side]

    # Losses.

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        terms = {}
        if step.wants("hinge"):
            ratios = self._ratios(step)
            real, fake = ratios["real"], ratios["fake"]
            step.stash[RATIOS] = {side: ratio.detach() for side, ratio in ratios.items()}
            terms["hinge"] = functional.hinge(real, fake)
            active_real, active_fake = functional.active(real.detach(), fake.detach())
            step.log(
                ratio_real=real.mean(), ratio_fake=fake.mean(), active_real=active_real, active_fake=active_fake
            )
        if step.wants("jac"):
            real, fake = (self._jacobian(step, side) for side in SIDES)
            terms["jac"] = real + fake
        return self.terms(**terms)

    def _jacobian(self, step: Step, side: str) -> Tensor:
        at, near = (step.d[f"{self.name}.{side}_{end}"].taps[self.phi_un] for end in ("at", "near"))
        return functional.jacobian(at, near, self.options.delta)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("ratio"):
            return None
        if self.options.reals_in_g == "last":
            real = self._gathered(step, self.last.features)
        elif self.options.reals_in_g == "cache":
            real = self._anchors(step, "g", "real", self._recalled(step))
        else:
            real = self._anchors(step, "g", "real", step.d[self._base["real"]].taps[self.phi])
        fake = self._anchors(step, "g", "fake", step.d[self._base["fake"]].taps[self.phi])
        _, ratio = self._densities(step, real, fake, real_points=0)
        ratio = self._with_class(step, "fake", ratio)
        return self.terms(ratio=-ratio.mean())

    # What the next step remembers.

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        """Store features of this step's reals: they are those of the weights before this update."""
        if self.options.dagger:
            phi = step.d[self._base["real"]].taps[self.phi]
            self.memory.store(step.indices, step.mirrored.long(), phi)
        if self.options.reals_in_g == "last":
            rows = step.d[self._base["real"]].taps[self.phi]
            view = self._copies["d"].get("real")
            if view is not None:
                rows = torch.cat((rows, step.d[view].taps[self.phi]))
            self.last.features.copy_(rows)

    @hookimpl
    def advise(self, values: Mapping[str, float]) -> Mapping[str, str] | None:
        shares = [values.get(f"active_{side}") for side in SIDES]
        if any(share is None or not share < IDLE for share in shares):
            return None
        chosen = self.options
        copies = ", and own augmented copies dominate the density of their image" if chosen.anchors else ""
        way_out = (
            "raise kdd.tau towards 1"
            if chosen.tau < 1
            else "if that lasts, D is far ahead of G: lower optimizer.d.lr, or train jointly (-p hinge -o "
            "kdd.as_term=true)"
        )
        return {
            "saturated": f"the hinge has no gradient at {100 - 100 * IDLE:g} % of all samples and more, so D "
            f"hardly learns from KDD: |r| may reach 2 / tau = {2 / chosen.tau:g}{copies}; {way_out}"
        }
