"""The evaluate hook: what can be measured of these samples, with which features, each score with its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gancore.api import ConfigError, Method, MethodSpec, Samples, Score, hookimpl
from gancore_fidelity import memorisation
from gancore_fidelity.backbones import Backbone, open_backbone
from gancore_fidelity.discriminator import discriminator_scores
from gancore_fidelity.features import chosen_rows, extract, reference, to_uint8
from gancore_fidelity.image_scores import Compared, Counts, choose, image_scores, named
from gancore_fidelity.options import IMAGE_METRICS, POINT_METRICS, FidelityOptions
from gancore_fidelity.points import Modes, mode_scores, modes_of, modes_without
from gancore_fidelity.storage import Storage

T = TypeVar("T")
_Kept = dict[tuple[str | int, ...], tuple[T, list[str]]]

SAMPLES = 10_000
SLOW_SAMPLES = 2_500
"""For networks that take minutes on a CPU, and for pixels, of which there are many in an image."""

PAIRS = 24
"""Samples that are shown beside their nearest images of the reference."""

_KEPT_BYTES = 512 << 20
"""Of samples that are kept to be shown."""


class Fidelity(Method):
    """Measures samples against the data, and the discriminator where there is one. It takes no part in training.

    The backbone and the features of the reference stay from one evaluation of a run to the next.
    """

    options: FidelityOptions

    def __init__(self, spec: MethodSpec, options: FidelityOptions) -> None:
        super().__init__(spec, options)
        self._storage = Storage(options.cache)
        self._backbones: _Kept[Backbone | None] = {}
        self._compared: _Kept[Compared] = {}

    @hookimpl
    def evaluate(self, samples: Samples) -> Mapping[str, Score]:
        points = samples.dataset.kind == "points"
        wrong = IMAGE_METRICS if points else POINT_METRICS
        wrongly = [word for word in self.options.words if word in wrong]
        if wrongly:
            raise ConfigError(
                f"fidelity.metrics names '{wrongly[0]}', which is for {'images' if points else 'points'}; the "
                f"metrics of '{samples.dataset.name}' are {', '.join(POINT_METRICS if points else IMAGE_METRICS)}"
            )
        scores = self._of_points(samples) if points else self._of_images(samples)
        return {**scores, **discriminator_scores(self.options, samples)}

    def _of_points(self, samples: Samples) -> dict[str, Score]:
        counts = self._counts(samples, SAMPLES)
        made = torch.cat(list(samples.batches(counts.samples, counts.seed, self.options.batch)))
        data = torch.from_numpy(samples.dataset.read(self._rows(samples, counts)))
        modes = modes_of(samples.dataset)
        measures_kl, least = self._measures_kl(samples, data, modes), self.options.mode_share
        found = mode_scores(made, data if measures_kl else None, modes, least_share=least)
        about = {**counts.protocol(), "modes": found.modes}
        values = {
            "modes_covered": Score(found.covered, "higher", {**about, "mode_share": least}),
            "high_quality": Score(found.high_quality, "higher", about),
        }
        if found.reverse_kl is not None:
            values["reverse_kl"] = Score(found.reverse_kl, "lower", about)
        if found.radial_error is not None and found.angular_coverage is not None:
            values["radial_error"] = Score(found.radial_error, "lower", about)
            values["angular_coverage"] = Score(found.angular_coverage, "higher", about)
        lacking = [word for word in self.options.words if word in POINT_METRICS and word not in values]
        if lacking:
            raise ConfigError(
                f"fidelity.metrics names '{lacking[0]}', which is of rings, and '{samples.dataset.name}' has "
                f"none; metrics it has: {', '.join(values)}"
            )
        words = values if self.options.chooses else self.options.words
        scores = {word: values[word] for word in words}
        if self.options.memorisation:
            copies = memorisation.authenticity(memorisation.nearest(made, data), memorisation.nearest_other(data))
            scores["authenticity"] = Score(copies, "higher", counts.protocol())
        return scores

    def _measures_kl(self, samples: Samples, data: Tensor, modes: Modes) -> bool:
        """Whether reverse_kl is measured. Decided by the data alone: the first evaluation says it, or refuses."""
        if not self.options.chooses and "reverse_kl" not in self.options.words:
            return False
        without = modes_without(data, modes)
        if not without:
            return True
        why = (
            f"{len(data)} references have none at {len(without)} of {len(modes.centers)} modes, where it may be "
            "infinite; raise fidelity.references"
        )
        if not self.options.chooses:
            raise ConfigError(f"fidelity.metrics names 'reverse_kl', but {why}")
        samples.note(f"reverse_kl is left out: {why}")
        return False

    def _of_images(self, samples: Samples) -> dict[str, Score]:
        backbone = self._backbone(samples)
        if backbone is None:
            return self._of_pixels(samples)
        slow = backbone.name in ("inception", "dinov2")
        counts = self._counts(samples, SLOW_SAMPLES if slow else SAMPLES)
        chosen = choose(self.options, backbone, samples, counts)
        compared = self._reference(backbone, samples, counts)
        shown = _Shown(samples.dataset.shape)
        what = "the generated images"
        batches = samples.batches(counts.samples, counts.seed, self.options.batch)
        images = (shown.keep(to_uint8(part, samples.dataset.shape, what)) for part in batches)
        made = extract(backbone, images, _progress(samples, "features of the samples", counts.samples))
        labels = samples.labels(counts.samples)
        scores = image_scores(chosen, made, labels, compared, self.options, counts, samples)
        if self.options.memorisation:
            nearest = memorisation.nearest(made.vectors, compared.vectors)
            copies = memorisation.authenticity(nearest, compared.nearest_other)
            scores["authenticity"] = Score(copies, "higher", counts.protocol())
            self._show(samples, shown, nearest, compared.reference.indices, f"features of {backbone.name}")
        return named(scores, backbone)

    def _of_pixels(self, samples: Samples) -> dict[str, Score]:
        """Without features: how near samples come to the reference's images, by pixels."""
        if not self.options.chooses:
            raise ConfigError(
                f"fidelity.metrics names '{self.options.words[0]}', and nothing gives features to measure it: "
                f"{'; '.join(samples.notes)}"
            )
        if not self.options.memorisation:
            return {}
        counts = self._counts(samples, SLOW_SAMPLES)
        rows = self._rows(samples, counts)
        shown = _Shown(samples.dataset.shape)
        what = "the generated images"
        batches = samples.batches(counts.samples, counts.seed, self.options.batch)
        parts = [shown.keep(to_uint8(part, samples.dataset.shape, what)) for part in batches]
        made = torch.cat([memorisation.pixels(part) for part in parts])
        data = torch.cat(
            [
                memorisation.pixels(torch.from_numpy(samples.dataset.read(part)))
                for part in np.array_split(rows, math.ceil(len(rows) / self.options.batch))
            ]
        )
        nearest = memorisation.nearest(made, data)
        copies = memorisation.authenticity(nearest, memorisation.nearest_other(data))
        self._show(samples, shown, nearest, rows, "pixels")
        side = min(memorisation.PIXEL_SIDE, samples.dataset.shape[-1])
        return {"authenticity_pixels": Score(copies, "higher", {**counts.protocol(), "pixel_side": side})}

    def _backbone(self, samples: Samples) -> Backbone | None:
        return _once(
            self._backbones,
            (samples.dataset.digest,),
            samples,
            lambda: open_backbone(self.options, samples, self._storage),
        )

    def _reference(self, backbone: Backbone, samples: Samples, counts: Counts) -> Compared:
        data = samples.dataset

        def made() -> Compared:
            rows = self._rows(samples, counts)
            watch = _progress(samples, "features of the reference", len(rows))
            found = reference(backbone, data, rows, self.options.batch, self._storage, samples.note, watch)
            k = max(self.options.k_precision, self.options.k_coverage)
            return Compared(found, data.labels, data.class_names, k)

        return _once(self._compared, (backbone.sha256, data.digest, counts.references), samples, made)

    def _counts(self, samples: Samples, usual: int) -> Counts:
        """How much is compared: as much as is asked for, and is there."""
        asked, total = self.options.samples or usual, len(samples.dataset)
        count = asked if samples.limit is None else min(asked, samples.limit)
        if self.options.samples and count < asked:
            samples.note(f"fidelity.samples = {asked}, but there are {count} images: these are measured")
        wanted = self.options.references or asked
        if self.options.references > total:
            name = samples.dataset.name
            samples.note(
                f"fidelity.references = {self.options.references}, but '{name}' has {total}: all are taken"
            )
        return Counts(count, min(wanted, total), self.options.seed)

    def _rows(self, samples: Samples, counts: Counts) -> np.ndarray:
        # The same rows for every seed: what differs between seeds is then the samples, and the cache serves all.
        return chosen_rows(len(samples.dataset), counts.references, seed=0)

    def _show(
        self,
        samples: Samples,
        shown: _Shown,
        nearest: memorisation.Neighbours,
        rows: np.ndarray,
        by: str,
    ) -> None:
        """Keep the picture of the samples that are nearest to an image of the reference."""
        images = shown.images()
        distances = nearest.distances[: len(images)]
        order = memorisation.nearest_pairs(nearest.indices[: len(images)], distances, PAIRS)
        found = samples.dataset.read(rows[nearest.indices[order].numpy()])
        kind = "training" if samples.trained_on == samples.dataset.digest else "reference"
        picture = memorisation.neighbour_sheet(images[order], torch.from_numpy(found), distances[order])
        samples.show(
            "nearest",
            picture,
            f"Samples (left) beside their nearest {kind} images (right), by {by}: the {len(order)} nearest "
            f"pairs of {len(images):,} samples and {len(rows):,} {kind} images, each of these shown once, with "
            "their distances.",
        )


def _once(kept: _Kept[T], key: tuple[str | int, ...], samples: Samples, make: Callable[[], T]) -> T:
    """What ``make`` returns, made once and kept until another key is asked for.

    What it notes is noted whenever the result is used: rows of a resumed run are those of an unbroken one.
    """
    if key not in kept:
        before = len(samples.notes)
        made = make()
        kept.clear()
        kept[key] = made, samples.notes[before:]
    made, notes = kept[key]
    for note in notes:
        samples.note(note)
    return made


def _progress(samples: Samples, what: str, total: int) -> Callable[[int], None]:
    return lambda done: samples.progress(what, done, total, "images")


class _Shown:
    """The first samples, as many as fit, so that some of them can be shown."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._left = max(PAIRS, _KEPT_BYTES // math.prod(shape))
        self._parts: list[Tensor] = []

    def keep(self, images: Tensor) -> Tensor:
        """Take a batch as it passes by."""
        if self._left > 0:
            self._parts.append(images[: self._left])
            self._left -= len(images)
        return images

    def images(self) -> Tensor:
        """uint8 (K, C, H, W), the first K samples."""
        return torch.cat(self._parts)
