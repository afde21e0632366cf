"""DiffAugment in gancore's hooks: one link of the augmentation chain, on both sides."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gancore.api import Augment, Method, RunContext, Step, hookimpl
from gancore_diffaugment import functional
from gancore_diffaugment.options import DiffAugmentOptions
from gancore_diffaugment.policy import Policy, Strengths


class DiffAugmentLink:
    """The same policy for reals and fakes, an independent draw for each image of each side.

    The draw is that of :func:`~gancore_diffaugment.functional.draw`.
    """

    sides: tuple[str, ...] = ("real", "fake")

    def __init__(self, policy: Policy, strengths: Strengths) -> None:
        self.policy = policy
        self.strengths = strengths

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> Mapping[str, Tensor]:
        count, channels, height, width = shape
        generator = step.rng(side).torch
        return functional.draw(generator, count, (channels, height, width), self.policy, self.strengths)

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        return functional.augment(images, draw, self.policy, self.strengths)


class DiffAugment(Method):
    """Every image that D judges is augmented, in the phases of D and of G; the gradient flows through.

    No term, no view: the views ``real`` and ``fake`` are augmented for all methods.
    """

    options: DiffAugmentOptions

    @hookimpl
    def augment(self, run: RunContext) -> Augment | None:
        chosen = self.options
        if chosen.idle:
            return None
        channels, height, width = run.shape
        if not functional.effective(chosen.policy, chosen.strengths, (channels, height, width)):
            run.warn(
                f"diffaugment.policy = {chosen.policy!r} changes no image of shape {channels} x {height} x "
                f"{width} (grey has no saturation; shifts and cuts round to pixels)"
            )
            return None
        return DiffAugmentLink(chosen.policy, chosen.strengths)
