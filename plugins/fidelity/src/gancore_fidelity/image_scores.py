"""Scores of images from features: which can be given, what they are, and the protocol of each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gancore.api import ConfigError, Samples, Score
from gancore_fidelity import frechet, memorisation
from gancore_fidelity.backbones import Backbone, Features
from gancore_fidelity.features import Reference
from gancore_fidelity.inception_score import inception_score
from gancore_fidelity.kernel_distance import draw_subsets, kernel_distance
from gancore_fidelity.manifolds import ManifoldScores, manifold_scores, neighbour_distances
from gancore_fidelity.options import IMAGE_METRICS, FidelityOptions

KID_SUBSET = 1000
"""Rows of a subset unless the option says: the size in Binkowski et al., section 5."""

_NAMED_CLASSES = 20
_MANIFOLDS = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Counts:
    """How many samples and references are compared, and the seed of all random draws."""

    samples: int
    references: int
    seed: int

    def protocol(self) -> dict[str, int]:
        """As it enters a score."""
        return {"samples": self.samples, "references": self.references, "seed": self.seed}


class Compared:
    """A reference, with what is computed of it once and used at every evaluation.

    Args:
        reference: its features. labels: int64 (M,) of the rows, or None. names: of the classes.
        k: neighbours that manifolds need.
    """

    def __init__(self, reference: Reference, labels: np.ndarray | None, names: Sequence[str], k: int) -> None:
        self._k = k
        self.reference = reference
        self.labels = None if labels is None else torch.from_numpy(labels[reference.indices])
        self.names = tuple(names)

    @property
    def vectors(self) -> Tensor:
        """(M, D)."""
        return self.reference.features.vectors

    @functools.cached_property
    def nearest_other(self) -> memorisation.Neighbours:
        """Of each row, its nearest other."""
        return memorisation.nearest_other(self.vectors)

    @functools.cached_property
    def neighbours(self) -> Tensor:
        """Squared distances to the k nearest others, (M, k)."""
        return neighbour_distances(self.vectors, self._k, what="the reals")


def choose(options: FidelityOptions, backbone: Backbone, samples: Samples, counts: Counts) -> tuple[str, ...]:
    """The metrics to compute: those that are named, or all that can be given.

    Raises:
        ConfigError: a named metric that cannot be given, with why and the way out.
    """
    smaller = min(counts.samples, counts.references)
    if options.kid_subset_size > smaller:
        raise ConfigError(
            f"fidelity.kid_subset_size = {options.kid_subset_size}, but there are {counts.samples} samples and "
            f"{counts.references} references; expected at most {smaller}: lower it, or 0 to choose"
        )
    chosen = []
    for word in IMAGE_METRICS if options.chooses else options.words:
        foreign = _foreign(word, backbone, samples)
        scarce = _scarce(word, options, counts)
        if foreign is None and scarce is None:
            chosen.append(word)
        elif not options.chooses:
            raise ConfigError(f"fidelity.metrics names '{word}', but {foreign or scarce}")
        elif foreign is None:
            samples.note(f"{word} is left out: {scarce}")
    if options.chooses and smaller <= 2 * len(samples.dataset.class_names) * backbone.dimension:
        # Biased in every class. Who asks for it by name gets it, with a note.
        chosen = [word for word in chosen if word != "class_fid"]
    return tuple(chosen)


def image_scores(
    chosen: Sequence[str],
    made: Features,
    labels: Tensor | None,
    compared: Compared,
    options: FidelityOptions,
    counts: Counts,
    samples: Samples,
) -> dict[str, Score]:
    """Scores by metric, without the backbone's part of name and protocol.

    Args:
        chosen: what :func:`choose` returned. made: features of the samples. labels: their classes, or None.
    """
    real, generated = compared.reference, made.vectors
    found: dict[str, Score] = {}
    if "fid" in chosen:
        of_samples = frechet.statistics(generated, "the samples")
        value = frechet.frechet_distance(of_samples, real.statistics)
        found["fid"] = Score(value, "lower", counts.protocol())
        _note(samples, frechet.too_few(of_samples, real.statistics))
    if "class_fid" in chosen:
        assert labels is not None
        assert compared.labels is not None
        found |= _by_class(generated, labels, compared, counts, samples)
    if "kid" in chosen:
        found["kid"] = _kid(generated, compared, options, counts)
    if "is" in chosen:
        assert made.logits is not None
        order = torch.randperm(len(generated), generator=torch.Generator().manual_seed(counts.seed))
        value = inception_score(made.logits, options.splits, order).mean
        about = {"samples": counts.samples, "seed": counts.seed, "splits": options.splits}
        found["is"] = Score(value, "higher", about)
    if set(chosen) & set(_MANIFOLDS):
        manifolds = _manifolds(generated, compared, options)
        for word in _MANIFOLDS:
            if word in chosen:
                about = {**counts.protocol(), "k": _k(word, options)}
                found[word] = Score(getattr(manifolds, word), "higher", about)
    return found


def named(scores: Mapping[str, Score], backbone: Backbone) -> dict[str, Score]:
    """Scores under the names that readers know: bare for Inception, else with the backbone's name behind."""
    suffix = "" if backbone.name == "inception" else f"_{backbone.name}"
    renamed = {}
    for name, score in scores.items():
        metric, dot, of_class = name.partition(".")
        protocol = {**score.protocol, **backbone.protocol()}
        renamed[f"{metric}{suffix}{dot}{of_class}"] = Score(score.value, score.better, protocol)
    return renamed


def _foreign(word: str, backbone: Backbone, samples: Samples) -> str | None:
    """Why this backbone and this run have no such metric, or None."""
    if word == "is" and not backbone.has_logits:
        return f"backbone {backbone.name} predicts no classes; use inception or classifier"
    if word == "class_fid":
        classes = len(samples.dataset.class_names)
        if not samples.num_classes:
            return "the samples have no classes (train with --cond)"
        if samples.num_classes != classes:
            return f"the generator has {samples.num_classes} classes and the reference {classes}"
    return None


def _scarce(word: str, options: FidelityOptions, counts: Counts) -> str | None:
    """Why these counts are too small for a metric, or None."""
    smaller = min(counts.samples, counts.references)
    if word == "is" and options.splits > counts.samples:
        return f"{counts.samples} samples make no {options.splits} splits; lower fidelity.splits"
    if word in ("fid", "kid") and smaller < 2:
        return f"there are {counts.samples} samples and {counts.references} references; it needs 2 of each"
    if word in _MANIFOLDS and _k(word, options) >= smaller:
        return (
            f"{_k(word, options)} neighbours need more than the {counts.samples} samples and {counts.references} "
            "references there are; use more, or lower k"
        )
    return None


def _k(word: str, options: FidelityOptions) -> int:
    return options.k_precision if word in ("precision", "recall") else options.k_coverage


def _by_class(
    generated: Tensor, labels: Tensor, compared: Compared, counts: Counts, samples: Samples
) -> dict[str, Score]:
    assert compared.labels is not None
    found = frechet.class_distances(compared.vectors, compared.labels, generated, labels, compared.names)
    about = {**counts.protocol(), "classes": len(found.distances)}
    scores = {
        "class_fid": Score(found.mean, "lower", about),
        "class_fid_worst": Score(found.distances[found.worst], "lower", about),
    }
    if len(found.distances) <= _NAMED_CLASSES:
        scores |= {f"class_fid.{name}": Score(value, "lower", about) for name, value in found.distances.items()}
    if found.left_out:
        samples.note(f"class_fid leaves out classes with fewer than 2 samples: {', '.join(found.left_out[:20])}")
    _note(samples, found.note)
    return scores


def _kid(generated: Tensor, compared: Compared, options: FidelityOptions, counts: Counts) -> Score:
    size = options.kid_subset_size or min(KID_SUBSET, counts.samples, counts.references)
    random = np.random.Generator(np.random.PCG64([counts.seed, size]))
    subsets = draw_subsets((len(generated), len(compared.vectors)), size, options.kid_subsets, random)
    value = kernel_distance(generated, compared.vectors, subsets).mean
    about = {**counts.protocol(), "subsets": options.kid_subsets, "subset_size": size}
    return Score(value, "lower", about)


def _manifolds(generated: Tensor, compared: Compared, options: FidelityOptions) -> ManifoldScores:
    return manifold_scores(
        compared.vectors,
        generated,
        k_precision=options.k_precision,
        k_coverage=options.k_coverage,
        real_neighbours=compared.neighbours,
    )


def _note(samples: Samples, text: str) -> None:
    if text:
        samples.note(text)
