"""Options of the metrics. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancore.api import Options, nearest, option

AUTO = "auto"
"""Value of ``metrics`` that stands for all that the data and the backbone can give."""

IMAGE_METRICS = ("fid", "class_fid", "kid", "is", "precision", "recall", "density", "coverage")
"""Computed from features of images."""

POINT_METRICS = ("modes_covered", "high_quality", "reverse_kl", "radial_error", "angular_coverage")
"""Computed from points in the plane; the last two of rings alone."""


@dataclass(frozen=True, kw_only=True)
class FidelityOptions(Options):
    """``fidelity``."""

    metrics: str = option(
        AUTO,
        help="What is measured, with commas: fid, class_fid, kid, is, precision, recall, density, coverage for "
        "images; modes_covered, high_quality, reverse_kl for points, and of circles radial_error, "
        "angular_coverage; auto is all that data and backbone give.",
    )
    backbone: Literal["auto", "inception", "dinov2", "classifier"] = option(
        "auto",
        help="What gives the features; auto is inception where its weights are, else a classifier of the "
        "data's own classes.",
    )
    weights: str = option(
        "", help="File with the weights of inception or dinov2; empty looks into the cache folder."
    )
    download: bool = option(
        True, help="Fetch weights that are not there from their public address, for a backbone that is named."
    )
    precision: Literal["float32", "bf16"] = option(
        "float32",
        help="Of the backbone; bf16 is faster where there are units for it, and other numbers (see the card).",
    )
    samples: int = option(
        0,
        help="Generated samples; 0 is 10,000, and 2,500 for inception and dinov2, which take minutes on a CPU.",
        minimum=0,
    )
    references: int = option(
        0, help="Images of the data to compare with, at most all of them; 0 is as many as samples.", minimum=0
    )
    seed: int = option(0, help="Of the samples' latents and of random subsets.", minimum=0)
    batch: int = option(64, help="Images at once in generator and backbone.", minimum=1)
    kid_subsets: int = option(100, help="Subsets that the kernel distance is a mean over.", minimum=1)
    kid_subset_size: int = option(
        0, help="Rows of a subset; 0 is 1,000, or all of a smaller set; else at least 2.", minimum=0
    )
    splits: int = option(10, help="Parts that the Inception score is a mean over.", minimum=1)
    k_precision: int = option(3, help="Neighbours that span the manifold for precision and recall.", minimum=1)
    k_coverage: int = option(5, help="Neighbours that span the manifold for density and coverage.", minimum=1)
    mode_share: float = option(
        0.01, help="Share of the samples that a mode of a 2-D set needs to be covered.", minimum=0, maximum=1
    )
    memorisation: bool = option(
        True, help="Authenticity, samples beside their nearest training images, and D's gap on held-out data."
    )
    probe: bool = option(True, help="Accuracy of a linear classifier on D's features, where the data has labels.")
    probe_tap: str = option("pooled", help="The tap of D that the probe reads.")
    probe_images: int = option(
        2000, help="Images that the probe is trained on, and as many to test it.", minimum=10
    )
    cache: str = option(
        "", help="Folder for weights, classifiers and features; empty is a cache folder of the user."
    )

    def check(self) -> None:
        """Refuse unknown metrics, none, metrics of images and points together, and a KID subset of one row."""
        words = self.words
        if not words:
            raise ValueError("metrics is empty; name some, or auto")
        for word in words:
            known = (AUTO, *IMAGE_METRICS, *POINT_METRICS)
            if word not in known:
                raise ValueError(f"unknown metric '{word}'{nearest(word, known)}; metrics: {', '.join(known)}")
        if AUTO in words and len(words) > 1:
            raise ValueError(f"metrics = {self.metrics}: auto stands alone")
        of_images = [word for word in words if word in IMAGE_METRICS]
        of_points = [word for word in words if word in POINT_METRICS]
        if of_images and of_points:
            raise ValueError(
                f"metrics names '{of_images[0]}', which is of images, and '{of_points[0]}', which is of points"
            )
        if self.kid_subset_size == 1:
            raise ValueError("kid_subset_size = 1: a kernel distance needs 2 rows or more; 0 chooses")

    @property
    def words(self) -> tuple[str, ...]:
        """The metrics, each once, in the order given."""
        return tuple(dict.fromkeys(word.strip() for word in self.metrics.split(",") if word.strip()))

    @property
    def chooses(self) -> bool:
        """Whether the metrics are left to data and backbone."""
        return self.words == (AUTO,)
