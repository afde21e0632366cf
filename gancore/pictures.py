"""Pictures that people look at: sample grids and, for 2-D sets, scatter plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from gancore.atomic import write_atomic


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] as (N, H, W, C) uint8, rounded."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def grid(images: Tensor, columns: int = 0, *, gap: int = 2, least_width: int = 512) -> Image.Image:
    """A sheet of images, enlarged by a whole factor when they are small.

    Args:
        images: (N, C, H, W) in [-1, 1], C of 1 or 3.
        columns: 0 for a square sheet.
    """
    tiles = to_uint8(images)
    count, height, width, channels = tiles.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    scale = max(1, -(-least_width // (columns * (width + gap))))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 32, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top = gap + (index // columns) * (height + gap)
        left = gap + (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile if channels == 3 else tile.repeat(3, axis=2)
    return Image.fromarray(sheet)


def scatter(
    points: Tensor, reference: np.ndarray | None = None, *, size: int = 640, extent: float = 0.0
) -> Image.Image:
    """Generated points in orange over the data in grey.

    Args:
        points: (N, 2). reference: (M, 2) of the data, or None. extent: half-width of the axes; 0 to fit.
    """
    generated = points.detach().float().cpu().numpy()
    base = generated if reference is None else reference
    extent = extent or float(np.abs(base).max()) * 1.15 or 1.0
    picture = Image.new("RGB", (size, size), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    layers: list[tuple[np.ndarray, tuple[int, int, int], int]] = [(generated, (214, 96, 16), 2)]
    if reference is not None:
        layers.insert(0, (reference, (190, 196, 204), 1))
    for cloud, colour, radius in layers:
        for x, y in (cloud / extent * 0.5 + 0.5) * size:
            if np.isfinite(x) and np.isfinite(y):
                top = size - y
                draw.ellipse((x - radius, top - radius, x + radius, top + radius), fill=colour)
    for fraction in (0.25, 0.5, 0.75):
        place = fraction * size
        label = f"{(fraction - 0.5) * 2 * extent:.1f}"
        draw.text((place + 2, size - 14), label, fill=(90, 96, 104))
        draw.line((place, size - 4, place, size), fill=(90, 96, 104))
        draw.text((8, size - place - 6), label, fill=(90, 96, 104))
        draw.line((0, size - place, 4, size - place), fill=(90, 96, 104))
    return picture


def class_rows(num_classes: int, count: int) -> tuple[list[int], int]:
    """Labels for a sheet with one class a column, and its number of columns."""
    columns = min(num_classes, max(1, int(np.ceil(np.sqrt(count)))), count)
    columns = num_classes if num_classes <= 16 and count >= num_classes else columns
    rows = max(1, count // columns)
    return [index % columns for index in range(rows * columns)], columns


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def save_each(images: Tensor, folder: Path, names: Sequence[str]) -> None:
    """One PNG an image: (N, C, H, W) in [-1, 1], named ``names[i].png``."""
    for tile, name in zip(to_uint8(images), names, strict=True):
        picture = Image.fromarray(tile if tile.shape[2] == 3 else tile[:, :, 0])
        save_png(picture, folder / f"{name}.png")
