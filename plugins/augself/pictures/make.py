"""Train a little on digits and draw what the heads say of reals and of fakes: ``python make.py [folder]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from gancore.testing import run_steps, tiny_session

STEPS, BATCHES = 25, 8
PANELS = [
    ("color", 0, "brightness"),
    ("translation", 0, "shift of the rows"),
    ("cutout", 1, "column of the cutout"),
]
COLOURS = {"real": (31, 119, 180), "fake": (217, 95, 2)}
SCALE = 2  # drawn at twice the size, for smooth edges
WIDTH, HEIGHT, LEFT, TOP = 262 * SCALE, 250 * SCALE, 34 * SCALE, 28 * SCALE
REACH = 1.4
CONFIG = {
    "network.g_width": 16,
    "network.d_width": 16,
    "train.batch": 32,
    "train.steps": STEPS,
    "train.n_critic": 10,
    "optimizer.d.lr": 3e-3,
    "compute.device": "cpu",
    "compute.threads": 1,
}


Found = dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]


def predictions() -> Found:
    """Side -> head -> (predicted, w), both (N, K), of batches after the training."""
    session = run_steps(tiny_session(["augself"], CONFIG), STEPS)
    trainer, method = session.trainer, session.manager.methods["augself"]
    found: dict[str, dict[str, list[tuple[torch.Tensor, torch.Tensor]]]] = {"real": {}, "fake": {}}
    for critic in range(BATCHES):
        step = trainer.new_step(trainer.plan.full_program("d"), critic)
        trainer.loss(step)
        step.caller = "augself"
        for side, heads in found.items():
            for word, pair in method.predictions(step, side).items():
                heads.setdefault(word, []).append(pair)
    session.close()
    return {
        side: {
            word: (torch.cat([p.detach() for p, _ in pairs]), torch.cat([w for _, w in pairs]))
            for word, pairs in heads.items()
        }
        for side, heads in found.items()
    }


def panel(pen: ImageDraw.ImageDraw, left: int, title: str, word: str, index: int, found: Found) -> None:
    """One scatter: w to the right, the prediction upwards from -REACH to REACH."""
    big, small = (ImageFont.load_default(size * SCALE) for size in (14, 12))

    def at(w: float, p: float) -> tuple[float, float]:
        return left + w * WIDTH, TOP + (1 - max(min(p / REACH, 1), -1)) * HEIGHT / 2

    pen.text((left + WIDTH / 2, TOP - 8 * SCALE), title, "black", big, anchor="ms")
    for value in (-1, 0, 1):
        pen.line([at(0, value), at(1, value)], "#dddddd" if value else "#999999", SCALE)
        pen.text((left - 6 * SCALE, at(0, value)[1]), f"{value}", "#555555", small, anchor="rm")
    for value in (0, 1):
        pen.text((at(value, 0)[0], TOP + HEIGHT + 4 * SCALE), f"{value}", "#555555", small, anchor="ma")
    pen.text((left + WIDTH / 2, TOP + HEIGHT + 4 * SCALE), "true w", "black", small, anchor="ma")
    pen.rectangle([left, TOP, left + WIDTH, TOP + HEIGHT], outline="#999999", width=SCALE)
    generator = torch.Generator().manual_seed(0)
    for side, sign in (("real", 1), ("fake", -1)):
        predicted, w = (values[:, index] for values in found[side][word])
        apart = w * 0.96 + 0.02 + 0.03 * (torch.rand(w.shape, generator=generator) - 0.5)
        for x, y in zip(apart.tolist(), predicted.tolist(), strict=True):
            centre = at(x, y)
            pen.circle(centre, 2 * SCALE, fill=(*COLOURS[side], 110))
        pen.line([at(0.02, 0), at(0.98, sign)], (*COLOURS[side], 255), 2 * SCALE)


def main(folder: Path) -> None:
    found = predictions()
    size = (len(PANELS) * (WIDTH + LEFT) + 8 * SCALE, TOP + HEIGHT + 56 * SCALE)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas, "RGBA")
    for number, (word, index, title) in enumerate(PANELS):
        panel(pen, LEFT + number * (WIDTH + LEFT), title, word, index, found)
    font, y = ImageFont.load_default(13 * SCALE), size[1] - 14 * SCALE
    legend = [
        ("real", "real images: what D predicts, and the target w"),
        ("fake", "fake images: the same, target -w"),
    ]
    for (side, text), x in zip(legend, (LEFT, size[0] * 0.56), strict=True):
        pen.circle((x, y), 4 * SCALE, fill=COLOURS[side])
        pen.text((x + 10 * SCALE, y), text, "black", font, anchor="lm")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "augself.png"
    canvas = canvas.resize((size[0] // SCALE, size[1] // SCALE), Image.Resampling.LANCZOS)
    canvas.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
