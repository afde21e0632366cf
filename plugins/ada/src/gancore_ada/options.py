"""Options of ADA and its pipes. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gancore.api import Options, option

GROUPS: Mapping[str, tuple[str, ...]] = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
"""The ops of each group, in the order of the pipeline (``rotate`` acts before and after ``aniso``)."""

OPS = tuple(op for ops in GROUPS.values() for op in ops)

LEAKS_ABOVE = 0.8
"""Above this strength the authors saw augmentations leak into generated images."""


def _pipe(*groups: str) -> dict[str, float]:
    return {op: float(group in groups) for group, ops in GROUPS.items() for op in ops}


def _multiplier(default: float, what: str) -> Any:
    return option(default, help=f"Multiplier of p for {what}; 0 leaves it out.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class AdaOptions(Options):
    """``ada``. A preset is a pipe: which ops take part."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{group: _pipe(group) for group in GROUPS},
        "bg": _pipe("blit", "geom"),
        "bgc": _pipe("blit", "geom", "color"),
        "bgcf": _pipe("blit", "geom", "color", "filter"),
        "bgcfn": _pipe("blit", "geom", "color", "filter", "noise"),
        "bgcfnc": _pipe("blit", "geom", "color", "filter", "noise", "cutout"),
    }

    preset: Literal[
        "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
    ] = option("bgc", help="The pipe: its ops have multiplier 1, all others 0.")
    p: float = option(0.0, help="Strength at the start; with target = 0, throughout.", minimum=0)
    target: float = option(
        0.6, help="Mean sign of the margin of reals to hold by moving p; 0 keeps p fixed.", minimum=0, below=1
    )
    interval: int = option(4, help="Updates of D between two moves of p.", minimum=1)
    kimg: float = option(500.0, help="Thousand reals shown to D in which p can go from 0 to 1.", above=0)
    p_max: float = option(1.0, help="Upper bound of p.", above=0, maximum=1)
    unbounded: bool = option(False, help="No upper bound of p, as in the released code.")
    blit: Literal["wavelet", "exact"] = option(
        "wavelet",
        help="'wavelet': flips, quarter turns and whole shifts are resampled with the rest, as in the released "
        "code; 'exact': they move pixels, and the rest is resampled after.",
    )
    xflip: float = _multiplier(1.0, "flipping left and right (half of the images that it picks)")
    rotate90: float = _multiplier(1.0, "quarter turns")
    xint: float = _multiplier(1.0, "shifts by whole pixels, up to 1/8 of the side")
    scale: float = _multiplier(1.0, "scaling by 2^(0.2 N)")
    rotate: float = _multiplier(1.0, "rotation by any angle, before or after aniso")
    aniso: float = _multiplier(1.0, "stretching by 2^(0.2 N) along one axis and its inverse along the other")
    xfrac: float = _multiplier(1.0, "shifts by 0.125 N of the side")
    brightness: float = _multiplier(1.0, "adding 0.2 N")
    contrast: float = _multiplier(1.0, "multiplying by 2^(0.5 N)")
    lumaflip: float = _multiplier(1.0, "mirroring colours about the grey axis (half of the images that it picks)")
    hue: float = _multiplier(1.0, "rotating colours about the grey axis by any angle")
    saturation: float = _multiplier(1.0, "scaling colours about the grey axis by 2^N")
    imgfilter: float = _multiplier(0.0, "gains of four octave bands, 2^N each")
    noise: float = _multiplier(0.0, "Gaussian noise of standard deviation 0.1 |N|")
    cutout: float = _multiplier(0.0, "a grey rectangle of half of each side")
    debug_percentile: float = option(
        0.0,
        help="For tests: every op applies to every image, with its parameter at this percentile; 0 draws.",
        minimum=0,
        below=1,
    )

    def multipliers(self) -> dict[str, float]:
        """Op -> multiplier, in the order of the pipeline."""
        return {op: getattr(self, op) for op in OPS}

    @property
    def acts(self) -> bool:
        """Whether any image can ever change: an op takes part, and p is not fixed at 0."""
        return any(self.multipliers().values()) and (self.p > 0 or self.target > 0 or self.debug_percentile > 0)

    @property
    def adapts(self) -> bool:
        """Whether p moves."""
        return self.acts and self.target > 0

    @property
    def upper(self) -> float:
        """Upper bound of p; infinity when there is none."""
        return float("inf") if self.unbounded else self.p_max

    def check(self) -> None:
        """Refuse a p outside of its bounds, and a weight that would do nothing."""
        if self.weight not in (0, 1):
            raise ValueError(
                f"weight = {self.weight:g}: an augmentation has no term to weigh; set p or the multipliers of "
                "the ops, or weight = 0 to leave it out"
            )
        if self.unbounded and self.p_max < 1:
            raise ValueError(
                f"unbounded = true takes the bound of p away, p_max = {self.p_max:g} sets one; drop one of them"
            )
        if self.p > self.upper:
            raise ValueError(
                f"p = {self.p:g} lies above p_max = {self.p_max:g}; lower p, or raise p_max (at most 1), or set "
                "unbounded = true"
            )
