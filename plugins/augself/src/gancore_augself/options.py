"""Options of AugSelf-GAN and the settings that were published. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option
from gancore_diffaugment.policy import WORDS, Strengths, operations, words

ALL = "all"
"""Value of ``heads`` that stands for every word of the policy."""


@dataclass(frozen=True, kw_only=True)
class AugSelfOptions(Options):
    """``augself``. The presets are the settings of the authors' experiments."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "biggan": {},
        "plus": {"translation": 0.25, "cutout": 0.75},
        "stylegan2": {"lambda_g": 0.2, "head": "equalised"},
        "low_shot": {"heads": "color", "head": "equalised"},
        "low_shot_cats": {"heads": "color", "head": "equalised", "lambda_d": 0.1, "lambda_g": 0.1},
    }

    preset: Literal["biggan", "plus", "stylegan2", "low_shot", "low_shot_cats"] = option(
        "biggan", help="A published setting; 'plus' is AugSelf-GAN+, with stronger augmentation."
    )
    lambda_d: float = option(1.0, help="Factor on D's terms, predict_real and predict_fake.", minimum=0)
    lambda_g: float = option(1.0, help="Factor on G's term, fool.", minimum=0)
    policy: str = option(
        "color,translation,cutout",
        help="What augments, in order, with commas: color (= brightness,saturation,contrast), translation, "
        "cutout.",
    )
    heads: str = option(
        ALL,
        help="What is predicted, one head a word, with commas; words of the policy or parts of its color; 'all' "
        "for every word of the policy.",
    )
    reduction: Literal["mean", "sum_dims"] = option(
        "mean", help="Squared error of a head: mean over its parameters, or their sum (the squared norm)."
    )
    head: Literal["spectral", "linear", "equalised"] = option(
        "spectral",
        help="Linear heads with bias: spectrally normalised, as they are, or with equalised learning rate.",
    )
    tap: str = option("pooled", help="The tap of D whose difference the heads read.")
    brightness: float = option(
        1.0, help="Width of the range of the value that is added; 1: [-0.5, 0.5).", minimum=0
    )
    saturation: float = option(
        1.0, help="Half the width of the range of the factor on the distance from grey; 1: [0, 2).", minimum=0
    )
    contrast: float = option(
        1.0, help="Width of the range of the factor on the distance from the mean; 1: [0.5, 1.5).", minimum=0
    )
    translation: float = option(
        0.125, help="Largest shift, as a share of the side, rounded to pixels.", minimum=0, maximum=1
    )
    cutout: float = option(
        0.5, help="Side of the erased rectangle, as a share of the side, rounded to pixels.", minimum=0, maximum=1
    )

    def check(self) -> None:
        """Refuse heads without their operation, a game that only one network plays, unknown words."""
        applied = operations(self.policy)
        if not applied:
            raise ValueError(
                "policy is empty, so there is nothing to predict; name an operation or drop -p augself"
            )
        if not self.head_words:
            raise ValueError("heads is empty; name a word of the policy, or use -p diffaugment to augment only")
        for word in self.head_words:
            missing = [name for name in WORDS[word] if name not in applied]
            if missing:
                raise ValueError(
                    f"heads names '{word}', but the policy '{self.policy}' applies no "
                    f"{' and no '.join(missing)}; add it to policy, or take '{word}' out of heads "
                    "(heads = all: whatever the policy applies)"
                )
        if self.lambda_d == 0 and self.lambda_g > 0:
            raise ValueError(
                f"lambda_d = 0 with lambda_g = {self.lambda_g}: only D trains the heads, so G would play against "
                "untrained ones; set lambda_g = 0 too, or lambda_d above 0"
            )

    @property
    def augments_only(self) -> bool:
        """Whether no term is left: D and G play no game, and DiffAugment is all that happens."""
        return self.lambda_d == 0  # then lambda_g is 0 too

    @property
    def head_words(self) -> tuple[str, ...]:
        """The heads, by policy word."""
        return words(self.policy) if self.heads.strip() == ALL else words(self.heads, where="heads")

    @property
    def strengths(self) -> Strengths:
        """The five strengths."""
        return Strengths(self.brightness, self.saturation, self.contrast, self.translation, self.cutout)

    @property
    def invisible(self) -> tuple[str, ...]:
        """Predicted operations of strength 0."""
        return tuple(name for word in self.head_words for name in WORDS[word] if getattr(self, name) == 0)
