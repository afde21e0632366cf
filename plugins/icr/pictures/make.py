"""Draw ``icr.png``: T of an image, neighbours in the latents, and what consistency does to D's answers.

``python make.py [FOLDER]``. Deterministic; it trains two small pairs of networks for a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from gancore.testing import run_steps, tiny_session
from gancore_icr import functional

WIDTH = 900
INK, GREY, BLUE, ORANGE = "#222222", "#8a8a8a", "#2f6fb0", "#d9772b"
STEPS = 200
SIGMA = 0.03
SHIFTS = range(-2, 3)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def flower() -> torch.Tensor:
    """(3, 64, 64) in [-1, 1], a piece of scikit-learn's sample image."""
    photo = Image.fromarray(load_sample_image("flower.jpg")).crop((150, 0, 570, 420)).resize((64, 64))
    return torch.from_numpy(np.asarray(photo, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def as_picture(image: torch.Tensor, size: int) -> Image.Image:
    """(C, H, W) in [-1, 1] as pixels that can be counted."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    pixels = pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)


def trained(plugins: list[str]) -> tuple:
    """D, G and reals of a short run on digits."""
    overrides = {
        "network.g_width": 8,
        "network.d_width": 8,
        "network.latent_dim": 16,
        "train.batch": 16,
        "train.steps": STEPS,
        "optimizer.g.lr": 1e-3,
        "optimizer.d.lr": 1e-3,
        "compute.threads": 1,
        "compute.device": "cpu",
    }
    session = run_steps(tiny_session(plugins, overrides), STEPS)
    reals, _ = session.loader.batch("d", 0, 16)
    session.close()
    return session.trainer.discriminator.eval(), session.trainer.generator.eval(), reals


def answers(d: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """D's logits at every shift to the right, (images, shifts)."""
    columns = []
    with torch.no_grad():
        for right in SHIFTS:
            shift = torch.tensor([[0, right]]).expand(len(images), 2)
            moved = functional.change(images, functional.Change(None, shift))
            columns.append(d.head(d.features(moved, None), None).numpy())
    return np.stack(columns, 1)


def draw_t(canvas: ImageDraw.ImageDraw, sheet: Image.Image, top: int) -> None:
    size, image = 118, flower()
    examples = [(False, 0, 0), (False, 8, -8), (True, 0, 0), (True, -6, 3), (False, -3, 7), (True, 5, 8)]
    flips = torch.tensor([flip for flip, *_ in examples])
    shifts = torch.tensor([shift for _, *shift in examples])
    changed = functional.change(image.expand(len(examples), -1, -1, -1), functional.Change(flips, shifts))
    for i, (flip, down, right) in enumerate(examples):
        left = 40 + i * 142
        sheet.paste(as_picture(changed[i], size), (left, top))
        moves = [f"{abs(down)} {'down' if down > 0 else 'up'}"] if down else []
        moves += [f"{abs(right)} {'right' if right > 0 else 'left'}"] if right else []
        text = ", ".join((["flip"] if flip else []) + moves) or "x"
        canvas.text((left + size / 2, top + size + 6), text, INK, font(13), "ma")


def draw_neighbours(canvas: ImageDraw.ImageDraw, sheet: Image.Image, g: torch.nn.Module, top: int) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(5, 16, generator=generator)
    near = functional.near_latents(z, torch.randn(5, 16, generator=generator), SIGMA)
    with torch.no_grad():
        images = g(torch.cat([z, near]), None)
    base, moved = images[:5], images[5:]
    rows = {"G(z)": base, "G(z')": moved, "difference\ntimes 10": (moved - base) * 10}
    for row, (text, values) in enumerate(rows.items()):
        y = top + row * 74
        canvas.multiline_text((108, y + 34), text, INK, font(13), "rm", align="right")
        for i, image in enumerate(values):
            sheet.paste(as_picture(image, 68), (120 + i * 74, y))


def draw_answers(canvas: ImageDraw.ImageDraw, curves: dict[str, np.ndarray], left: int, top: int) -> None:
    """One line an image: how far D's answer moves from that at no shift."""
    width, height = 168, 190
    most = max(float(np.abs(v - v[:, 2:3]).max()) for v in curves.values()) * 1.05
    for panel, (text, values) in enumerate(curves.items()):
        x0 = left + panel * (width + 24)
        canvas.rectangle((x0, top, x0 + width, top + height), outline=GREY)
        canvas.line((x0, top + height / 2, x0 + width, top + height / 2), GREY)
        for row in values - values[:, 2:3]:
            points = [
                (x0 + 12 + i * (width - 24) / 4, top + height / 2 * (1 - value / most))
                for i, value in enumerate(row)
            ]
            canvas.line(points, BLUE if panel else ORANGE, 2, joint="curve")
        for i, shift in enumerate(SHIFTS):
            canvas.text((x0 + 12 + i * (width - 24) / 4, top + height + 4), f"{shift:+d}", INK, font(12), "ma")
        canvas.text((x0 + width / 2, top - 6), text, INK, font(13), "md")
    for value in (-1, 0, 1):
        y = top + height / 2 * (1 - value * 0.9)
        canvas.text((left - 6, y), f"{value * 0.9 * most:+.1f}" if value else "0", INK, font(12), "rm")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    plain_d, _, reals = trained([])
    icr_d, icr_g, _ = trained(["icr"])
    sheet = Image.new("RGB", (WIDTH, 500), "white")
    canvas = ImageDraw.Draw(sheet)
    canvas.text(
        (40, 12), "bCR: T flips and shifts. What enters at the border is the mirrored image.", INK, font(15)
    )
    draw_t(canvas, sheet, 40)
    canvas.text((40, 200), "zCR: neighbouring latents", INK, font(15))
    draw_neighbours(canvas, sheet, icr_g, 232)
    canvas.text((525, 200), "D's answer to a real as the real is shifted", INK, font(15))
    curves = {"without": answers(plain_d, reals), "with icr": answers(icr_d, reals)}
    draw_answers(canvas, curves, 525, 252)
    canvas.text((705, 470), "pixels to the right; change of the logit, one line a digit", INK, font(12), "ma")
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "icr.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
