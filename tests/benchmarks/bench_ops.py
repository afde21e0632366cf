"""Fused operations against their reference paths, forward and backward: the same function, by turns.

One thread, CPU time. Below 1 is faster: the ratio is fused / reference, "times faster" its inverse. Fresh memory
is part of both. Libraries are built first, as ``gan ops build`` does.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
from timing import machine, paired, show
from torch import Tensor

from gancore.ops import build, using
from gancore_diffaugment import functional as diffaugment
from gancore_diffaugment.library import LIBRARY as DIFFAUGMENT

POLICY = "color,translation,cutout"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def both_ways(
    function: Callable[[Tensor], Tensor], images: Tensor, gradient: Tensor, mode: str
) -> Callable[[], object]:
    def call() -> object:
        with using(mode):
            return torch.autograd.grad(function(images), images, gradient)

    return call


def augmented(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = diffaugment.draw(generator, shape[0], (shape[1], shape[2], shape[3]), POLICY)
    return lambda images: diffaugment.augment(images, draw, POLICY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="At 32 px; at 256 px a quarter of them.")
    parser.add_argument("--markdown", action="store_true", help="Print a table.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    build.build(DIFFAUGMENT, "cpu")
    print(machine())
    if given.markdown:
        print(
            "\n| operation | batch | type, layout | reference | fused | times faster (quartiles) |\n|"
            + "---|" * 6
        )
    generator = torch.Generator().manual_seed(0)
    for size, dtype, layout in itertools.product((32, 256), (torch.float32, torch.bfloat16), LAYOUTS):
        shape = (64, 3, size, size)
        images, gradient = (
            torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=LAYOUTS[layout])
            for _ in range(2)
        )
        function = augmented(shape)
        calls = [both_ways(function, images.requires_grad_(), gradient, mode) for mode in ("require", "off")]
        pair = paired(*calls, rounds=given.rounds if size == 32 else max(given.rounds // 4, 3), warm_up=1)
        cells = (
            "diffaugment",
            f"64x3x{size}x{size}",
            f"{str(dtype).removeprefix('torch.')}, {layout}",
            *pair.cells(),
        )
        show(cells, given.markdown)


if __name__ == "__main__":
    main()
