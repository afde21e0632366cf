"""Options of KDD GAN and the settings of its experiments. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option


@dataclass(frozen=True, kw_only=True)
class KddOptions(Options):
    """``kdd``. ``weight`` is gamma, the factor of the KDD loss beside another objective."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kdd": {},
        "jacd": {"lambda_jac": 1e-5},
        "da": {"anchors": 1},
        "da3": {"anchors": 3},
        "da7": {"anchors": 7},
        "joint": {"as_term": True},
        "joint_jacd_da": {"as_term": True, "lambda_jac": 1e-5, "anchors": 1},
        "joint_dagger": {"as_term": True, "weight": 0.5, "dagger": True, "reals_in_g": "cache"},
    }

    preset: Literal["kdd", "jacd", "da", "da3", "da7", "joint", "joint_jacd_da", "joint_dagger"] = option(
        "kdd", help="A setting of the paper's tables; what is given wins over it."
    )
    as_term: bool = option(
        False, help="Joint training: a term beside another objective, with weight as gamma, not the objective."
    )
    tau: float = option(1.0, help="Temperature of the kernel exp(<phi, phi'> / tau).", minimum=1e-4)
    tap: str = option("pooled", help="The tap of D that W reads.")
    feature_dim: int = option(
        0,
        help="K, the length of phi_UN = W * features; 0: the width of the tap. Set it where the tap is wide.",
        minimum=0,
    )
    spectral: Literal["as-d", "on", "off"] = option(
        "as-d", help="Spectral norm of W and V; 'as-d': when D has spectral norm anywhere."
    )
    projection: Literal["phi", "phi_un", "none"] = option(
        "phi", help="With labels, add y^T V phi to the log-ratio; of phi_UN, or not at all."
    )
    anchors: int = option(
        0, help="N: augmented copies of each image that are anchors too, in D's step.", minimum=0, maximum=64
    )
    anchors_in_g: int = option(-1, help="The same in G's step; -1: as many as in D's.", minimum=-1, maximum=64)
    policy: str = option(
        "color,translation,cutout", help="What DiffAugment does to the copies, words with commas."
    )
    detach_anchors: bool = option(False, help="No gradient through anchors, only through the points.")
    divisor: Literal["rows", "literal"] = option(
        "rows", help="A density divides by the rows in its sum, or by |S| although leave-one-out took one."
    )
    augmented: bool = option(
        False, help="Evaluate images as the augmentation chain leaves them, not the clean ones."
    )
    lambda_jac: float = option(0.0, help="Weight of the Jacobian term of D.", minimum=0)
    delta: float = option(1e-3, help="Length of the step of its finite difference.", above=0)
    dagger: bool = option(
        False, help="Reals are anchors with the features that D had for them when it last saw them."
    )
    dagger_limit: float = option(2.0, help="Refuse a memory of features above so many GiB.", above=0)
    reals_in_g: Literal["fresh", "last", "cache"] = option(
        "fresh",
        help="Real anchors of G's step: features computed now, those of D's last step (no forward of reals), "
        "or those that dagger remembers.",
    )
    gather: Literal["all", "local"] = option(
        "all", help="With several devices: anchors of all of them, or of one's own."
    )

    @property
    def copies_in_g(self) -> int:
        """How many augmented copies are anchors in G's step."""
        return self.anchors if self.anchors_in_g < 0 else self.anchors_in_g

    def check(self) -> None:
        """Refuse what cannot work together."""
        if self.reals_in_g == "cache" and not self.dagger:
            raise ValueError(
                "reals_in_g = cache reads what dagger remembers; set dagger = true, or reals_in_g = fresh"
            )
        if self.dagger and self.augmented:
            raise ValueError(
                "dagger remembers features of clean images, and augmented = true evaluates augmented ones; "
                "set one of them to false"
            )
        if (self.anchors or self.copies_in_g) and not self.policy.strip():
            raise ValueError(
                "anchors are augmented copies, and policy is empty: an exact copy of a point would stay among "
                "its own anchors; name operations, or set anchors = 0 and anchors_in_g = 0"
            )
