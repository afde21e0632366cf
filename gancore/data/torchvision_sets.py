"""Classification sets of torchvision by name: their training part, downloaded when allowed."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gancore.data.labels import Classes
from gancore.data.options import DataOptions
from gancore.errors import DataError, nearest

PREFIX = "torchvision:"

# Sets that yield (image, class index), with the arguments that select their training part.
SETS: dict[str, dict[str, Any]] = {
    "CIFAR10": {"train": True},
    "CIFAR100": {"train": True},
    "Caltech101": {},
    "Caltech256": {},
    "Country211": {"split": "train"},
    "DTD": {"split": "train"},
    "EMNIST": {"split": "balanced", "train": True},
    "EuroSAT": {},
    "FGVCAircraft": {"split": "trainval"},
    "FashionMNIST": {"train": True},
    "Flowers102": {"split": "train"},
    "Food101": {"split": "train"},
    "GTSRB": {"split": "train"},
    "Imagenette": {"split": "train"},
    "KMNIST": {"train": True},
    "MNIST": {"train": True},
    "OxfordIIITPet": {"split": "trainval"},
    "SEMEION": {},
    "STL10": {"split": "train"},
    "SUN397": {},
    "SVHN": {"split": "train"},
    "USPS": {"train": True},
}


def default_root() -> Path:
    """The user's cache folder for downloaded sets."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "gancore" / "data"


class TorchvisionSource:
    """A set of torchvision. DataError for an unknown name, or when it is neither there nor downloadable."""

    def __init__(self, options: DataOptions) -> None:
        self.name = options.source
        self._set = _open(options.source.removeprefix(PREFIX), options)
        self.files = [f"image {index}" for index in range(len(self._set))]
        self.notes: list[str] = []

    def load(self, index: int) -> Image.Image:
        image = self._set[index][0]
        if not isinstance(image, Image.Image):
            raise TypeError(f"expected a Pillow image, found {type(image).__name__}")
        return image

    def classes(self, conditional: bool) -> Classes:
        """The set's own labels and class names."""
        indices = _labels(self._set)
        if indices is None or len(indices) != len(self._set) or indices.min(initial=0) < 0:
            if conditional:
                raise DataError(f"{self.name} has no labels that can be used: train without --cond")
            return Classes(np.zeros(len(self._set), dtype=np.int64), ("all",))
        count = int(indices.max(initial=-1)) + 1
        names = getattr(self._set, "classes", None) or getattr(self._set, "categories", None) or []
        return Classes(indices, tuple(map(str, names if len(names) == count else range(count))))

    def close(self) -> None:
        """Nothing is held open."""


def _open(name: str, options: DataOptions) -> Any:
    if name not in SETS:
        raise DataError(f"unknown torchvision set {name!r}{nearest(name, SETS)}; known: {', '.join(SETS)}")
    root = Path(options.root).expanduser() if options.root else default_root()
    from torchvision import datasets

    if not hasattr(datasets, name):
        raise DataError(f"the installed torchvision has no {name}; update it, or choose another set")
    arguments = {**SETS[name], "root": str(root), "download": options.download}
    try:
        root.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(datasets, name)(**arguments)
    except Exception as error:  # every set reports missing files in its own way
        tried = "the download failed" if options.download else "downloading is off"
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{PREFIX}{name} is not complete in {root}, and {tried}: {why[:300]}; "
            "connect to the network, or put the set's files there"
        ) from error


def _labels(dataset: Any) -> np.ndarray | None:
    """int64 (N,), from whichever attribute this set keeps its labels in; None when it has none."""
    for name in ("targets", "labels", "_labels", "y"):
        values = getattr(dataset, name, None)
        if values is not None:
            labels = np.asarray(values)
            return labels.astype(np.int64) if labels.ndim == 1 else None
    samples = getattr(dataset, "_samples", None)
    if samples:
        return np.array([label for _, label in samples], dtype=np.int64)
    return None
