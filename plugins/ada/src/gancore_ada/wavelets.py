"""Orthogonal wavelet filters and what the pipeline makes of them, as plain numbers."""

from __future__ import annotations

from functools import cache

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""Lowpass of the symlet with 2 vanishing moments."""

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Lowpass of the symlet with 6 vanishing moments, in the order of decomposition."""


def convolve(first: list[float], second: list[float]) -> list[float]:
    """The coefficients of the product of two polynomials."""
    product = [0.0] * (len(first) + len(second) - 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            product[i + j] += a * b
    return product


@cache
def octave_bands(count: int = 4) -> tuple[tuple[float, ...], ...]:
    """Zero-phase filters of ``count`` octave bands, from the lowest up; they add up to the identity.

    With H the lowpass of sym2: each octave doubles the spacing of the taps, applies H(z) H(1/z) / 2 to the
    bands so far, and adds H(-z) H(-1/z) / 2, the band above them. Four bands have 43 taps.

    Reference: arXiv:2006.06676, appendix B, "image-space filtering".
    """
    low = list(SYM2)
    high = [value * (-1) ** index for index, value in enumerate(low)]
    low_pass = [value / 2 for value in convolve(low, low[::-1])]
    high_pass = [value / 2 for value in convolve(high, high[::-1])]
    bands = [[1.0]]
    for _ in range(1, count):
        spaced = [[value for tap in band for value in (tap, 0.0)][:-1] for band in bands]
        bands = [convolve(band, low_pass) for band in spaced]
        margin = (len(bands[0]) - len(high_pass)) // 2
        bands.append([0.0] * margin + high_pass + [0.0] * margin)
    return tuple(map(tuple, bands))
