"""Draw kdd.png: what the KDD loss does to fake points in a plane, beside the hinge loss of a linear D.

``python make.py [FOLDER]``. The toy of the paper's appendix A: two real modes, a square of fakes, a Gaussian
kernel with sigma 1, features not normalised, G's loss alone, SGD with rate 10 for 1000 points a side, 200 steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gancore_kdd.functional import hinge, log_density

COUNT, STEPS = 300, 200
RATE = 10 * COUNT / 1000
"""The gradient of a mean is divided by the number of points: this moves each of them as in the paper."""

SCALE = 2
"""Drawn at twice the size, for smooth edges."""

PANEL, GAP, TOP, RIGHT = 300 * SCALE, 12 * SCALE, 62 * SCALE, 78 * SCALE
EXTENT = (-4.2, 4.2, -3.6, 4.8)
REAL, FAKE, LINE, TRACK = (20, 80, 160), (226, 110, 0), (20, 140, 60), (90, 90, 90)
MOST = 6.0


def log_ratio(points: Tensor, real: Tensor, fake: Tensor, *, of_fakes: bool = False) -> Tensor:
    """r at some points; ``of_fakes`` when they are the fakes themselves."""
    return log_density(points, real, kernel="gaussian") - log_density(
        points, fake, kernel="gaussian", leave_out=of_fakes
    )


def kdd_path(real: Tensor, fake: Tensor) -> list[Tensor]:
    """Where the fakes are before each step of G's KDD loss, and at the end."""
    path = [fake]
    for _ in range(STEPS):
        moving = path[-1].clone().requires_grad_()
        loss = -log_ratio(moving, real, moving, of_fakes=True).mean()
        (gradient,) = torch.autograd.grad(loss, moving)
        path.append(path[-1] - RATE * gradient)
    return path


def linear_discriminator(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The best linear D for the start, by gradient descent on the hinge loss."""
    weight, bias = torch.zeros(2, requires_grad=True), torch.zeros((), requires_grad=True)
    for _ in range(2000):
        loss = hinge(real @ weight + bias, fake @ weight + bias)
        slope_w, slope_b = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            weight -= 0.02 * slope_w
            bias -= 0.02 * slope_b
    return weight.detach(), bias.detach()


def shaded(real: Tensor, fake: Tensor) -> Image.Image:
    """The map of r over a panel."""
    left, right, bottom, top = EXTENT
    across, down = torch.linspace(left, right, 150), torch.linspace(top, bottom, 150)
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 2)
    ratio = log_ratio(grid, real, fake).reshape(150, 150)
    return Image.fromarray(colours(ratio.numpy())).resize((PANEL, PANEL), Image.Resampling.BICUBIC)


def colours(ratio: np.ndarray) -> np.ndarray:
    """Blue where r > 0, orange where r < 0, white at 0; uint8, (…, 3)."""
    share = np.clip(np.abs(ratio) / MOST, 0, 1)[..., None] * 0.6
    target = np.where(ratio[..., None] > 0, np.array(REAL), np.array(FAKE))
    return (255 + share * (target - 255)).round().astype(np.uint8)


def place(points: Tensor, left: int) -> list[tuple[float, float]]:
    """Pixels of points of the plane, in the panel that begins at ``left``."""
    x0, x1, y0, y1 = EXTENT
    across = left + (points[:, 0] - x0) / (x1 - x0) * PANEL
    down = TOP + (y1 - points[:, 1]) / (y1 - y0) * PANEL
    return list(zip(across.tolist(), down.tolist(), strict=True))


def dots(pen: ImageDraw.ImageDraw, points: Tensor, left: int, colour: tuple[int, int, int]) -> None:
    radius = 2 * SCALE
    for x, y in place(points, left):
        if left <= x <= left + PANEL and TOP <= y <= TOP + PANEL:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")


def main(folder: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[-2.0, 1.0], [2.0, 1.0]])
    real = centres.repeat(COUNT // 2, 1) + 0.4 * torch.randn(COUNT, 2, generator=generator)
    start = 2 * torch.rand(COUNT, 2, generator=generator) + torch.tensor([-1.0, -3.0])
    path = kdd_path(real, start)
    weight, bias = linear_discriminator(real, start)
    shift = RATE * STEPS / COUNT * weight
    font, small = ImageFont.load_default(15 * SCALE), ImageFont.load_default(13 * SCALE)
    width = 3 * PANEL + 4 * GAP + RIGHT
    image = Image.new("RGB", (width, TOP + PANEL + GAP), "white")
    pen = ImageDraw.Draw(image)
    panels = (
        ("Before", "reals: two modes; fakes: a square", start),
        ("Hinge loss, linear D", "every fake moves alike, between the modes", start + shift),
        ("KDD loss", "each fake goes to a mode and stays", path[-1]),
    )
    for index, (title, below, fake) in enumerate(panels):
        left = GAP + index * (PANEL + GAP)
        pen.text((left, 10 * SCALE), title, fill="black", font=font)
        pen.text((left, 34 * SCALE), below, fill="black", font=small)
        if index != 1:
            image.paste(shaded(real, fake), (left, TOP))
        if index == 1:
            ends = torch.tensor(EXTENT[:2])
            line = torch.stack((ends, -(bias + weight[0] * ends) / weight[1]), 1)
            pen.line(place(line, left), fill=LINE, width=2 * SCALE)
            at = place(line[:1], left)[0]
            pen.text((at[0] + 6 * SCALE, at[1] + 3 * SCALE), "D(x) = 0", fill=LINE, font=small)
        tracks = torch.stack([start, start + shift] if index == 1 else path)[:, :40]
        for track in tracks.unbind(1) if index else ():
            pen.line(place(track, left), fill=TRACK, width=SCALE)
        dots(pen, real, left, REAL)
        dots(pen, fake, left, FAKE)
        pen.rectangle((left, TOP, left + PANEL, TOP + PANEL), outline=(150, 150, 150), width=SCALE)
    for row, (name, colour) in enumerate((("real", REAL), ("fake", FAKE))):
        x, y = GAP + 12 * SCALE, TOP + (14 + 20 * row) * SCALE
        pen.ellipse((x - 4 * SCALE, y - 4 * SCALE, x + 4 * SCALE, y + 4 * SCALE), fill=colour)
        pen.text((x + 10 * SCALE, y - 8 * SCALE), name, fill="black", font=small)
    scale_bar(image, pen, GAP + 3 * (PANEL + GAP), small)
    image = image.resize((width // SCALE, image.height // SCALE), Image.Resampling.LANCZOS)
    image.quantize(256, dither=Image.Dither.NONE).save(folder / "kdd.png", optimize=True)


def scale_bar(image: Image.Image, pen: ImageDraw.ImageDraw, left: int, font: ImageFont.ImageFont) -> None:
    """What the colours of the maps mean."""
    top, height, width = TOP + 60 * SCALE, PANEL - 120 * SCALE, 16 * SCALE
    values = np.linspace(MOST, -MOST, height)[:, None].repeat(width, 1)
    image.paste(Image.fromarray(colours(values)), (left, top))
    pen.rectangle((left, top, left + width, top + height), outline=(150, 150, 150))
    for share, text in ((0, f"{MOST:g}"), (0.5, "0"), (1, f"-{MOST:g}")):
        pen.text((left + width + 5 * SCALE, top + share * height - 8 * SCALE), text, fill="black", font=font)
    pen.text((left, top - 42 * SCALE), "log-ratio", fill="black", font=font)
    pen.text((left, top - 24 * SCALE), "r(x)", fill="black", font=font)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
