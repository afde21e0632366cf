"""Batches for the trainer: a pure function of seed, stream and position, whatever is prefetched."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from gancore.data.dataset import Dataset, LazyDataset
from gancore.data.sampler import flips, indices
from gancore.data.transfer import to_device
from gancore.errors import ConfigError

_MOST_PREFETCHED = 4

Rows = tuple[np.ndarray, np.ndarray | None]


class Loader:
    """Reads a data set in the endless shuffled order of a stream.

    Args:
        dataset: what to read; it is not closed here.
        seed: decides order and flips, together with the stream's name.
        device: where batches go.
        mirror: flip images left to right with probability 1/2. ConfigError for points.
        dtype: floating type of images and points.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        device: torch.device | str,
        mirror: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if mirror and dataset.kind == "points":
            raise ConfigError(f"mirror flips images, but {dataset.name} is a set of points: leave it out")
        self.dataset = dataset
        self.seed = seed
        self.device = torch.device(device)
        self.mirror = mirror
        self.dtype = dtype
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: OrderedDict[tuple[str, int, int], Future[Rows]] = OrderedDict()
        if isinstance(dataset, LazyDataset):
            self._pool = ThreadPoolExecutor(1, "gancore-prefetch")

    def batch(self, stream: str, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Positions ``start .. start + count`` of ``stream``.

        Returns:
            Images (count, C, H, W) in [-1, 1] or points (count, 2), and labels int64 (count,) or None.

        Raises:
            DataError: an image can no longer be read.
        """
        rows, labels = self._rows(stream, start, count)
        return self._to_device(rows), None if labels is None else to_device(labels, self.device)

    def chosen(self, stream: str, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Which images stand at these positions of ``stream``, int64 (count,), and which are flipped, bool."""
        flipped = flips(self.seed, stream, start, count) if self.mirror else np.zeros(count, dtype=bool)
        return indices(self.seed, stream, start, count, len(self.dataset)), flipped

    def random_labels(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """int64 (count,), drawn with the frequencies of the data set. ValueError when it has no labels."""
        labels = self.dataset.labels
        if labels is None:
            raise ValueError(f"{self.dataset.name} was opened without labels")
        return labels[rng.integers(0, len(labels), count)]

    def close(self) -> None:
        """Stop prefetching. The loader can still be used, without it."""
        pool, self._pool = self._pool, None
        self._ahead.clear()
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _rows(self, stream: str, start: int, count: int) -> Rows:
        if self._pool is None:
            return self._read(stream, start, count)
        future = self._ahead.pop((stream, start, count), None)
        following = (stream, start + count, count)
        # Read the batch that is asked for first; the one after it while the trainer works.
        current = future if future is not None else self._pool.submit(self._read, stream, start, count)
        if following not in self._ahead:
            self._ahead[following] = self._pool.submit(self._read, *following)
        while len(self._ahead) > _MOST_PREFETCHED:
            self._ahead.popitem(last=False)[1].cancel()
        return current.result()

    def _read(self, stream: str, start: int, count: int) -> Rows:
        chosen, flipped = self.chosen(stream, start, count)
        rows = self.dataset.read(chosen)
        if self.mirror:
            rows[flipped] = rows[flipped, ..., ::-1]
        labels = self.dataset.labels
        return rows, None if labels is None else labels[chosen]

    def _to_device(self, rows: np.ndarray) -> torch.Tensor:
        if rows.dtype == np.uint8 and self.device.type == "cpu":
            # numpy, since torch hands even small batches to its thread pool, which stalls on a busy machine
            wide = np.float64 if self.dtype == torch.float64 else np.float32
            scaled = np.divide(rows, 127.5, dtype=wide)
            scaled -= 1
            return torch.from_numpy(scaled).to(self.dtype)
        tensor = to_device(rows, self.device)
        if rows.dtype != np.uint8:
            return tensor.to(self.dtype)
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        return tensor.to(exact).div_(127.5).sub_(1).to(self.dtype)
