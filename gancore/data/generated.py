"""Images that some generator wrote: a folder or zip of one size, taken as they are, never resized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gancore.data import open_path
from gancore.data.dataset import Dataset, ImageSource
from gancore.data.options import DataOptions
from gancore.data.prepare import Progress, prepare
from gancore.errors import DataError
from gancore.randomness import Rng


class Generated:
    """A folder or zip of generated images.

    Attributes:
        shape: of an image. name: of the folder.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.name = dataset.name
        self.shape = dataset.shape

    def __len__(self) -> int:
        return len(self._dataset)

    def close(self) -> None:
        """Release file handles."""
        self._dataset.close()

    def source(self, reference: Dataset) -> Callable[[int, int, int], Iterator[Tensor]]:
        """``source(count, seed, batch)`` as :class:`~gancore.metrics.Samples` wants it, in its colours.

        Fewer than all images are a random choice without repetition.

        Raises:
            DataError: the images have colour and the reference is grey, or one is 2-D; more are asked for than
                there are.
        """
        if reference.kind != "image":
            raise DataError(f"'{self.name}' holds images, and the reference '{reference.name}' holds 2-D points")
        colours = reference.shape[0]
        if self.shape[0] > colours:
            raise DataError(
                f"the images of '{self.name}' have colour, and the reference '{reference.name}' is grey: to "
                "compare them in colour: -o data.channels=rgb"
            )

        def batches(count: int, seed: int, batch: int) -> Iterator[Tensor]:
            if count > len(self):
                raise DataError(f"{count:,} samples asked for, and '{self.name}' holds {len(self):,} images")
            order = Rng("generated", seed).numpy.permutation(len(self))[:count]
            for first in range(0, count, batch):
                rows = torch.from_numpy(self._dataset.read(np.sort(order)[first : first + batch]))
                yield rows.expand(-1, colours, -1, -1).float() / 127.5 - 1

        return batches


def open_generated(source: str, progress: Progress | None = None) -> Generated:
    """The images of a folder or zip, which must all be squares of one size.

    Raises:
        DataError: no images, damaged ones, several sizes, no square, a side that is no power of two from 16.
    """
    files = open_path(source)
    size = _size(files)
    return Generated(prepare(files, DataOptions(source=source, image_size=size), progress))


def _size(files: ImageSource) -> int:
    """The side that all images have; those that cannot be opened are left to ``prepare``, which names them."""
    sizes: Counter[tuple[int, int]] = Counter()
    for index in range(len(files.files)):
        try:
            sizes[files.load(index).size] += 1
        except Exception:
            continue
    if not sizes:
        return 0
    (width, height), _ = sizes.most_common(1)[0]
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h} ({n:,})" for (w, h), n in sizes.most_common(5))
        raise DataError(f"the generated images of '{files.name}' have several sizes: {shown}; expected one")
    if width != height or width < 16 or width & (width - 1):
        raise DataError(
            f"the generated images of '{files.name}' are {width}x{height}; expected squares whose side is a "
            "power of two from 16"
        )
    return width
