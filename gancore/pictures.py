"""Pictures that people look at: sample grids and, for 2-D sets, scatter plots."""

from __future__ import annotations

import contextlib
import functools
import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gancore.atomic import write_atomic

BACKGROUND = 32
INK = (224, 226, 230)

TEXT_SIZE, LINE = 12, 18
"""Of text on a sheet and of the line it stands in, in pixels."""

LABELLED_WIDTH = 64
"""Of a tile with text, in pixels: ten or so letters."""

OTHER_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")
"""Fonts of systems, for names that Pillow's own font cannot write."""


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] as (N, H, W, C) uint8, rounded."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def grid(
    images: Tensor,
    columns: int = 0,
    *,
    gap: int = 2,
    least_width: int = 512,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Image.Image:
    """A sheet of images, enlarged by a whole factor when they are small.

    Args:
        images: (N, C, H, W) in [-1, 1], C of 1 or 3.
        columns: 0 for a square sheet.
        gap: pixels between tiles and around the sheet. least_width: of the sheet, in pixels.
        titles: text above the columns, one each, or none. captions: text below the tiles, one each, or none.
            Text that is too long for a tile is cut, and ends in an ellipsis; tiles with text have a width of at
            least :data:`LABELLED_WIDTH`.
    """
    tiles = to_uint8(images)
    count, height, width, channels = tiles.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    scale = max(1, -(-least_width // (columns * (width + gap))))
    if titles or captions:
        scale = max(scale, -(-LABELLED_WIDTH // width))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    above, below = (LINE if titles else 0), (LINE + 2 * gap if captions else 0)  # nearer to its own tile
    pitch = height + below + gap
    sheet = np.full((above + rows * pitch + gap, columns * (width + gap) + gap, 3), BACKGROUND, dtype=np.uint8)
    corners = [
        (gap + (index % columns) * (width + gap), above + gap + (index // columns) * pitch)
        for index in range(count)
    ]
    for tile, (left, top) in zip(tiles, corners, strict=True):
        sheet[top : top + height, left : left + width] = tile if channels == 3 else tile.repeat(3, axis=2)
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for text, (left, _) in zip(titles, corners, strict=False):
        write(draw, text, left, gap, width)
    for text, (left, top) in zip(captions, corners, strict=False):
        write(draw, text, left, top + height, width)
    return picture


def write(draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int) -> None:
    """A line of text in the middle of ``width`` pixels, cut with an ellipsis where it is longer."""
    font = _font_for(text)
    fits = text
    while fits and font.getlength(fits if fits == text else f"{fits}…") > width:
        fits = fits[:-1]
    shown = fits if fits == text else f"{fits.rstrip()}…"
    draw.text((left + (width - font.getlength(shown)) / 2, top + LINE / 2), shown, INK, font, anchor="lm")


def class_titles(names: Sequence[str], labels: Iterable[int]) -> list[str]:
    """What to write for each label: its name, without accents where no font here has them, else ``class 3``."""
    return [_title(names[label].strip() if label < len(names) else "", label) for label in labels]


def _title(name: str, label: int) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    drawable = (text for text in (name, plain) if text and _can_draw(_font_for(text), text))
    return next(drawable, f"class {label}")


@functools.cache
def _font_for(text: str) -> ImageFont.FreeTypeFont:
    """The first font that has all characters: Pillow's own, which is everywhere, then those of the system."""
    own = ImageFont.load_default(TEXT_SIZE)
    assert isinstance(own, ImageFont.FreeTypeFont)
    if _can_draw(own, text):
        return own
    for name in OTHER_FONTS:
        with contextlib.suppress(OSError):
            font = ImageFont.truetype(name, TEXT_SIZE)
            if _can_draw(font, text):
                return font
    return own


def _can_draw(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask("\U0010ffff"))
    return not any(
        bytes(font.getmask(character)) == missing for character in set(text) if not character.isspace()
    )


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
