"""ADA's bgc pipe, forward and backward: the fused path, our reference, and one that pads as a batch needs.

The last is the usual way, written here in plain torch: as much reflection as the farthest corner of the batch
asks for, a convolution an axis to sample up, ``affine_grid`` and ``grid_sample``, a convolution an axis to sample
down, one matrix of colour; autograd does the rest. It computes what our reference does, but for the tail of the
filter at the border of a strongly shrunk image, which is checked first.

One thread, CPU time. "times faster" is baseline / fused, round by round. With draws: parameters and matrices are
part of a call, op by op for the baselines.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from timing import machine, paired, show
from torch import Tensor

from gancore.ops import build, using
from gancore_ada import functional as ada
from gancore_ada.library import LIBRARY
from gancore_ada.options import AdaOptions

MULTIPLIERS = AdaOptions().multipliers()
P = 0.6
TAPS = torch.tensor(ada.SYM6) / math.fsum(ada.SYM6)
SUPPORT = len(ada.SYM6) // 4


def padded(images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
    """Geometry and colour, with as much reflection as the batch needs."""
    batch, channels, height, width = images.shape
    inverse = draw["geometry"]
    left, right, top, bottom = margins(inverse, height, width)
    wide = F.pad(images, (left, right, top, bottom), mode="reflect")
    for axis in (2, 3):
        wide = F.conv_transpose2d(
            wide,
            kernel(2 * TAPS, channels, axis),
            stride=(2, 1) if axis == 2 else (1, 2),
            padding=(5, 0) if axis == 2 else (0, 5),
            groups=channels,
        )
    size = [2 * (side + 2 * SUPPORT) for side in (height, width)]
    matrix = shift((left - right) / 2, (top - bottom) / 2) @ inverse
    matrix = scale(2, 2) @ matrix @ scale(0.5, 0.5)
    matrix = shift(-0.5, -0.5) @ matrix @ shift(0.5, 0.5)
    theta = scale(2 / wide.shape[3], 2 / wide.shape[2]) @ matrix @ scale(size[1] / 2, size[0] / 2)
    grid = F.affine_grid(theta[:, :2], [batch, channels, *size], align_corners=False)
    points = F.grid_sample(wide, grid, align_corners=False)[:, :, 1:-1, 1:-1]
    for axis in (2, 3):
        stride = (2, 1) if axis == 2 else (1, 2)
        points = F.conv2d(points, kernel(TAPS, channels, axis), stride=stride, groups=channels)
    return ada.apply_color(points, draw["color"])


def margins(inverse: Tensor, height: int, width: int) -> list[int]:
    """Left, right, top, bottom: what the corners of all images reach, and the support of the filters. Waits."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]]).T
    reached = (inverse @ corners)[:, :2]
    low, high = -reached.amin((0, 2)), reached.amax((0, 2))
    need = torch.stack((low, high), 1) + 2 * SUPPORT - torch.tensor([[x], [y]])
    most = torch.tensor([[width - 1.0], [height - 1.0]])
    found: list[int] = need.clamp(min=0).minimum(most).ceil().int().flatten().tolist()
    return found


def kernel(taps: Tensor, channels: int, axis: int) -> Tensor:
    taps = taps[:, None] if axis == 2 else taps[None]
    return taps.expand(channels, 1, *taps.shape)


def shift(x: float, y: float) -> Tensor:
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]])


def scale(x: float, y: float) -> Tensor:
    return torch.tensor([[x, 0, 0], [0, y, 0], [0, 0, 1]], dtype=torch.float32)


def check() -> None:
    """Where its padding reaches, the padded reference is ours."""
    for seed in range(3):
        images, _, draw = case((4, 3, 40, 32), P, seed)
        with using("off"):
            difference = (padded(images, draw) - ada.apply(images, draw)).abs().amax((0, 1))
        assert difference.max() < 1e-2, difference.max()
        assert difference[1:-1, 1:-1].max() < 1e-4, difference[1:-1, 1:-1].max()


def case(shape: tuple[int, ...], p: float, seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator) * 2 - 1
    gradient = torch.randn(shape, generator=generator)
    with using("off"):
        return images.requires_grad_(), gradient, ada.draw(shape, p, MULTIPLIERS, generator=generator)


def call(how: str, shape: tuple[int, ...], p: float, draws: bool) -> Callable[[], object]:
    """Forward and backward; with draws, every call makes the same ones anew."""
    images, gradient, draw = case(shape, p)
    apply = padded if how == "padded" else ada.apply

    def run() -> object:
        with using("require" if how == "fused" else "off"):
            drawn = draw
            if draws:
                drawn = ada.draw(shape, p, MULTIPLIERS, generator=torch.Generator().manual_seed(1))
            return torch.autograd.grad(apply(images, drawn), images, gradient)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="At 32 px; at 256 px a third of them.")
    parser.add_argument("--markdown", action="store_true", help="Print a table.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    build.build(LIBRARY, "cpu")
    print(machine())
    check()
    if given.markdown:
        print(
            "\n| batch, p | draws | baseline | baseline takes | fused | times faster (quartiles) |\n|"
            + "---|" * 6
        )
    cases = [
        ((64, 3, 32, 32), P, given.rounds),
        ((64, 3, 32, 32), 0.1, given.rounds),
        ((16, 3, 256, 256), P, max(given.rounds // 3, 3)),
    ]
    for shape, p, rounds in cases:
        for draws in (False, True):
            for baseline in ("padded", "reference"):
                calls = (call(how, shape, p, draws) for how in ("fused", baseline))
                pair = paired(*calls, rounds=rounds, warm_up=1)
                cells = (
                    f"{'x'.join(map(str, shape))}, {p:g}",
                    "with" if draws else "without",
                    baseline,
                    *pair.cells(),
                )
                show(cells, given.markdown)


if __name__ == "__main__":
    main()
