"""The augmentation chain: links in the order of ``-p``, each a draw and a pure application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from gancore.step import Step

Draw = Mapping[str, Tensor]


@runtime_checkable
class Augment(Protocol):
    """One link. A ``torch.nn.Module`` or any object with these members.

    ``sides`` names the base sides it applies to; most links apply to both.
    """

    sides: tuple[str, ...]

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> Draw:
        """All random parameters for images of ``shape`` (B, C, H, W): (B, …) each, of fixed shapes, eager."""
        ...

    def transform(self, images: Tensor, draw: Draw) -> Tensor:
        """Images to images of the same shape, differentiably, as often as a penalty needs.

        No randomness, nothing in place: everything drawn is in ``draw``.
        """
        ...


class AugmentChain:
    """The links of a run, by method name, in order."""

    def __init__(self, links: Sequence[tuple[str, Augment]]) -> None:
        self.links = tuple(links)

    @property
    def sides(self) -> frozenset[str]:
        """The base sides on which some link applies."""
        return frozenset(side for _, link in self.links for side in link.sides)

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> dict[str, Draw]:
        """Each link's draw for a side, by method name."""
        draws: dict[str, Draw] = {}
        for name, link in self.links:
            if side in link.sides:
                with step.calling(name, "augmentation draw"):
                    draws[name] = link.draw(step, side, shape)
        return draws
