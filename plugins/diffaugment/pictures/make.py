"""Draw what DiffAugment does to an image: ``python make.py [folder]``. Needs no more than gancore does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from gancore_diffaugment.functional import Strengths, augment, draw

SIZE, SHOWN, COLUMNS, GAP = 64, 108, 8, 5
PLUS = Strengths(translation=0.25, cutout=0.75)
ONE = [
    ("original", "", {}),
    ("brightness\nr = 0", "brightness", {"brightness": 0.0}),
    ("brightness\nr = 0.99", "brightness", {"brightness": 0.99}),
    ("saturation\nr = 0", "saturation", {"saturation": 0.0}),
    ("saturation\nr = 0.99", "saturation", {"saturation": 0.99}),
    ("contrast\nr = 0", "contrast", {"contrast": 0.0}),
    ("translation\nby (8, 8)", "translation", {"translation": [8, 8]}),
    ("cutout\nat (20, 40)", "cutout", {"cutout": [20, 40]}),
]
ROWS = [
    ("the default, policy = color,translation,cutout: every image has a draw of its own", "", Strengths()),
    (
        "policy = cutout,translation,color: what was erased is coloured too",
        "cutout,translation,color",
        Strengths(),
    ),
    ("policy = translation,cutout", "translation,cutout", Strengths()),
    ("the first draws with the strengths translation = 0.25, cutout = 0.75", "", PLUS),
]


def photograph() -> torch.Tensor:
    """(1, 3, 64, 64) in [-1, 1]: the middle of a photograph."""
    picture = Image.fromarray(load_sample_image("flower.jpg")).crop((130, 20, 530, 420))
    pixels = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def shown(image: torch.Tensor) -> Image.Image:
    """One image (3, H, W) as D gets it; values outside [-1, 1] are clipped for the eye."""
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)


def main(folder: Path) -> None:
    image, step = photograph(), SHOWN + GAP
    first, other = 36, 24  # height of the titles of the first row and of the others
    height = first + step + len(ROWS) * (other + step)
    canvas = Image.new("RGB", (COLUMNS * step - GAP, height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, (title, policy, values) in enumerate(ONE):
        one = augment(image, {name: torch.tensor([value]) for name, value in values.items()}, policy)
        pen.multiline_text(
            (column * step + SHOWN / 2, 2), title, "black", font, anchor="ma", align="center", spacing=2
        )
        canvas.paste(shown(one[0]), (column * step, first))
    y = first + step
    for row, (title, policy, strengths) in enumerate(ROWS):
        policy = policy or "color,translation,cutout"
        generator = torch.Generator().manual_seed(row % 3)  # the last row has the generator of the first
        drawn = draw(generator, COLUMNS, (3, SIZE, SIZE), policy, strengths)
        pen.text((0, y + 4), title, "black", font)
        for column, one in enumerate(augment(image.expand(COLUMNS, -1, -1, -1), drawn, policy, strengths)):
            canvas.paste(shown(one), (column * step, y + other))
        y += other + step
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "diffaugment.png"
    canvas.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
