"""Policies and strengths of DiffAugment: plain data, no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

COLOR = ("brightness", "saturation", "contrast")
"""The operations that the word ``color`` stands for, in their order."""

WORDS = {"color": COLOR, **{name: (name,) for name in (*COLOR, "translation", "cutout")}}
"""Policy word -> the operations that it stands for."""

Policy = str | Sequence[str]
"""Policy words, in order: ``"color,cutout"`` or ``["color", "cutout"]``."""


@dataclass(frozen=True)
class Strengths:
    """How strong each operation is; 0 turns it into the identity.

    Args:
        brightness: width of the range of the shift; 1 adds a value in [-0.5, 0.5).
        saturation: 1 multiplies the distance from grey by a value in [0, 2), 0.5 by one in [0.5, 1.5).
        contrast: width of the range of the factor; 1 gives a factor in [0.5, 1.5).
        translation: largest shift, as a share of the side, in [0, 1].
        cutout: side of the erased rectangle, as a share of the side, in [0, 1].

    Raises:
        ValueError: a negative or non-finite strength, or a share above 1.
    """

    brightness: float = 1.0
    saturation: float = 1.0
    contrast: float = 1.0
    translation: float = 1 / 8
    cutout: float = 1 / 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = math.inf if field.name in COLOR else 1
            if not (math.isfinite(value) and 0 <= value <= most):
                bound = "a finite value >= 0" if field.name in COLOR else "a share of the side in [0, 1]"
                raise ValueError(f"strength of {field.name} = {value}: expected {bound}")

    def reach(self, size: int) -> int:
        """S, the largest shift in pixels along a side of ``size`` pixels."""
        return int(size * self.translation + 0.5)

    def cut(self, size: int) -> int:
        """How many pixels cutout erases along a side of ``size`` pixels."""
        return int(size * self.cutout + 0.5)


def words(policy: Policy, where: str = "policy") -> tuple[str, ...]:
    """The words of a policy, checked, in their order; ``where`` is what messages call it.

    Raises:
        ValueError: an unknown word (the nearest is offered), or an operation that is named twice.
    """
    given = (policy.split(",") if policy.strip() else []) if isinstance(policy, str) else policy
    chosen = tuple(word.strip() for word in given)
    known = ", ".join(WORDS)
    owners: dict[str, str] = {}
    for word in chosen:
        if word not in WORDS:
            near = difflib.get_close_matches(word.lower(), WORDS, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown word '{word}' in {where}{hint}; words: {known}")
        for name in WORDS[word]:
            if name in owners:
                twice = "twice" if owners[name] == word else f"by '{owners[name]}' and by '{word}'"
                raise ValueError(f"{where} names {name} {twice}; each operation can be named once")
            owners[name] = word
    return chosen


def operations(policy: Policy) -> tuple[str, ...]:
    """The operations of a policy, in order: ``color`` is brightness, saturation, contrast.

    Raises:
        ValueError: as :func:`words`.
    """
    return tuple(name for word in words(policy) for name in WORDS[word])


def effective(policy: Policy, strengths: Strengths, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """The operations of a policy that can change an image of ``shape`` (C, H, W).

    Left out are strengths of 0, a reach or a cut that rounds to 0 pixels, and the saturation of grey images.
    """
    channels, *sides = shape
    idle = {name for name in COLOR if getattr(strengths, name) == 0}
    if channels == 1:
        idle.add("saturation")
    if not any(strengths.reach(size) for size in sides):
        idle.add("translation")
    if not all(strengths.cut(size) for size in sides):
        idle.add("cutout")
    return tuple(name for name in operations(policy) if name not in idle)
