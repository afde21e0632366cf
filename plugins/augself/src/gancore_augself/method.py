"""AugSelf-GAN in gancore's hooks: a link of DiffAugment, heads on D's features, terms of D and of G."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from gancore.api import Augment, Declaration, LossTerms, Method, PluginError, RunContext, Step, hookimpl
from gancore_augself import functional
from gancore_augself.heads import Heads
from gancore_augself.options import AugSelfOptions
from gancore_diffaugment import functional as diffaugment
from gancore_diffaugment.policy import WORDS, Policy, Strengths

Side = Literal["real", "fake"]
SIGNS: dict[Side, Literal[1, -1]] = {"real": 1, "fake": -1}
"""w+ = w for reals, w- = -w for fakes."""


class AugSelfLink:
    """DiffAugment on both sides; what it draws is what the heads are asked for."""

    sides: tuple[str, ...] = ("real", "fake")

    def __init__(self, policy: Policy, strengths: Strengths) -> None:
        self.policy = policy
        self.strengths = strengths

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> Mapping[str, Tensor]:
        count, channels, height, width = shape
        generator = step.rng(side).torch
        return diffaugment.draw(generator, count, (channels, height, width), self.policy, self.strengths)

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        return diffaugment.augment(images, draw, self.policy, self.strengths)


class AugSelf(Method):
    """D tells from phi(T(x)) - phi(x) how x was augmented; for fakes it answers with the opposite sign.

    Terms: ``predict_real`` and ``predict_fake`` of D, ``fool`` of G, each a sum over the heads. The gradient
    flows through both features, in G's phase down to G; the heads train with D. It declares no view of its
    own: it reads ``real``, ``real_raw``, ``fake`` and ``fake_raw`` at the tap.
    """

    options: AugSelfOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        if chosen.augments_only:
            return
        _, height, width = plan.shape
        strengths = chosen.strengths
        self._inputs = math.prod(plan.taps[chosen.tap].shape)
        self._operations = {word: WORDS[word] for word in chosen.head_words}
        self._reach = (strengths.reach(height), strengths.reach(width))
        self._span = (height - strengths.cut(height) % 2, width - strengths.cut(width) % 2)
        reads = {side: {side: (chosen.tap,), f"{side}_raw": (chosen.tap,)} for side in SIGNS}
        for side in SIGNS:
            plan.term(f"predict_{side}", "d", weight=chosen.lambda_d, reads=reads[side])
        plan.term("fool", "g", weight=chosen.lambda_g, reads=reads["fake"])

    @hookimpl
    def setup(self, run: RunContext) -> None:
        if self.options.augments_only:
            return
        self._check_visible(run)
        widths = {word: functional.width(names) for word, names in self._operations.items()}
        heads = Heads(self._inputs, widths, self.options.head)
        self._heads = run.add_module("heads", heads, trained_by="d")

    def _check_visible(self, run: RunContext) -> None:
        """Tell of predicted operations that change no image of this shape, beyond those of strength 0."""
        chosen, (channels, height, width) = self.options, run.shape
        visible = diffaugment.effective(chosen.policy, chosen.strengths, (channels, height, width))
        predicted = [name for names in self._operations.values() for name in names]
        idle = [name for name in predicted if name not in visible and name not in chosen.invisible]
        if idle:
            run.warn(
                f"its heads predict {', '.join(idle)}, which changes no image of shape {channels} x {height} x "
                f"{width} (grey has no saturation; shifts and cuts round to pixels); take it out of "
                "augself.heads"
            )

    @hookimpl
    def augment(self, run: RunContext) -> Augment | None:
        return AugSelfLink(self.options.policy, self.options.strengths)

    @hookimpl
    def d_loss(self, step: Step) -> LossTerms:
        terms = {}
        for side, sign in SIGNS.items():
            if step.wants(f"predict_{side}"):
                errors = {
                    word: functional.predict_loss(predicted, w, sign, self.options.reduction)
                    for word, (predicted, w) in self.predictions(step, side).items()
                }
                step.log(**{f"{word}.{side}": value for word, value in errors.items()})
                terms[f"predict_{side}"] = sum_of(errors)
        return self.terms(**terms)

    @hookimpl
    def g_loss(self, step: Step) -> LossTerms:
        if not step.wants("fool"):
            return self.terms()
        losses = {
            word: functional.fool_loss(predicted, w, self.options.reduction)
            for word, (predicted, w) in self.predictions(step, "fake").items()
        }
        step.log(**{f"{word}.fool": value for word, value in losses.items()})
        return self.terms(fool=sum_of(losses))

    def predictions(self, step: Step, side: Side) -> dict[str, tuple[Tensor, Tensor]]:
        """Head -> its prediction and w, (B, K) each, for one side of this phase.

        Raises:
            PluginError: another link of the chain augments this side: its part of the difference is not in w.
        """
        draws = step.augmentation[side]
        others = ", ".join(f"'{name}'" for name in draws if name != self.name)
        if others:
            raise PluginError(
                f"'{self.name}' predicts what lies between D's features of {side} images before and after the "
                f"augmentation chain, and {others} is part of that chain, with parameters of its own; drop it: "
                f"'{self.name}' augments by itself ({self.name}.policy and the strengths)"
            )
        tap, draw = self.options.tap, draws[self.name]
        difference = step.d[side].taps[tap] - step.d[f"{side}_raw"].taps[tap]
        return {
            word: (predicted, self._target(draw, word, predicted.dtype))
            for word, predicted in self._heads(difference).items()
        }

    def _target(self, draw: Mapping[str, Tensor], word: str, dtype: torch.dtype) -> Tensor:
        return functional.target(draw, self._operations[word], self._reach, self._span, dtype)


def sum_of(values: Mapping[str, Tensor]) -> Tensor:
    """The sum of 0-d tensors, 0-d."""
    return torch.stack(list(values.values())).sum()
