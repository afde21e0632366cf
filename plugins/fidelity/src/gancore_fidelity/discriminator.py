"""What the trained discriminator says of data: its logits and its features, on the CPU, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gancore.api import ConfigError, Discriminator, DivergedError, Samples, Score, nearest
from gancore_fidelity import memorisation
from gancore_fidelity.features import chosen_rows
from gancore_fidelity.options import FidelityOptions
from gancore_fidelity.probe import linear_probe

GAP_IMAGES = 5000
"""Training rows, and held-out rows, whose logits are compared."""

_BATCH = 64


def discriminator_scores(options: FidelityOptions, samples: Samples) -> dict[str, Score]:
    """What can be said of D: its gap on held-out data, and the linear probe of its features.

    Raises:
        ConfigError: a tap that D does not have.
    """
    if samples.discriminator is None:
        return {}
    scores: dict[str, Score] = {}
    if options.memorisation:
        scores |= _gap(samples, samples.discriminator)
    if options.probe:
        scores |= _probe(options, samples, samples.discriminator)
    return scores


def _gap(samples: Samples, network: Discriminator) -> dict[str, Score]:
    held_out, data = samples.held_out, samples.dataset
    if held_out is None:
        return {}
    if samples.trained_on not in ("", data.digest):
        samples.note(f"D was not trained on the reference '{data.name}': its gap is left out")
        return {}
    if network.num_classes and held_out.labels is None:
        samples.note(f"D has classes, and the held-out set '{held_out.name}' no labels: its gap is left out")
        return {}
    logits = [
        Outputs(network, each.read, each.labels).logits(chosen_rows(len(each), GAP_IMAGES, seed=0))
        for each in (data, held_out)
    ]
    found = memorisation.gap(*logits)
    about: dict[str, str | int] = {
        "train_images": len(logits[0]),
        "held_out_images": len(logits[1]),
        "held_out_digest": held_out.digest,
    }
    return {"d_gap": Score(found.difference, "lower", about), "d_gap_auc": Score(found.auc, "lower", about)}


def _probe(options: FidelityOptions, samples: Samples, network: Discriminator) -> dict[str, Score]:
    """Fit on rows of the training set; test on the held-out set where it has labels, else on other rows."""
    data = samples.labelled
    if data is None or data.labels is None:
        return {}
    held_out = samples.held_out
    tested = held_out if held_out is not None and held_out.labels is not None else data
    assert tested.labels is not None
    if tested is data:
        drawn = np.random.Generator(np.random.PCG64(0)).permutation(
            chosen_rows(len(data), 2 * options.probe_images, 0)
        )
        rows, test_rows = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    else:
        rows = chosen_rows(len(data), options.probe_images, 0)
        test_rows = chosen_rows(len(tested), options.probe_images, 0)
    known = np.unique(data.labels[rows])
    test_rows = test_rows[np.isin(tested.labels[test_rows], known)]
    if len(known) < 2 or not len(test_rows):
        samples.note(
            f"the linear probe is left out: {len(rows)} training images have {len(known)} classes, and "
            f"{len(test_rows)} test images one of these; it needs 2 classes and a test image"
        )
        return {}
    tap = options.probe_tap
    features = Outputs(network, data.read, data.labels).features(rows, tap)
    test_features = Outputs(network, tested.read, tested.labels).features(test_rows, tap)
    labels, test_labels = torch.from_numpy(data.labels[rows]), torch.from_numpy(tested.labels[test_rows])
    found = linear_probe(features, labels, test_features, test_labels)
    if found.note:
        samples.note(found.note)
    about: dict[str, str | int] = {
        "tap": tap,
        "train_images": len(rows),
        "test_images": len(test_rows),
        "test_digest": tested.digest,
        "test_set": "other training images" if tested is data else "held out",
    }
    return {"probe_accuracy": Score(found.accuracy, "higher", about)}


class Outputs:
    """Forward rows of a data set through D, in its own number type and without gradient.

    Args:
        network: in evaluation mode.
        read: ``read(int64 (B,))`` gives uint8 images (B, C, H, W) or float32 points (B, 2).
        labels: int64 (N,) of the whole set, or None.
    """

    def __init__(
        self,
        network: Discriminator,
        read: Callable[[np.ndarray], np.ndarray],
        labels: np.ndarray | None,
    ) -> None:
        self._network = network
        self._read = read
        self._labels = labels
        like = next(network.parameters())
        self._device, self._dtype = like.device, like.dtype

    @torch.no_grad()
    def logits(self, rows: np.ndarray) -> np.ndarray:
        """D(x), float64 (B,), with the rows' own labels where D has classes.

        Raises:
            DivergedError: a logit is not finite.
        """
        parts = [self._network(images, labels) for images, labels in self._batches(rows)]
        return _finite(torch.cat(parts).double().cpu()).numpy()

    @torch.no_grad()
    def features(self, rows: np.ndarray, tap: str) -> Tensor:
        """Features at a tap, float32 (B, D).

        A discriminator with classes gets class 0 for every row: its own label would give the answer away.

        Raises:
            ConfigError: D has no such tap. DivergedError: a feature is not finite.
        """
        taps = self._network.taps
        if tap not in taps:
            raise ConfigError(f"fidelity.probe_tap = '{tap}'{nearest(tap, taps)}; taps of D: {', '.join(taps)}")
        parts = [
            self._network.features(images, None if labels is None else torch.zeros_like(labels))[tap]
            for images, labels in self._batches(rows)
        ]
        return _finite(torch.cat(parts).flatten(1).float().cpu())

    def _batches(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            read = torch.from_numpy(self._read(part)).to(self._device)
            images = (read.to(self._dtype) / 127.5 - 1) if read.dtype == torch.uint8 else read.to(self._dtype)
            labels = None
            if self._network.num_classes and self._labels is not None:
                labels = torch.from_numpy(self._labels[part]).to(self._device)
            yield images, labels


def _finite(outputs: Tensor) -> Tensor:
    if not bool(torch.isfinite(outputs).all()):
        raise DivergedError("outputs of the discriminator are not finite: the run has diverged")
    return outputs
