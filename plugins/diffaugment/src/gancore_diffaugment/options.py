"""Options of DiffAugment and the policies that were published. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option
from gancore_diffaugment.policy import Strengths, operations


@dataclass(frozen=True, kw_only=True)
class DiffAugmentOptions(Options):
    """``diffaugment``. The presets are the policies of the paper's experiments, and Projected GAN's."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "canonical": {},
        "biggan_cifar": {"policy": "translation,cutout"},
        "biggan_cifar_cr": {"policy": "cutout"},
        "stylegan2_cifar": {"policy": "color,cutout"},
        "low_shot": {"policy": "color,translation,cutout"},
        "imagenet": {"policy": "translation"},
        "projected_gan": {"policy": "color,translation,cutout", "cutout": 0.2},
    }

    preset: Literal[
        "canonical",
        "biggan_cifar",
        "biggan_cifar_cr",
        "stylegan2_cifar",
        "low_shot",
        "imagenet",
        "projected_gan",
    ] = option("canonical", help="A published policy; the card says which experiment used it.")
    policy: str = option(
        "color,translation,cutout",
        help="Operations in the order in which they are applied, with commas: color (= "
        "brightness,saturation,contrast), translation, cutout; empty for none.",
    )
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
        """Refuse an unknown or doubled word, and a weight that would do nothing."""
        operations(self.policy)
        if self.weight not in (0, 1):
            raise ValueError(
                f"weight = {self.weight}: an augmentation has no term to weigh; set the strengths "
                "(brightness, saturation, contrast, translation, cutout), or weight = 0 to leave it out"
            )

    @property
    def strengths(self) -> Strengths:
        """The five strengths."""
        return Strengths(self.brightness, self.saturation, self.contrast, self.translation, self.cutout)

    @property
    def idle(self) -> bool:
        """Whether no image of any shape is changed."""
        return all(getattr(self, name) == 0 for name in operations(self.policy))
