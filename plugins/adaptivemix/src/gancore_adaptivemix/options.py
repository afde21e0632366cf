"""Options of AdaptiveMix and its two presets. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option


@dataclass(frozen=True, kw_only=True)
class AdaptiveMixOptions(Options):
    """``adaptivemix``. Every disagreement between the paper and the released code is an option."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "official": {
            "distance": "cosine",
            "noise_on": "target",
            "detach_target": True,
            "apply_in_g": True,
            "adv_on": "mixed_sum",
        },
    }

    preset: Literal["paper", "official"] = option(
        "paper",
        help="'paper': the loss as presented, on clean adversarial scores; 'official': what the released "
        "code computes.",
    )
    distance: Literal["l1", "l2", "mse", "cosine"] = option(
        "l1", help="Distance between features: mean |d|, ||d||_2, mean d^2, or the negative cosine."
    )
    noise: float = option(0.05, help="Standard deviation sigma of the Gaussian noise.", minimum=0)
    noise_on: Literal["mixed", "target"] = option(
        "mixed", help="Add the noise to the features of the mixed sample, or to the mixed features."
    )
    detach_target: bool = option(False, help="Stop the gradient through the mixed features.")
    apply_in_g: bool = option(False, help="G minimises the loss on fakes too.")
    adv_on: Literal["clean", "mixed_sum", "mixed_mean"] = option(
        "clean",
        help="What the objective judges: clean logits, or the sum or mean of the logits of the mixed "
        "features and of the mixed sample.",
    )
    alpha: float = option(1.0, help="Both parameters of the Beta distribution of lambda.", above=0)
    per_sample_lambda: bool = option(False, help="Draw one lambda a sample instead of one a batch.")
    derange: bool = option(False, help="Never mix a sample with itself.")
    reduction: Literal["mean", "sum"] = option(
        "mean", help="'mean' over batch (and, for l1 and mse, elements), or 'sum' over both."
    )
    tap: str = option("trunk", help="The tap of D where features are shrunk.")
