"""Small methods that tests mix in: each exercises one corner of the hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gancore.api import Claims, LossTerms, Method, MethodSpec, Need, Options, Step, StepKey, hookimpl, option


def spec_of(cls: type[Method], name: str, options: type = Options, claims: Any = None) -> MethodSpec:
    """A spec for a class defined in a test, found again through this module."""
    module = sys.modules[__name__]
    target = f"Target{id(cls)}"
    setattr(module, target, cls)
    return MethodSpec(
        name=name,
        summary=f"{name}, for tests.",
        target=f"{__name__}:{target}",
        options=options,
        claims=claims or (lambda chosen: Claims()),
    )


@dataclass(frozen=True, kw_only=True)
class MixOptions(Options):
    """Options of :class:`Shrink`."""

    every: int = option(1, help="Interval.", minimum=1)


NOISE = StepKey[Tensor]()


class Shrink(Method):
    """A term on one extra view a side, with a drawn number: the shape of most methods."""

    @hookimpl
    def declare(self, plan):
        for side in ("real", "fake"):
            plan.view(f"{self.name}.{side}", self._near, sources=(side,))
        plan.term(
            "pull",
            "d",
            every=getattr(self.options, "every", 1),
            reads={
                "real": ("trunk",),
                f"{self.name}.real": ("trunk",),
                "fake": ("logits",),
                f"{self.name}.fake": ("logits",),
            },
        )

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        step.stash[NOISE] = step.rng().normal(1)

    def _near(self, step: Step, images: Tensor) -> Tensor:
        return images + 0.1 * step.stash[NOISE].to(images.dtype)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms | None:
        if not step.wants("pull"):
            return None
        trunk = step.d["real"].taps["trunk"] - step.d[f"{self.name}.real"].taps["trunk"]
        logits = step.d["fake"].logits - step.d[f"{self.name}.fake"].logits
        return self.terms(pull=trunk.square().mean() + logits.square().mean())


SHRINK = spec_of(Shrink, "shrink", MixOptions)
SHRINK_TOO = spec_of(Shrink, "another-shrink", MixOptions)


class Brighten(Method):
    """An augmenter: adds a drawn brightness."""

    @hookimpl
    def augment(self, run):
        return BrightenLink() if self.options.weight else None


class BrightenLink:
    """Its link."""

    sides = ("real", "fake")

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"shift": step.rng(side).uniform(shape[0]) - 0.5}

    def transform(self, images: Tensor, draw: dict[str, Tensor]) -> Tensor:
        return images * 0.9 + draw["shift"].to(images.dtype).reshape(-1, 1, 1, 1)


BRIGHTEN = spec_of(
    Brighten, "brighten", claims=lambda chosen: Claims(needs=(Need("data:image", "it brightens images"),))
)


class Head(Method):
    """A head on D's features that trains with D, and an average that is seen before the loss."""

    @hookimpl
    def declare(self, plan):
        self.width = plan.taps["pooled"].shape[0]
        reads = {"real": ("pooled",), "fake": ("pooled",)}
        plan.term("head", "d", reads=reads)
        plan.term("head", "g", reads={"fake": ("pooled",)})
        plan.watch("d", scores=("real",), margins=("real", "fake"))

    @hookimpl
    def setup(self, run):
        self.linear = run.add_module("linear", nn.Linear(self.width, 1), trained_by="d")
        self.unused = run.add_module("unused", nn.Linear(2, 2), trained_by="d")
        self.average = run.add_module("average", Average())

    @hookimpl
    def observe(self, step: Step) -> None:
        if step.phase == "d":
            self.average.mean.lerp_(step.scores("real").mean(), 0.1)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        real = self.linear(step.d["real"].taps["pooled"].flatten(1))
        fake = self.linear(step.d["fake"].taps["pooled"].flatten(1))
        return self.terms(head=(real - 1).square().mean() + (fake + 1).square().mean() + 0 * self.average.mean)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms:
        return self.terms(head=-self.linear(step.d["fake"].taps["pooled"].flatten(1)).mean())

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        if step.phase == "d":
            self.average.signs.add_(step.margin("real").sign().sum())
            step.log(average=self.average.mean)


class Average(nn.Module):
    """Buffers of :class:`Head`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))


HEAD = spec_of(Head, "head", claims=lambda chosen: Claims(needs=(Need("margin", "it counts signs"),)))


class NearLatents(Method):
    """A second latent set, read as images by G's loss and through D by D's."""

    @hookimpl
    def declare(self, plan):
        plan.latents(f"{self.name}.near", self._near)
        plan.view(f"{self.name}.fake", _same, sources=(f"{self.name}.near",), augment="fake")
        plan.term("d", "d", reads={"fake": ("logits",), f"{self.name}.fake": ("logits",)})
        plan.term("g", "g", reads={"fake_raw": ("images",), f"{self.name}.near": ("images",)}, weight=0.1)

    def _near(self, step: Step, latents: Tensor) -> Tensor:
        return latents + 0.05 * step.rng("near").normal(*latents.shape).to(latents.dtype)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        difference = step.d["fake"].logits - step.d[f"{self.name}.fake"].logits
        return self.terms(d=difference.square().mean())

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms:
        difference = step.images["fake_raw"] - step.images[f"{self.name}.near"]
        return self.terms(g=-difference.square().mean())


def _same(step: Step, images: Tensor) -> Tensor:
    return images


NEAR = spec_of(NearLatents, "near")

ALL = (SHRINK, SHRINK_TOO, BRIGHTEN, HEAD, NEAR)


def broken(hook: str, action: Callable[..., Any], name: str = "broken", **claims: Any) -> MethodSpec:
    """A method that declares one term of D and runs ``action`` in one hook."""

    class Broken(Method):
        pass

    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",)})
        if hook == "declare":
            action(self, plan)

    def d_loss(self, step):
        if hook == "d_loss":
            return action(self, step)
        return self.terms(t=step.d["real"].logits.mean())

    Broken.declare = hookimpl(declare)
    Broken.d_loss = hookimpl(d_loss)
    if hook in ("setup", "augment"):
        setattr(Broken, hook, hookimpl(lambda self, run: action(self, run)))
    elif hook == "evaluate":
        Broken.evaluate = hookimpl(lambda self, run, samples: action(self, samples))
    elif hook not in ("declare", "d_loss"):
        setattr(Broken, hook, hookimpl(lambda self, step: action(self, step)))
    return spec_of(Broken, name, claims=lambda chosen: Claims(**claims))
