"""Draw ``adaptivemix.png``: mixed digits, and the way of D's features from one digit to the other.

``python make.py [FOLDER]``. Deterministic; it trains three small pairs of networks for a few seconds each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from gancore.testing import run_steps, tiny_session
from gancore_adaptivemix import functional

WIDTH, HEIGHT = 900, 488
INK, GREY, PALE, BLUE, ORANGE = "#222222", "#8a8a8a", "#dddddd", "#2f6fb0", "#d9772b"
RUNS = {
    "without adaptivemix": None,
    "-p adaptivemix (weight 1)": 1.0,
    "-p adaptivemix, weight 10": 10.0,
}
STEPS = 250
PAIRS, SHOWN = 24, (4, 1)
COARSE, FINE = 7, 25
FINER = 4


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def trained(weight: float | None, seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor]:
    """D after a short run on digits, and reals (2 PAIRS, 1, 16, 16) of the set."""
    overrides = {
        "network.g_width": 8,
        "network.d_width": 8,
        "network.latent_dim": 16,
        "train.batch": 8,
        "train.seed": seed,
        "train.steps": STEPS,
        "optimizer.g.lr": 1e-3,
        "optimizer.d.lr": 1e-3,
        "compute.threads": 1,
        "compute.device": "cpu",
    }
    if weight is not None:
        overrides["adaptivemix.weight"] = weight
    session = run_steps(tiny_session([] if weight is None else ["adaptivemix"], overrides), STEPS)
    reals, _ = session.loader.batch("d", 10**6, 2 * PAIRS)
    session.close()
    return session.trainer.discriminator.eval(), reals


def mixes(reals: torch.Tensor, count: int) -> list[torch.Tensor]:
    """x^ of the pairs (i, i + PAIRS) for lambda from 1 to 0, (PAIRS, 1, 16, 16) each."""
    partner = torch.arange(2 * PAIRS).roll(-PAIRS)
    lams = torch.linspace(1, 0, count)
    return [functional.mix(reals, partner, lam)[:PAIRS] for lam in lams]


def ways(d: torch.nn.Module, reals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far F(x^) is along and beside the straight line from F(x_i) to F(x_j); (PAIRS, FINE) each."""
    with torch.no_grad():
        features = [d.features(images, None)["trunk"].flatten(1) for images in mixes(reals, FINE)]
    start, line = features[0], features[-1] - features[0]
    direction = line / line.norm(dim=1, keepdim=True)
    along = torch.stack([((f - start) * direction).sum(1) for f in features], 1)
    beside = [((f - start) - a[:, None] * direction).norm(dim=1) for f, a in zip(features, along.T, strict=True)]
    return along, torch.stack(beside, 1)


def numbers(along: torch.Tensor, beside: torch.Tensor) -> tuple[float, float]:
    """Means over pairs: the distance of both ends, and that of F(x^) from its target half way."""
    middle = FINE // 2
    off = ((along[:, middle] - along[:, -1] / 2).square() + beside[:, middle].square()).sqrt()
    return float(along[:, -1].mean()), float(off.mean())


def as_picture(image: torch.Tensor, size: int) -> Image.Image:
    """(1, H, W) in [-1, 1] as pixels that can be counted."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0].numpy()
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)


def draw_mixes(canvas: ImageDraw.ImageDraw, sheet: Image.Image, reals: torch.Tensor, top: int) -> None:
    size, step, left = 72, 84, 172
    for column, images in enumerate(mixes(reals, COARSE)):
        x = left + column * step
        lam = 1 - column / (COARSE - 1)
        name = {0: "x_i", COARSE - 1: "x_j"}.get(column, f"lambda {lam:.2f}")
        canvas.text((x + size / 2, top - 5), name, INK, font(13), "ms")
        for row, pair in enumerate(SHOWN):
            sheet.paste(as_picture(images[pair], size), (x, top + row * (size + 6)))


def draw_ways(
    sheet: Image.Image, found: tuple[torch.Tensor, torch.Tensor], box: tuple[int, ...], scale: float
) -> None:
    """One arch a pair, on a canvas that is finer than the sheet; the first pair that is shown stands out."""
    left, top, width, height = box
    panel = Image.new("RGB", (width * FINER, height * FINER), "white")
    canvas = ImageDraw.Draw(panel)
    along, beside = found

    def place(a: float, b: float) -> tuple[float, float]:
        return (12 + a * scale) * FINER, (height - 14 - b * scale) * FINER

    def points(pair: int) -> list[tuple[float, float]]:
        return [place(float(a), float(b)) for a, b in zip(along[pair], beside[pair], strict=True)]

    for pair in range(PAIRS):
        canvas.line(points(pair), "#a9c4e0", FINER, joint="curve")
    canvas.line((place(0, 0), place((width - 20) / scale, 0)), GREY, FINER)
    marked = points(SHOWN[0])
    length = float(along[SHOWN[0], -1])
    for i in range(0, FINE, (FINE - 1) // (COARSE - 1)):
        target = place(length * i / (FINE - 1), 0)
        canvas.line((marked[i], target), ORANGE, FINER)
        canvas.circle(target, 3 * FINER, fill=ORANGE)
    canvas.line(marked, BLUE, 2 * FINER, joint="curve")
    for i in range(0, FINE, (FINE - 1) // (COARSE - 1)):
        canvas.circle(marked[i], 3.4 * FINER, fill=BLUE)
    sheet.paste(panel.resize((width, height), Image.Resampling.LANCZOS), (left, top))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    results = {}
    for text, weight in RUNS.items():
        d, reals = trained(weight)
        results[text] = ways(d, reals)
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(sheet)
    canvas.text((30, 12), "Two images of a batch, mixed: lambda x_i + (1 - lambda) x_j", INK, font(15))
    draw_mixes(canvas, sheet, reals, 56)
    canvas.text((30, 224), "D's features on the way from x_i to x_j", INK, font(15))
    canvas.circle((340, 234), 4, fill=BLUE)
    canvas.text((350, 234), "F of the mix", INK, font(13), "lm")
    canvas.circle((450, 234), 4, fill=ORANGE)
    canvas.text((460, 234), "mix of F: the target, on the straight line", INK, font(13), "lm")
    canvas.text((870, 234), "one scale for all", GREY, font(13), "rm")
    widest = max(float(along.max()) for along, _ in results.values())
    width, height = 276, 148
    scale = (width - 30) / widest
    for i, (text, found) in enumerate(results.items()):
        left = 28 + i * (width + 9)
        canvas.text((left + 12, 262), text, INK, font(14), "lt")
        draw_ways(sheet, found, (left, 284, width, height), scale)
        far, off = numbers(*found)
        canvas.text((left + 12, 436), f"from F(x_i) to F(x_j): {far:.1f}", INK, font(13))
        canvas.text((left + 12, 456), f"off the target at lambda 1/2: {off:.2f}", INK, font(13))
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "adaptivemix.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
