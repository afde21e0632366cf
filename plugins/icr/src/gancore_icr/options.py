"""Options of ICR and of CR. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option


@dataclass(frozen=True, kw_only=True)
class ConsistencyOptions(Options):
    """What ``icr`` and ``cr`` share: T, and what of D is compared on which images."""

    transform: Literal["flip,translation", "flip", "translation"] = option(
        "flip,translation",
        help="T: 'flip', each image left to right with probability 1/2; 'translation', by whole pixels; or "
        "'flip,translation', both.",
    )
    max_shift: float = option(
        0.125,
        help="Largest shift of T as a share of height and width, in whole pixels, rounded down.",
        minimum=0,
        maximum=1,
    )
    on: Literal["augmented", "clean"] = option(
        "augmented",
        help="Compare D on images as the objective sees them, both sides with the same augmentation, or on "
        "clean images.",
    )
    output: str = option("logits", help="What of D is compared: 'logits', or a tap such as 'pooled'.")
    reduction: Literal["mean", "sum"] = option(
        "mean",
        help="||.||^2 of a sample: the mean over its features (of zCR in G: its pixels), or their sum. Logits "
        "are single numbers.",
    )

    @property
    def translates(self) -> bool:
        """Whether T shifts images."""
        return self.transform != "flip" and self.max_shift > 0

    @property
    def flips(self) -> bool:
        """Whether T mirrors images."""
        return self.transform != "translation"

    @property
    def balances(self) -> bool:
        """Whether images are compared with T of them."""
        raise NotImplementedError

    def check(self) -> None:
        if self.balances and self.transform == "translation" and self.max_shift == 0:
            raise ValueError(
                "transform = translation with max_shift = 0 changes nothing: set max_shift above 0, or "
                "transform = flip"
            )


@dataclass(frozen=True, kw_only=True)
class IcrOptions(ConsistencyOptions):
    """``icr``: balanced consistency (bCR) and latent consistency (zCR)."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "dcgan": {"sigma": 0.03, "lambda_dis": 5.0, "lambda_gen": 0.5},
        "biggan": {"sigma": 0.05, "lambda_dis": 20.0, "lambda_gen": 0.5},
    }

    preset: Literal["dcgan", "biggan"] = option(
        "dcgan", help="Strength of zCR for networks like DCGAN, or like BigGAN."
    )
    lambda_real: float = option(10.0, help="Weight of bCR on reals: E ||D(x) - D(T(x))||^2.", minimum=0)
    lambda_fake: float = option(
        10.0, help="Weight of bCR on fakes: E ||D(G(z)) - D(T(G(z)))||^2, in D's loss.", minimum=0
    )
    lambda_dis: float = option(5.0, help="Weight of zCR in D's loss: E ||D(G(z)) - D(G(z'))||^2.", minimum=0)
    lambda_gen: float = option(0.5, help="Weight of zCR in G's loss: -E ||G(z) - G(z')||^2.", minimum=0)
    sigma: float = option(0.03, help="z' = z + N(0, sigma^2).", above=0)
    gen_bound: float = option(
        0.0,
        help="The most that ||G(z) - G(z')||^2 of a sample counts in G's loss, on the scale of 'reduction'; 0 "
        "for no bound.",
        minimum=0,
    )

    @property
    def balances(self) -> bool:
        """Whether images are compared with T of them."""
        return bool(self.lambda_real or self.lambda_fake)


@dataclass(frozen=True, kw_only=True)
class CrOptions(ConsistencyOptions):
    """``cr``: consistency on reals alone."""

    lambda_real: float = option(10.0, help="Weight of E ||D(x) - D(T(x))||^2 on reals.", minimum=0)

    @property
    def balances(self) -> bool:
        """Whether images are compared with T of them."""
        return bool(self.lambda_real)
