"""Scores of points in the plane whose density is known: modes covered, share of high quality, reverse KL.

Srivastava, Valkov, Russell, Gutmann and Sutton, "VEEGAN: Reducing Mode Collapse in GANs using Implicit
Variational Learning", 2017, arXiv:1705.07761, and Lin, Khetan, Fanti and Oh, "PacGAN: The power of
two samples in generative adversarial networks", 2018, arXiv:1712.04086: a point belongs to the
nearest mode and is of high quality within three standard deviations of it;

    reverse KL = sum_modes p_g log(p_g / p_data),    p the share of points that belong to the mode

These are defined for Gaussians, whose mode is a centre. Here a mode is a circle of some radius around a centre,
and the distance of a point from it is | ||x - centre|| - radius |: radius 0 is the Gaussian, and for rings it is
the distance from the ring, whose width has the standard deviation. So the share of high quality is
1 - exp(-9 / 2) = 0.9889 for points drawn from the Gaussians themselves, and 0.9973 for points of the rings.

Deviation: a mode is covered when at least 1 % of all points are points of high quality that belong to it. For the
authors one is enough, and a trail of points between two modes then covers whatever it passes.

Rings have two scores of their own: the mean distance from the nearest ring, and the share of 36 arcs of each ring
that hold a point of high quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gancore.api import ConfigError, DataError

WITHIN = 3.0
"""Standard deviations from the mode up to which a point is of high quality."""

COVERED = 0.01
"""Share of all points that must lie at a mode, with high quality, for it to be covered."""

ARCS = 36
"""Parts of a ring, of ten degrees each."""

_ROWS = 65_536


@dataclass(frozen=True)
class Modes:
    """Where the density has its modes.

    Attributes:
        centers: (M, 2). radii: (M,), of the circle around each centre; 0 for a Gaussian.
        std: standard deviation, of both coordinates for a Gaussian, of the radius for a ring.
    """

    centers: Tensor
    radii: Tensor
    std: float

    def __post_init__(self) -> None:
        count = len(self.centers)
        if self.centers.shape != (count, 2) or self.radii.shape != (count,) or not count or not self.std > 0:
            raise ValueError(
                f"modes: centres {tuple(self.centers.shape)}, radii {tuple(self.radii.shape)}, std {self.std}; "
                "expected (M, 2), (M,) and a number above 0"
            )


@dataclass(frozen=True)
class ModeScores:
    """Scores of a set of points.

    Attributes:
        covered: number of modes with a point of high quality, of ``modes``.
        high_quality: share of the points within three standard deviations of the nearest mode.
        reverse_kl: KL(generated || data) over modes, in nats, at least 0; at most log M for equal modes. None
            without data.
        counts: (M,) int64, points that belong to each mode.
        radial_error: mean distance from the nearest ring, in units of the plane; None unless all modes are rings.
        angular_coverage: share of the 36 M arcs with a point of high quality; None likewise.
    """

    covered: int
    modes: int
    high_quality: float
    reverse_kl: float | None
    counts: Tensor
    radial_error: float | None = None
    angular_coverage: float | None = None


def modes_of(dataset: object) -> Modes:
    """The modes of a built-in set of points. Raises ConfigError for any other set, which does not say them."""
    centers, radii, std = (getattr(dataset, name, None) for name in ("centers", "radii", "std"))
    if centers is None or radii is None or std is None:
        raise ConfigError(
            f"{getattr(dataset, 'name', dataset)}: modes_covered, high_quality and reverse_kl need the modes of "
            "the density, and this set does not say them; expected gaussians, circles or circles:concentric"
        )
    return Modes(torch.as_tensor(centers).double(), torch.as_tensor(radii).double(), float(std))


def modes_without(data: Tensor, modes: Modes) -> list[int]:
    """The modes that no point of the data (K, 2) belongs to: a reverse KL against it may be infinite."""
    counts = torch.bincount(assign(data, modes, "of the data")[0], minlength=len(modes.centers))
    return (counts == 0).nonzero().flatten().tolist()


def mode_scores(
    generated: Tensor, data: Tensor | None, modes: Modes, *, least_share: float = COVERED
) -> ModeScores:
    """Scores of points (N, 2) against the data (K, 2), which gives each mode its share; None leaves it out.

    Args:
        least_share: of all points, that a mode needs to be covered; 0 for a single one.

    Raises:
        ValueError: other shapes.
        DataError: no points, points that are not finite, a mode with generated points and none of the data: the
            divergence is infinite then.
    """
    nearest, distances = assign(generated, modes, "generated")
    high = distances <= WITHIN * modes.std
    count = len(modes.centers)
    counts = torch.bincount(nearest, minlength=count)
    divergence = None if data is None else _divergence(counts, data, modes)
    there = torch.bincount(nearest[high], minlength=count)
    covered = int(((there > 0) & (there >= least_share * len(generated))).sum())
    quality = float(high.double().mean())
    if not (modes.radii > 0).all():
        return ModeScores(covered, count, quality, divergence, counts)
    arcs = _arcs(generated[high], nearest[high], modes)
    return ModeScores(covered, count, quality, divergence, counts, float(distances.mean()), arcs)


def _arcs(points: Tensor, modes_of_points: Tensor, modes: Modes) -> float:
    """The share of arcs that hold one of these points (K, 2), which belong to these modes (K,)."""
    x, y = (points.double() - modes.centers[modes_of_points]).unbind(1)
    turns = torch.atan2(y, x) / (2 * math.pi) % 1
    arcs = (turns * ARCS).long().clamp(max=ARCS - 1)  # a turn of just below 1 may round to 1
    held = torch.bincount(modes_of_points * ARCS + arcs, minlength=ARCS * len(modes.centers))
    return float((held > 0).double().mean())


def _divergence(counts: Tensor, data: Tensor, modes: Modes) -> float:
    of_data = torch.bincount(assign(data, modes, "of the data")[0], minlength=len(counts))
    without = ((counts > 0) & (of_data == 0)).nonzero().flatten().tolist()
    if without:
        raise DataError(
            f"mode {without[0]}: {int(counts[without[0]])} generated points and none of {len(data)} points of "
            "the data: reverse_kl is infinite; expected data at every mode. Use more of it"
        )
    share, expected = counts.double() / counts.sum(), of_data.double() / len(data)
    there = counts > 0
    divergence = (share[there] * (share[there] / expected[there]).log()).sum()
    return max(float(divergence), 0.0)


def assign(points: Tensor, modes: Modes, what: str) -> tuple[Tensor, Tensor]:
    """The nearest mode of each point, int64 (N,), and the distance from it, float64 (N,). Errors as above."""
    if points.dim() != 2 or points.shape[1] != 2 or not points.is_floating_point():
        raise ValueError(f"points {what} are {tuple(points.shape)} {points.dtype}; expected (N, 2), floating")
    finite = torch.isfinite(points).all(1)
    if not len(points) or not finite.all():
        raise DataError(
            f"points {what}: {int((~finite).sum())} of {len(points)} are NaN or infinite; expected one finite "
            "point or more"
        )
    found = []
    for start in range(0, len(points), _ROWS):
        part = points[start : start + _ROWS].double()
        apart = torch.linalg.vector_norm(part[:, None] - modes.centers, dim=2)
        found.append((apart - modes.radii).abs().min(1))
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])
