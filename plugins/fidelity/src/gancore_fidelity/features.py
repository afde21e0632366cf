"""Features of samples and of the reference: extraction beside decoding, and the cache of the reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from gancore.api import DataError, DivergedError
from gancore_fidelity import frechet
from gancore_fidelity.backbones.base import Backbone, Features
from gancore_fidelity.storage import Damaged, Storage, digest

T = TypeVar("T")
Passed = Callable[[int], None]

FORMAT = 1
"""Of what is kept of a reference; another one is another key."""

_AHEAD = 2
"""Batches that wait for the network: one is enough to hide a steady source, two an unsteady one."""


def _unseen(done: int) -> None:
    """Nobody watches."""


class Rows(Protocol):
    """What is asked of a reference: a data set of gancore."""

    name: str
    shape: tuple[int, ...]
    digest: str
    labels: np.ndarray | None

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) or float32 (B, 2)."""


@dataclass(frozen=True)
class Reference:
    """Features of a part of the data set.

    Attributes:
        indices: int64 (M,), ascending: which rows they are of.
        features: of these rows. statistics: mean and covariance of them.
    """

    indices: np.ndarray
    features: Features
    statistics: frechet.Statistics


def chosen_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Ascending rows, int64 (min(count, total),), drawn without replacement."""
    if count >= total:
        return np.arange(total, dtype=np.int64)
    random = np.random.Generator(np.random.PCG64([seed, total]))
    return np.sort(random.choice(total, count, replace=False)).astype(np.int64)


def reference(
    backbone: Backbone,
    data: Rows,
    rows: np.ndarray,
    batch: int,
    storage: Storage,
    note: Callable[[str], None],
    passed: Passed = _unseen,
) -> Reference:
    """Features of these rows of the data, from the cache or extracted now and kept.

    Args:
        batch: images at once. note: called with a line for the reader. passed: see :func:`extract`.

    Raises:
        DataError: fewer than two images.
    """
    if len(rows) < 2:
        raise DataError(
            f"the reference '{data.name}' has {len(rows)} images; expected at least 2, and more than "
            f"{backbone.dimension} for a Fréchet distance that is not biased"
        )
    key, what = _key(backbone, data, rows), f"the reference '{data.name}'"
    found = None
    try:
        found = storage.read("reference", key)
    except Damaged as error:
        note(f"the features of the reference were extracted again: {error}")
    if found is not None:
        return _restored(found.tensors, rows, what)
    made = extract(backbone, (torch.from_numpy(data.read(part)) for part in _parts(rows, batch)), passed)
    statistics = frechet.statistics(made.vectors, what)
    try:
        storage.write("reference", key, _kept(made, statistics), {"name": data.name})
    except OSError as error:
        note(
            f"the features of the reference could not be kept in {storage.folder} ({error.strerror or error}): "
            "they will be extracted again; set fidelity.cache to a folder that can be written"
        )
    return Reference(rows, made, statistics)


def extract(backbone: Backbone, batches: Iterator[Tensor], passed: Passed = _unseen) -> Features:
    """Features of uint8 batches (B, C, H, W), in order. The next batches are made while the network works.

    Args:
        passed: called with the number of images done, after each batch.

    Raises:
        DataError: no image.
    """
    parts, done = [], 0
    for batch in ahead(batches):
        parts.append(backbone.features(batch))
        done += len(batch)
        passed(done)
    if not parts:
        raise DataError("no image to extract features of; expected at least one")
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(torch.cat([part.vectors for part in parts]), torch.cat(logits) if logits else None)


def ahead(source: Iterator[T], depth: int = _AHEAD) -> Iterator[T]:
    """The items of ``source``, made in a thread up to ``depth`` items early. Its errors arrive in their place."""
    end = object()
    with ThreadPoolExecutor(1, "gancore-features") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, source, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()


def to_uint8(images: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] as 8-bit ones, rounded as pictures are saved.

    Raises:
        DataError: images of another shape than the reference. DivergedError: values that are not finite.
    """
    if tuple(images.shape[1:]) != tuple(shape):
        found, expected = ("x".join(map(str, size)) for size in (images.shape[1:], shape))
        raise DataError(f"{what} are {found}, the reference is {expected}; expected images of one size and mode")
    if not bool(torch.isfinite(images).all()):
        raise DivergedError(f"{what} hold values that are not finite: the run has diverged")
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _key(backbone: Backbone, data: Rows, rows: np.ndarray) -> dict[str, Any]:
    drawn = digest({"rows": rows.tolist()})
    return {
        "format": FORMAT,
        "data_digest": data.digest,
        "rows": drawn,
        "count": len(rows),
        **backbone.protocol(),
    }


def _kept(made: Features, statistics: frechet.Statistics) -> dict[str, Tensor]:
    kept = {"vectors": made.vectors, "mean": statistics.mean}
    if made.logits is not None:
        kept["logits"] = made.logits
    # Centred rows, where there are few, are as large as the features and cheap to make.
    if statistics.covariance is not None:
        kept["covariance"] = statistics.covariance
    return kept


def _restored(tensors: dict[str, Tensor], rows: np.ndarray, what: str) -> Reference:
    made = Features(tensors["vectors"], tensors.get("logits"))
    if "covariance" in tensors:
        statistics = frechet.Statistics(len(rows), tensors["mean"], covariance=tensors["covariance"], what=what)
    else:
        statistics = frechet.statistics(made.vectors, what)
    return Reference(rows, made, statistics)
