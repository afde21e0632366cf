"""First stage of the pipeline: draw the parameters of every op and resolve its gates.

The draws come in the order of the pipeline, for each op its value first and its gate second (cutout: its gate
first). An op whose multiplier is 0 draws nothing. N is a standard normal, U uniform in [0, 1), q the percentile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = (*BLIT, "scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
OPS = (*GEOMETRY, *COLOR, "imgfilter", "noise", "cutout")

BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected share of each octave band in the power of an image, lowest first: a spectrum of 1/f."""


@dataclass(frozen=True)
class Strengths:
    """How far each op goes; the defaults are the paper's.

    ``xint`` is the largest shift as a share of the side, ``rotate`` and ``hue`` the largest angle as a share of a
    half turn, ``cutout`` the size as a share of the side, ``bands`` factors on the gates of the octave bands, all
    others are standard deviations.
    """

    xint: float = 0.125
    scale: float = 0.2
    rotate: float = 1.0
    aniso: float = 0.2
    xfrac: float = 0.125
    brightness: float = 0.2
    contrast: float = 0.5
    hue: float = 1.0
    saturation: float = 1.0
    bands: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    imgfilter: float = 1.0
    noise: float = 0.1
    cutout: float = 0.5


PAPER = Strengths()


def sample(
    shape: tuple[int, ...],
    p: Tensor | float,
    multipliers: Mapping[str, float],
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    strengths: Strengths = PAPER,
    percentile: float | None = None,
) -> dict[str, Tensor]:
    """Parameters for a batch. Where an op passes an image by, its parameter is that of the identity.

    Args:
        shape: (B, C, H, W).
        p: strength >= 0, 0-d; an op applies to an image with probability ``multiplier * p``.
        multipliers: by name of the op, see :data:`OPS`; what is missing counts as 0.
        generator: source of every draw, on ``device``.
        dtype: of the result. Draws are made in float32.
        percentile: q in (0, 1): every op applies, and its parameter is that at q. Uniform draws become q, normal
            ones erfinv(2q - 1), the level of the noise erfinv(q); the rotation after ``aniso`` is 0.

    Returns:
        For each op with a multiplier above 0 (hue and saturation: and C > 1), (B,) unless said otherwise:
        ``xflip`` 0 or 1; ``rotate90`` 0 … 3 quarter turns; ``xint`` (B, 2), pixels to the right and down;
        ``scale``; ``pre_rotation`` and ``post_rotation`` in radians; ``aniso``; ``xfrac`` (B, 2), pixels;
        ``brightness``; ``contrast``; ``lumaflip`` 0 or 1; ``hue`` in radians; ``saturation``; ``bands`` (B, 4),
        the gain of each octave band; ``sigma`` and ``noise`` (B, C, H, W), not yet scaled by it; ``cutout`` (B,
        4): centre (x, y) and size (x, y) as shares of the sides.

    Raises:
        ValueError: an unknown op, a negative multiplier, a percentile out of range.

    Reference: arXiv:2006.06676, appendix B.
    Deviation: at a percentile, a normal parameter is erfinv(2q - 1) times its standard deviation, without the
    factor sqrt(2) of a true quantile, as in the released code.
    """
    _check(multipliers, percentile)
    wanted = {op for op, multiplier in multipliers.items() if multiplier > 0}
    draws = _Draws(shape[0], p, multipliers, generator, torch.device(device), percentile)
    found = {
        **_blit(wanted, draws, strengths, shape),
        **_geometry(wanted, draws, strengths, shape),
        **_color(wanted, draws, strengths, shape),
        **_rest(wanted, draws, strengths, shape),
    }
    return {name: value.to(dtype) for name, value in found.items()}


def _check(multipliers: Mapping[str, float], percentile: float | None) -> None:
    unknown = sorted(set(multipliers) - set(OPS))
    if unknown:
        raise ValueError(f"unknown ops {', '.join(unknown)}; expected some of {', '.join(OPS)}")
    for op, multiplier in multipliers.items():
        if not multiplier >= 0:
            raise ValueError(f"multiplier of {op} = {multiplier}: expected a number >= 0")
    if percentile is not None and not 0 < percentile < 1:
        raise ValueError(f"percentile = {percentile}: expected a number between 0 and 1, both excluded")


class _Draws:
    """Draws of one batch, or their stand-ins at a percentile."""

    def __init__(
        self,
        batch: int,
        p: Tensor | float,
        multipliers: Mapping[str, float],
        generator: torch.Generator | None,
        device: torch.device,
        percentile: float | None,
    ) -> None:
        self.batch = batch
        self.p = torch.as_tensor(p)
        self.multipliers = multipliers
        self.generator = generator
        self.device = device
        self.q = percentile

    def random(self, *shape: int) -> Tensor:
        """U, at every percentile."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float32)

    def gaussian(self, *shape: int) -> Tensor:
        """N, at every percentile."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)

    def uniform(self, *columns: int) -> Tensor:
        """U or q, (B, *columns)."""
        return self.random(self.batch, *columns) if self.q is None else self._filled(self.q, *columns)

    def normal(self, *columns: int) -> Tensor:
        """N or erfinv(2q - 1), (B, *columns)."""
        if self.q is None:
            return self.gaussian(self.batch, *columns)
        return self._filled(_erfinv(2 * self.q - 1), *columns)

    def half_normal(self) -> Tensor:
        """|N| or erfinv(q), (B,)."""
        return self.gaussian(self.batch).abs() if self.q is None else self._filled(_erfinv(self.q))

    def angle(self, largest: float) -> Tensor:
        """Uniform within ``largest`` half turns to either side, in radians, (B,)."""
        return (self.uniform() * 2 - 1) * (math.pi * largest)

    def probability(self, op: str) -> Tensor:
        """multiplier * p, 0-d."""
        return self.p * self.multipliers[op]

    def gate(self, value: Tensor, identity: float, probability: Tensor) -> Tensor:
        """``value`` where U < probability, else ``identity``; one gate an image. At a percentile ``value``."""
        if self.q is not None:
            return value
        chosen = self.random(self.batch, *[1] * (value.dim() - 1)) < probability
        return torch.where(chosen, value, identity)

    def _filled(self, value: float, *columns: int) -> Tensor:
        return torch.full((self.batch, *columns), value, device=self.device, dtype=torch.float32)


def _erfinv(value: float) -> float:
    return float(torch.erfinv(torch.tensor(value, dtype=torch.float64, device="cpu")))


def _in_pixels(shares: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, 2) shares of width and height as pixels."""
    return torch.stack((shares[:, 0] * shape[3], shares[:, 1] * shape[2]), 1)


def _blit(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "xflip" in wanted:
        found["xflip"] = draws.gate((draws.uniform() * 2).floor(), 0.0, draws.probability("xflip"))
    if "rotate90" in wanted:
        found["rotate90"] = draws.gate((draws.uniform() * 4).floor(), 0.0, draws.probability("rotate90"))
    if "xint" in wanted:
        shares = (draws.uniform(2) * 2 - 1) * s.xint
        found["xint"] = _in_pixels(draws.gate(shares, 0.0, draws.probability("xint")), shape).round()
    return found


def _geometry(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "scale" in wanted:
        found["scale"] = draws.gate((draws.normal() * s.scale).exp2(), 1.0, draws.probability("scale"))
    if "rotate" in wanted:
        # Two rotations, each with the probability that makes "at least one" as likely as any other op.
        either = 1 - (1 - draws.probability("rotate")).clamp(0, 1).sqrt()
        found["pre_rotation"] = draws.gate(draws.angle(s.rotate), 0.0, either)
    if "aniso" in wanted:
        found["aniso"] = draws.gate((draws.normal() * s.aniso).exp2(), 1.0, draws.probability("aniso"))
    if "rotate" in wanted:
        angle = draws.gate(draws.angle(s.rotate), 0.0, either)
        found["post_rotation"] = angle if draws.q is None else torch.zeros_like(angle)
    if "xfrac" in wanted:
        shares = draws.gate(draws.normal(2) * s.xfrac, 0.0, draws.probability("xfrac"))
        found["xfrac"] = _in_pixels(shares, shape)
    return found


def _color(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "brightness" in wanted:
        found["brightness"] = draws.gate(draws.normal() * s.brightness, 0.0, draws.probability("brightness"))
    if "contrast" in wanted:
        factor = (draws.normal() * s.contrast).exp2()
        found["contrast"] = draws.gate(factor, 1.0, draws.probability("contrast"))
    if "lumaflip" in wanted:
        found["lumaflip"] = draws.gate((draws.uniform() * 2).floor(), 0.0, draws.probability("lumaflip"))
    if shape[1] == 1:
        return found  # hue and saturation leave grey as it is
    if "hue" in wanted:
        found["hue"] = draws.gate(draws.angle(s.hue), 0.0, draws.probability("hue"))
    if "saturation" in wanted:
        factor = (draws.normal() * s.saturation).exp2()
        found["saturation"] = draws.gate(factor, 1.0, draws.probability("saturation"))
    return found


def _rest(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "imgfilter" in wanted:
        found["bands"] = _band_gains(draws, s)
    if "noise" in wanted:
        found["sigma"] = draws.gate(draws.half_normal() * s.noise, 0.0, draws.probability("noise"))
        found["noise"] = draws.gaussian(*shape)
    if "cutout" in wanted:
        size = torch.full((draws.batch, 2), s.cutout, device=draws.device)
        size = draws.gate(size, 0.0, draws.probability("cutout"))
        found["cutout"] = torch.cat((draws.uniform(2), size), 1)
    return found


def _band_gains(draws: _Draws, s: Strengths) -> Tensor:
    """(B, 4): each band amplified in turn, the whole scaled back to the expected power after each."""
    gains = torch.ones(draws.batch, len(BAND_POWER), device=draws.device)
    for band, strength in enumerate(s.bands):
        gain = (draws.normal() * s.imgfilter).exp2()
        gain = draws.gate(gain, 1.0, draws.probability("imgfilter") * strength)
        if draws.q is not None and strength == 0:
            gain = torch.ones_like(gain)
        columns = [gain if index == band else torch.ones_like(gain) for index in range(len(BAND_POWER))]
        power = sum(
            (share * column.square() for share, column in zip(BAND_POWER, columns, strict=True)),
            torch.zeros_like(gain),
        )
        gains = gains * (torch.stack(columns, 1) / power.sqrt()[:, None])
    return gains
