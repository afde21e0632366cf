from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from gancore import pictures
from gancore.pictures import BACKGROUND, LABELLED_WIDTH, LINE


def images(count: int, channels: int, size: int) -> torch.Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1


def slow_grid(tiles: torch.Tensor, columns: int, scale: int, gap: int, above: int, below: int) -> np.ndarray:
    """The sheet without its text, pixel by pixel."""
    count, channels, height, width = tiles.shape
    rows = -(-count // columns)
    sheet = np.full(
        (above + gap + rows * (height * scale + below + gap), gap + columns * (width * scale + gap), 3),
        BACKGROUND,
    )
    for index, channel, y, x in np.ndindex(count, 3, height * scale, width * scale):
        value = float(tiles[index, min(channel, channels - 1), y // scale, x // scale])
        row, column = divmod(index, columns)
        top = above + gap + row * (height * scale + below + gap) + y
        sheet[top, gap + column * (width * scale + gap) + x, channel] = round((value + 1) * 127.5)
    return sheet


@pytest.mark.parametrize(("channels", "count", "columns", "gap"), [(1, 5, 3, 2), (3, 4, 0, 1), (3, 1, 1, 0)])
def test_grid(channels, count, columns, gap):
    tiles = images(count, channels, 4)
    sheet = np.array(pictures.grid(tiles, columns, gap=gap, least_width=2 * (columns or 2) * (4 + gap)))
    np.testing.assert_array_equal(sheet, slow_grid(tiles, columns or 2, 2, gap, 0, 0))


def test_text_leaves_the_tiles_alone():
    tiles = images(5, 3, 8)
    titles, captions = ["one", "two", "three"], [f"seed {k}" for k in range(5)]
    sheet = np.array(pictures.grid(tiles, 3, titles=titles, captions=captions, least_width=1))
    bare = slow_grid(tiles, 3, LABELLED_WIDTH // 8, 2, LINE, LINE + 4)
    assert sheet.shape == bare.shape
    written = (sheet != bare).any(axis=2)
    tile, pitch = LABELLED_WIDTH, LABELLED_WIDTH + LINE + 6
    for index in range(6):
        row, column = divmod(index, 3)
        left, top = 2 + column * (tile + 2), LINE + 2 + row * pitch
        assert not written[top : top + tile, left : left + tile].any()
        below = written[top + tile : top + tile + LINE, left : left + tile]
        assert below.any() == (index < 5)
        assert written[: LINE + 2, left : left + tile].any()
    assert not written[:, [0, 1, 68, 69, 134, 135]].any()  # between columns


@pytest.mark.parametrize("text", ["automobile and more than that", "W" * 40, "é" * 40, "кошка " * 9, "日本" * 20])
def test_long_text_is_cut_to_its_tile(text):
    picture = Image.new("RGB", (200, LINE), (0, 0, 0))
    pictures.write(ImageDraw.Draw(picture), text, 60, 0, 80)
    left, top, right, bottom = picture.getbbox()
    assert left >= 60
    assert right <= 140
    assert top > 0
    assert bottom < LINE
    assert right - left > 50


def test_text_that_fits_is_written_in_the_middle_and_whole():
    picture = Image.new("RGB", (200, LINE), (0, 0, 0))
    pictures.write(ImageDraw.Draw(picture), "cat", 60, 0, 80)
    left, _, right, _ = picture.getbbox()
    assert abs((left + right) / 2 - 100) <= 1
    cut = Image.new("RGB", (200, LINE), (0, 0, 0))
    pictures.write(ImageDraw.Draw(cut), "cat", 90, 0, 18)
    assert cut.getbbox() is not None
    assert cut.tobytes() != picture.tobytes()


def test_class_titles(monkeypatch):
    monkeypatch.setattr(pictures, "OTHER_FONTS", ())
    pictures._font_for.cache_clear()
    names = ["cat", "naïve", "日本", "", " ", "автомобиль"]
    assert pictures.class_titles(names, [0, 1, 2, 3, 4, 5, 6]) == [
        "cat",
        "naive",
        "class 2",
        "class 3",
        "class 4",
        "class 5",
        "class 6",
    ]
    pictures._font_for.cache_clear()
