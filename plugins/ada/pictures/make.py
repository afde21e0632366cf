"""Draw ``ada.png``: each group of ops at p = 1, and the pipe bgc at growing p, on a photo and on a digit.

``python plugins/ada/pictures/make.py [FOLDER]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

from gancore_ada import functional
from gancore_ada.options import GROUPS, AdaOptions

TILE, COLUMNS, LABEL, GAP = 64, 9, 200, 6
TITLES = {
    "blit": "blit: flips, quarter turns,\nwhole shifts",
    "geom": "geom: scale, rotation,\nstretch, shift",
    "color": "color: brightness, contrast,\nluma flip, hue, saturation",
    "filter": "filter: octave bands\nup or down",
    "noise": "noise",
    "cutout": "cutout",
}


def photo() -> Tensor:
    """(1, 3, 64, 64) in [-1, 1]: the flower of scikit-learn, a photograph by vultilion (CC BY 2.0)."""
    picture = Image.fromarray(load_sample_image("flower.jpg")).crop((110, 0, 537, 427))
    data = torch.frombuffer(
        bytearray(picture.resize((TILE, TILE), Image.Resampling.LANCZOS).tobytes()), dtype=torch.uint8
    )
    return data.reshape(1, TILE, TILE, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def digit() -> Tensor:
    """(1, 1, 32, 32) in [-1, 1]: a 5 of scikit-learn's digits."""
    small = torch.tensor(load_digits().images[5]).float()[None, None] / 8 - 1
    return torch.nn.functional.interpolate(small, size=(32, 32), mode="bicubic").clamp(-1, 1)


def tiles(image: Tensor, p: float, pipe: str, seed: int) -> list[Image.Image]:
    """The image, and what becomes of it in eight draws."""
    multipliers = AdaOptions(**AdaOptions.presets[pipe]).multipliers()
    generator = torch.Generator().manual_seed(seed)
    augmented = functional.augment(image.repeat(COLUMNS - 1, 1, 1, 1), p, multipliers, generator=generator)
    rows = torch.cat((image, augmented)).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    pictures = [Image.fromarray(row.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()) for row in rows]
    return [picture.resize((TILE, TILE), Image.Resampling.NEAREST) for picture in pictures]


def draw(folder: Path) -> Path:
    """Write the picture into ``folder``."""
    rows = [(TITLES[group], photo(), 1.0, group) for group in GROUPS]
    rows.append(("blit, geom, color\nof a grey image", digit(), 1.0, "bgc"))
    rows += [(f"bgc at p = {p}", image, p, "bgc") for p in (0.2, 0.5, 0.8) for image in (photo(), digit())]
    font, bold = ImageFont.load_default(15), ImageFont.load_default(17)
    headings = {0: "One group, p = 1", 7: "The default pipe, each op with probability p"}
    height = GAP + sum(TILE + GAP for _ in rows) + 34 * len(headings)
    canvas = Image.new("RGB", (LABEL + COLUMNS * (TILE + GAP) + GAP + 8, height), "white")
    pen = ImageDraw.Draw(canvas)
    top = GAP
    for index, (title, image, p, pipe) in enumerate(rows):
        if index in headings:
            pen.text((GAP, top + 6), headings[index], "black", bold)
            if index == 0:
                pen.text((LABEL, top + 8), "image", "black", font)
                pen.text((LABEL + TILE + GAP + 8, top + 8), "eight draws", "black", font)
            top += 34
        shown = title if image.shape[1] == 3 or p == 1 else ""
        pen.multiline_text((GAP, top + 8), shown, "black", font, spacing=3)
        for column, tile in enumerate(tiles(image, p, pipe, seed=3 + index)):
            canvas.paste(tile, (LABEL + column * (TILE + GAP) + (8 if column else 0), top))
        top += TILE + GAP
    path = folder / "ada.png"
    canvas.quantize(255, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    return path


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
