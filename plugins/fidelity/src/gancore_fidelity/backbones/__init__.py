"""Backbones by name, and which one ``auto`` is."""

from __future__ import annotations

from pathlib import Path

from gancore.api import DataError, Samples
from gancore_fidelity import weights
from gancore_fidelity.backbones.base import Backbone, Features, Settings
from gancore_fidelity.options import FidelityOptions
from gancore_fidelity.storage import Storage

__all__ = ["Backbone", "Features", "Settings", "open_backbone"]


def open_backbone(options: FidelityOptions, samples: Samples, storage: Storage) -> Backbone | None:
    """The backbone that the options name; for ``auto`` Inception, else a classifier, else None with a note.

    Raises:
        DataError: weights that are missing or not the published ones, data without labels for a classifier.
        ConfigError: a package is missing.
    """
    from gancore_fidelity.backbones.dinov2 import DinoV2, check_installed
    from gancore_fidelity.backbones.inception import Inception
    from gancore_fidelity.classifier import open_classifier

    settings = Settings(samples.device, options.precision)
    if options.backbone == "classifier":
        return open_classifier(samples, storage, settings)
    if options.backbone == "dinov2":
        check_installed()
        return DinoV2(_weights(weights.DINOV2, options, storage), settings)
    if options.backbone == "inception":
        return Inception(_weights(weights.INCEPTION, options, storage), settings)
    path = weights.find(weights.INCEPTION, options.weights, storage)
    if path is not None:
        return Inception(path, settings)
    try:
        return open_classifier(samples, storage, settings)
    except DataError as error:
        samples.note(
            f"no features to measure with, so fid and its like are left out: {error}; for inception, "
            f"{weights.how_to_get(weights.INCEPTION, storage)}"
        )
        return None


def _weights(published: weights.Weights, options: FidelityOptions, storage: Storage) -> Path:
    path = weights.find(published, options.weights, storage)
    if path is not None:
        return path
    if not options.download:
        raise DataError(
            f"{published.name} is not in {storage.folder}, and fidelity.download is off; "
            f"{weights.how_to_get(published, storage)}"
        )
    return weights.fetch(published, storage)
