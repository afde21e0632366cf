"""Draw ``cnlsgan.png``: fakes of short runs on digits as the weight of the reconstruction term grows.

``python make.py [FOLDER]``. Deterministic; it trains three small pairs of networks for a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from gancore.testing import run_steps, tiny_session

WIDTH, INK, GREY = 900, "#222222", "#8a8a8a"
WEIGHTS = (0.1, 10.0, 100.0)
STEPS = 160
COUNT = 64
SHOWN = 8
SIZE, GAP, LEFT = 72, 4, 150


def run_of(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Fakes and reals after a short run, (64, 1, 16, 16) each."""
    overrides = {
        "network.d_norm": "none",
        "network.g_width": 12,
        "network.d_width": 12,
        "network.latent_dim": 16,
        "train.batch": 16,
        "train.steps": STEPS,
        "optimizer.g.lr": 2e-3,
        "optimizer.d.lr": 2e-3,
        "cnlsgan.lambda_rec": weight,
        "cnlsgan.lambda_gp": 1.0,
        "compute.threads": 1,
        "compute.device": "cpu",
    }
    session = run_steps(tiny_session(["cnlsgan"], overrides), STEPS)
    reals, _ = session.loader.batch("d", 0, COUNT)
    session.close()
    z = torch.randn(COUNT, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return session.trainer.generator.eval()(z, None), reals


def as_picture(image: torch.Tensor) -> Image.Image:
    """(1, H, W) in [-1, 1] as pixels that can be counted."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0].numpy()
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rows: dict[str, torch.Tensor] = {}
    for weight in WEIGHTS:
        fakes, reals = run_of(weight)
        rows["data"] = reals
        rows[f"lambda_rec = {weight:g}"] = fakes
    sheet = Image.new("RGB", (WIDTH, 30 + len(rows) * (SIZE + GAP) + 6), "white")
    canvas = ImageDraw.Draw(sheet)
    text = ImageFont.load_default(14)
    mean_left = LEFT + SHOWN * (SIZE + GAP) + 14
    canvas.text((mean_left + SIZE / 2, 24), f"mean of {COUNT}", INK, text, "ms")
    spread = {name: float(images.var(0).mean().sqrt()) for name, images in rows.items()}
    for row, (name, images) in enumerate(rows.items()):
        top = 30 + row * (SIZE + GAP)
        canvas.text((LEFT - 12, top + SIZE / 2 - 9), name, INK, ImageFont.load_default(15), "rm")
        share = "spread 1" if name == "data" else f"spread {spread[name] / spread['data']:.2f}"
        canvas.text((LEFT - 12, top + SIZE / 2 + 11), share, GREY, text, "rm")
        for i, image in enumerate(images[:SHOWN]):
            sheet.paste(as_picture(image), (LEFT + i * (SIZE + GAP), top))
        sheet.paste(as_picture(images.mean(0)), (mean_left, top))
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "cnlsgan.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
