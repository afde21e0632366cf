"""First stage of the pipeline: draw the parameters of every op and resolve its gates.

A batch draws all of its uniform numbers at once, then all of its normal ones (:func:`numbers`), whatever ops take
part; noise comes last. N is a standard normal, U uniform in [0, 1), q the percentile.
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

UNIFORMS: Mapping[str, int] = {
    "xflip": 2,
    "rotate90": 2,
    "xint": 3,
    "scale": 1,
    "pre_rotation": 2,
    "aniso": 1,
    "post_rotation": 2,
    "xfrac": 1,
    "brightness": 1,
    "contrast": 1,
    "lumaflip": 2,
    "hue": 2,
    "saturation": 1,
    "bands": 4,
    "sigma": 1,
    "cutout": 3,
}
"""Uniform numbers of each parameter, in their order: its values, then its gate (``bands``: four gates)."""

NORMALS: Mapping[str, int] = {
    "scale": 1,
    "aniso": 1,
    "xfrac": 2,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "bands": 4,
    "sigma": 1,
}
"""Normal numbers of each parameter, in their order."""

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


def numbers(
    batch: int, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Everything that the parameters of a batch are made of: U (B, 29) and N (B, 12), in float32.

    Columns: see :data:`UNIFORMS` and :data:`NORMALS`. They do not depend on the ops, so that a multiplier changes
    no draw of another op.
    """
    uniforms = torch.rand(
        (batch, sum(UNIFORMS.values())), generator=generator, device=device, dtype=torch.float32
    )
    normals = torch.randn((batch, sum(NORMALS.values())), generator=generator, device=device, dtype=torch.float32)
    return uniforms, normals


def noise(
    shape: tuple[int, ...], *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """N for every element of a batch, (B, C, H, W), in float32."""
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)


def wanted_ops(multipliers: Mapping[str, float]) -> set[str]:
    """The ops that take part: whose multiplier is above 0.

    Raises:
        ValueError: an unknown op, a negative multiplier.
    """
    unknown = sorted(set(multipliers) - set(OPS))
    if unknown:
        raise ValueError(f"unknown ops {', '.join(unknown)}; expected some of {', '.join(OPS)}")
    for op, multiplier in multipliers.items():
        if not multiplier >= 0:
            raise ValueError(f"multiplier of {op} = {multiplier}: expected a number >= 0")
    return {op for op, multiplier in multipliers.items() if multiplier > 0}


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
        generator: source of every draw, on ``device``; nothing is drawn when no op takes part.
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
    wanted = wanted_ops(multipliers)
    if percentile is not None and not 0 < percentile < 1:
        raise ValueError(f"percentile = {percentile}: expected a number between 0 and 1, both excluded")
    if not wanted:
        return {}
    draws = _Draws(shape[0], p, multipliers, generator, torch.device(device), percentile)
    found = {
        **_blit(wanted, draws, strengths, shape),
        **_geometry(wanted, draws, strengths, shape),
        **_color(wanted, draws, strengths, shape),
        **_rest(wanted, draws, strengths),
    }
    if "noise" in wanted:
        found["noise"] = noise(shape, generator=generator, device=device)
    return {name: value.to(dtype) for name, value in found.items()}


class _Draws:
    """Numbers of one batch by parameter, or their stand-ins at a percentile."""

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
        self.p = torch.as_tensor(p, dtype=torch.float32, device=device)
        self.multipliers = multipliers
        self.device = device
        self.q = percentile
        if percentile is None:
            uniforms, normals = numbers(batch, generator=generator, device=device)
            self.uniforms, self.normals = _by_name(uniforms, UNIFORMS), _by_name(normals, NORMALS)

    def uniform(self, name: str) -> Tensor:
        """The first U of a parameter or q, (B,)."""
        return self.uniforms[name][:, 0] if self.q is None else self.filled(self.q)

    def uniform_pair(self, name: str) -> Tensor:
        """The first two U of a parameter or q, (B, 2)."""
        return self.uniforms[name][:, :2] if self.q is None else self.filled(self.q, 2)

    def normal(self, name: str, index: int = 0) -> Tensor:
        """An N of a parameter or erfinv(2q - 1), (B,)."""
        return self.normals[name][:, index] if self.q is None else self.filled(_erfinv(2 * self.q - 1))

    def normal_pair(self, name: str) -> Tensor:
        """Two N of a parameter or erfinv(2q - 1), (B, 2)."""
        return self.normals[name] if self.q is None else self.filled(_erfinv(2 * self.q - 1), 2)

    def half_normal(self, name: str) -> Tensor:
        """|N| or erfinv(q), (B,)."""
        return self.normal(name).abs() if self.q is None else self.filled(_erfinv(self.q))

    def angle(self, name: str, largest: float) -> Tensor:
        """Uniform within ``largest`` half turns to either side, in radians, (B,)."""
        return (self.uniform(name) * 2 - 1) * (math.pi * largest)

    def probability(self, op: str) -> Tensor:
        """multiplier * p, 0-d."""
        return self.p * self.multipliers[op]

    def gate(self, name: str, value: Tensor, identity: float, probability: Tensor, index: int = -1) -> Tensor:
        """``value`` where U < probability, else ``identity``; one gate an image. At a percentile ``value``.

        Args:
            index: column of the gate among the parameter's uniform numbers.
        """
        if self.q is not None:
            return value
        chosen = (self.uniforms[name][:, index] < probability).reshape(-1, *[1] * (value.dim() - 1))
        return torch.where(chosen, value, identity)

    def filled(self, value: float, *columns: int) -> Tensor:
        """One value, (B, *columns)."""
        return torch.full((self.batch, *columns), value, device=self.device, dtype=torch.float32)


def _by_name(table: Tensor, columns: Mapping[str, int]) -> dict[str, Tensor]:
    return dict(zip(columns, torch.split(table, list(columns.values()), dim=1), strict=True))


def _erfinv(value: float) -> float:
    return float(torch.erfinv(torch.tensor(value, dtype=torch.float64, device="cpu")))


def _in_pixels(shares: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, 2) shares of width and height as pixels."""
    return torch.stack((shares[:, 0] * shape[3], shares[:, 1] * shape[2]), 1)


def _blit(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "xflip" in wanted:
        found["xflip"] = draws.gate(
            "xflip", (draws.uniform("xflip") * 2).floor(), 0.0, draws.probability("xflip")
        )
    if "rotate90" in wanted:
        turns = (draws.uniform("rotate90") * 4).floor()
        found["rotate90"] = draws.gate("rotate90", turns, 0.0, draws.probability("rotate90"))
    if "xint" in wanted:
        shares = draws.gate("xint", (draws.uniform_pair("xint") * 2 - 1) * s.xint, 0.0, draws.probability("xint"))
        found["xint"] = _in_pixels(shares, shape).round()
    return found


def _geometry(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "scale" in wanted:
        factor = (draws.normal("scale") * s.scale).exp2()
        found["scale"] = draws.gate("scale", factor, 1.0, draws.probability("scale"))
    if "rotate" in wanted:
        # Two rotations, each with the probability that makes "at least one" as likely as any other op.
        either = 1 - (1 - draws.probability("rotate")).clamp(0, 1).sqrt()
        angle = draws.angle("pre_rotation", s.rotate)
        found["pre_rotation"] = draws.gate("pre_rotation", angle, 0.0, either)
    if "aniso" in wanted:
        factor = (draws.normal("aniso") * s.aniso).exp2()
        found["aniso"] = draws.gate("aniso", factor, 1.0, draws.probability("aniso"))
    if "rotate" in wanted:
        angle = draws.gate("post_rotation", draws.angle("post_rotation", s.rotate), 0.0, either)
        found["post_rotation"] = angle if draws.q is None else torch.zeros_like(angle)
    if "xfrac" in wanted:
        shares = draws.gate("xfrac", draws.normal_pair("xfrac") * s.xfrac, 0.0, draws.probability("xfrac"))
        found["xfrac"] = _in_pixels(shares, shape)
    return found


def _color(wanted: set[str], draws: _Draws, s: Strengths, shape: tuple[int, ...]) -> dict[str, Tensor]:
    found = {}
    if "brightness" in wanted:
        added = draws.normal("brightness") * s.brightness
        found["brightness"] = draws.gate("brightness", added, 0.0, draws.probability("brightness"))
    if "contrast" in wanted:
        factor = (draws.normal("contrast") * s.contrast).exp2()
        found["contrast"] = draws.gate("contrast", factor, 1.0, draws.probability("contrast"))
    if "lumaflip" in wanted:
        flipped = (draws.uniform("lumaflip") * 2).floor()
        found["lumaflip"] = draws.gate("lumaflip", flipped, 0.0, draws.probability("lumaflip"))
    if shape[1] == 1:
        return found  # hue and saturation leave grey as it is
    if "hue" in wanted:
        found["hue"] = draws.gate("hue", draws.angle("hue", s.hue), 0.0, draws.probability("hue"))
    if "saturation" in wanted:
        factor = (draws.normal("saturation") * s.saturation).exp2()
        found["saturation"] = draws.gate("saturation", factor, 1.0, draws.probability("saturation"))
    return found


def _rest(wanted: set[str], draws: _Draws, s: Strengths) -> dict[str, Tensor]:
    found = {}
    if "imgfilter" in wanted:
        found["bands"] = _band_gains(draws, s)
    if "noise" in wanted:
        level = draws.half_normal("sigma") * s.noise
        found["sigma"] = draws.gate("sigma", level, 0.0, draws.probability("noise"))
    if "cutout" in wanted:
        size = draws.gate("cutout", draws.filled(s.cutout, 2), 0.0, draws.probability("cutout"))
        found["cutout"] = torch.cat((draws.uniform_pair("cutout"), size), 1)
    return found


def _band_gains(draws: _Draws, s: Strengths) -> Tensor:
    """(B, 4): each band amplified in turn, the whole scaled back to the expected power after each."""
    gains = draws.filled(1.0, len(BAND_POWER))
    for band, strength in enumerate(s.bands):
        gain = (draws.normal("bands", band) * s.imgfilter).exp2()
        gain = draws.gate("bands", gain, 1.0, draws.probability("imgfilter") * strength, band)
        if draws.q is not None and strength == 0:
            gain = torch.ones_like(gain)
        columns = [gain if index == band else torch.ones_like(gain) for index in range(len(BAND_POWER))]
        power = sum(
            (share * column.square() for share, column in zip(BAND_POWER, columns, strict=True)),
            torch.zeros_like(gain),
        )
        gains = gains * (torch.stack(columns, 1) / power.sqrt()[:, None])
    return gains
