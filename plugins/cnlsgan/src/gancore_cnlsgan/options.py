"""Options of CN-LSGAN. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancore.api import Options, option


@dataclass(frozen=True, kw_only=True)
class CnLsganOptions(Options):
    """``cnlsgan``. Its three parts can be switched off one by one."""

    adv: bool = option(
        True,
        help="Own the objective: E (D(x) - 1)^2 + E D(G(z))^2 in D, E (D(G(z)) - 1)^2 in G. False leaves the "
        "other two parts as extras beside another objective.",
    )
    lambda_gp: float = option(
        10.0, help="lambda_1, the weight of E (||grad D(x^)||_2 - 1)^2 in D; 0 leaves it out.", minimum=0
    )
    gp_eps: float = option(0.0, help="Added to the squared norm of the gradient under the root.", minimum=0)
    lambda_rec: float = option(
        0.1, help="lambda_2, the weight of E (G(z) - x)^2 in G; 0 leaves it out.", minimum=0
    )
    reduction: Literal["mean", "sum"] = option(
        "mean", help="(G(z) - x)^2 of an image: the mean over its pixels, or their sum."
    )
    rec_decay: Literal["none", "linear", "cosine"] = option(
        "none", help="How lambda_2 falls to 0: not at all, in a straight line, or along half a cosine."
    )
    rec_decay_share: float = option(
        1.0, help="The share of the run after which a decaying lambda_2 is 0.", above=0, maximum=1
    )

    def check(self) -> None:
        if self.rec_decay == "none" and self.rec_decay_share != 1.0:
            raise ValueError(
                f"rec_decay_share = {self.rec_decay_share} has no effect with rec_decay = none: set rec_decay to "
                "linear or cosine"
            )
