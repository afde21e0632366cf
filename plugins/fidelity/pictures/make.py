"""Measure digits that were spoilt in known ways and draw what each score says: ``python make.py [folder]``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gancore.api import Samples
from gancore.data import DataOptions, open_dataset
from gancore.data.dataset import MemoryDataset
from gancore_fidelity import SPEC
from gancore_fidelity.method import Fidelity
from gancore_fidelity.options import FidelityOptions

SHOWN = ("fid", "precision", "recall", "authenticity")
REFERENCES, SAMPLES, TILES = 1200, 590, 10
SCALE = 2  # drawn at twice the size, for smooth edges
TILE, LEFT, TOP, ROW, COLUMN = 28 * SCALE, 150 * SCALE, 34 * SCALE, 42 * SCALE, 92 * SCALE
INK, GREY, BLUE = (40, 44, 52), (120, 126, 134), (31, 119, 180)


def spoilt() -> tuple[MemoryDataset, dict[str, np.ndarray]]:
    """The reference, and sets of samples by what was done to them."""
    digits = open_dataset(DataOptions(source="digits", conditional=True))
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits))
    images, labels = digits.read(order), digits.labels[order]
    known, fresh = images[:REFERENCES], images[REFERENCES : REFERENCES + SAMPLES]
    fresh_labels = labels[REFERENCES : REFERENCES + SAMPLES]
    random = np.random.Generator(np.random.PCG64(1))
    noise = random.normal(0, 60, fresh.shape)
    moved = [np.roll(fresh.astype(np.float64), shift, axis) for axis in (2, 3) for shift in (-1, 0, 1)]
    threes = fresh[fresh_labels == 3]
    reference = MemoryDataset(known, name="digits", labels=labels[:REFERENCES], class_names=digits.class_names)
    return reference, {
        "digits not in the reference": fresh,
        "with noise": (fresh + noise).clip(0, 255).astype(np.uint8),
        "blurred": np.mean(moved, axis=0).astype(np.uint8),
        "the class 3 alone": threes[np.arange(SAMPLES) % len(threes)],
        "copies of the reference": known[:SAMPLES],
    }


def scores_of(images: np.ndarray, reference: MemoryDataset, method: Fidelity) -> dict[str, float]:
    """Metric -> value, of these samples."""

    def source(count: int, seed: int, size: int) -> Iterator[Tensor]:
        yield from (torch.from_numpy(images[:count]).float() / 127.5 - 1).split(size)

    found = method.evaluate(samples=Samples(source, reference, limit=len(images)))
    return {name: found[f"{name}_classifier"].value for name in SHOWN}


def drawn(rows: dict[str, tuple[np.ndarray, dict[str, float]]]) -> Image.Image:
    """One row a set: its name, some of its images, a bar and a number for each score."""
    width = LEFT + TILES * TILE + 20 * SCALE + len(SHOWN) * COLUMN
    picture = Image.new("RGB", (width, TOP + len(rows) * ROW + 8 * SCALE), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11 * SCALE)
    first = LEFT + TILES * TILE + 20 * SCALE
    for column, title in enumerate(SHOWN):
        draw.text((first + column * COLUMN, 12 * SCALE), title, fill=GREY, font=font)
    largest = {name: max(1.0, *(values[name] for _, values in rows.values())) for name in SHOWN}
    for row, (what, (images, values)) in enumerate(rows.items()):
        top = TOP + row * ROW
        draw.text((8 * SCALE, top + 8 * SCALE), what, fill=INK, font=font)
        for index in range(TILES):
            tile = Image.fromarray(images[index, 0]).resize(
                (TILE - SCALE, TILE - SCALE), Image.Resampling.NEAREST
            )
            picture.paste(tile.convert("RGB"), (LEFT + index * TILE, top))
        for column, name in enumerate(SHOWN):
            left = first + column * COLUMN
            long = round((COLUMN - 20 * SCALE) * values[name] / largest[name])
            draw.rectangle((left, top + 18 * SCALE, left + max(long, SCALE), top + 24 * SCALE), fill=BLUE)
            draw.text((left, top + 2 * SCALE), f"{values[name]:.2f}", fill=INK, font=font)
    return picture.resize((picture.width // SCALE, picture.height // SCALE), Image.Resampling.LANCZOS)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    reference, sets = spoilt()
    with tempfile.TemporaryDirectory() as cache:
        method = Fidelity(SPEC, FidelityOptions(cache=cache))
        rows = {what: (images, scores_of(images, reference, method)) for what, images in sets.items()}
    drawn(rows).save(folder / "fidelity.png", optimize=True)


if __name__ == "__main__":
    main()
