"""Sets that need no files: the digits of scikit-learn, and points in the plane drawn from known densities."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gancore.data.dataset import MemoryDataset
from gancore.data.labels import Classes, first_fraction
from gancore.data.options import DataOptions
from gancore.errors import ConfigError

POINT_SETS = ("gaussians", "circles", "circles:concentric")

_POINTS = 100_000
_POINT_SEED = 20_240_917
_GRID = np.array([(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])


class DigitsSource:
    """scikit-learn's 1,797 scans of handwritten digits, 8x8, 0..16 scaled to 0..255. No download."""

    name = "digits"

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self._scans = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        self._targets = bunch.target.astype(np.int64)
        self.files = [f"digit-{index:04d}" for index in range(len(self._scans))]
        self.notes: list[str] = []

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self._scans[index])

    def classes(self, conditional: bool) -> Classes:
        """The ten digits."""
        return Classes(self._targets, tuple("0123456789"))

    def close(self) -> None:
        """Nothing is held open."""


class PointDataset(MemoryDataset):
    """Points in the plane, with the density they were drawn from.

    Attributes:
        centers: float32 (M, 2), one row a mode.
        radii: float32 (M,), the radius of the circle around each centre; zero for Gaussians.
        std: standard deviation of both coordinates for Gaussians, of the radius for circles.
    """

    def __init__(
        self,
        points: np.ndarray,
        modes: np.ndarray,
        *,
        name: str,
        centers: np.ndarray,
        radii: np.ndarray,
        std: float,
        options: DataOptions,
    ) -> None:
        kept = first_fraction(modes, options.fraction)
        self.centers = centers.astype(np.float32)
        self.radii = radii.astype(np.float32)
        self.std = std
        super().__init__(
            points[kept].astype(np.float32),
            name=name,
            labels=modes[kept] if options.conditional else None,
            class_names=[f"mode {index}" for index in range(len(centers))] if options.conditional else (),
        )


def open_points(options: DataOptions) -> PointDataset:
    """``gaussians``, ``circles`` or ``circles:concentric``: 100,000 points that never change.

    gaussians: a 3x3 grid of centres {-1, 0, 1}^2, standard deviation 0.05. circles: radius 0.3 around the
    same centres, or 0.3, 0.6, 0.9 around the origin; angle uniform, radial standard deviation 0.02. The class
    is the mode.
    Raises ConfigError when mirroring is asked for.
    """
    if options.mirror:
        raise ConfigError(f"mirror flips images, but {options.source} is a set of points: leave it out")
    random = np.random.Generator(np.random.PCG64(_POINT_SEED))
    modes = np.arange(_POINTS, dtype=np.int64)
    if options.source == "gaussians":
        modes %= len(_GRID)
        centers, radii, std = _GRID, np.zeros(len(_GRID)), 0.05
        points = centers[modes] + std * random.standard_normal((_POINTS, 2))
    else:
        concentric = options.source == "circles:concentric"
        centers = np.zeros((3, 2)) if concentric else _GRID
        radii = np.array([0.3, 0.6, 0.9]) if concentric else np.full(len(_GRID), 0.3)
        modes %= len(centers)
        std = 0.02
        angle = random.uniform(0, 2 * np.pi, _POINTS)
        radius = radii[modes] + std * random.standard_normal(_POINTS)
        points = centers[modes] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return PointDataset(
        points, modes, name=options.source, centers=centers, radii=radii, std=std, options=options
    )
