"""bias_act, upfirdn2d and AdaptiveMix's loss: fused against plain torch calls, forward and backward, by turns.

One thread, CPU time, fresh memory in both. The baseline is what one would write without these operations, in the
type of the values: for bias_act x + b, leaky_relu, * gain and clamp; for upfirdn2d grouped conv2d on images with
zeros inserted, with two-dimensional taps or along one side after the other, whichever is faster; for AdaptiveMix
the reference path. "times faster" is baseline / fused, round by round. Libraries are built first, as
``gan ops build`` does.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from timing import machine, paired, show
from torch import Tensor

from gancore.ops import bias_act, build, upfirdn2d, using
from gancore.ops.core import LIBRARY as CORE
from gancore_adaptivemix import functional as adaptivemix
from gancore_adaptivemix.library import LIBRARY as ADAPTIVEMIX

SHAPES = ((64, 128, 32, 32), (16, 64, 64, 64))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLAMP = 256.0
BINOMIAL = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
LONG = torch.hann_window(14, periodic=False)[1:-1]
RESAMPLINGS = {
    "upfirdn2d up 2, 4 taps": (BINOMIAL, 2, 1, (2, 1, 2, 1)),
    "upfirdn2d down 2, 4 taps": (BINOMIAL, 1, 2, (1, 1, 1, 1)),
    "upfirdn2d blur, 4 taps": (BINOMIAL, 1, 1, (2, 1, 2, 1)),
    "upfirdn2d up 2, 12 taps": (LONG / LONG.sum(), 2, 1, (6, 5, 6, 5)),
    "upfirdn2d down 2, 12 taps": (LONG / LONG.sum(), 1, 2, (5, 5, 5, 5)),
}
FEATURES = ((64, 512, 4, 4), (64, 128, 16, 16))

Call = Callable[[], object]


def both_ways(function: Callable[..., Tensor], leaves: Sequence[Tensor], gradient: Tensor, mode: str) -> Call:
    def call() -> object:
        with using(mode):
            return torch.autograd.grad(function(*leaves), leaves, gradient)

    return call


def torch_bias_act(x: Tensor, bias: Tensor) -> Tensor:
    return (F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)).clamp(-CLAMP, CLAMP)


def torch_upfirdn2d(
    x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, ...], separable: bool
) -> Tensor:
    count, channels, height, width = x.shape
    if up > 1:
        x = F.pad(x.reshape(count, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(count, channels, height * up, width * up)
    x, taps = F.pad(x, padding), taps.to(x.dtype)
    if not separable:
        kernel = (taps[:, None] * taps).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, groups=channels, stride=down)
    x = F.conv2d(x, taps[None, :].expand(channels, 1, -1, -1), groups=channels, stride=(1, down))
    return F.conv2d(x, taps[:, None].expand(channels, 1, -1, -1), groups=channels, stride=(down, 1))


def normal(shape: Sequence[int], dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tuple(shape), generator=generator).to(dtype)
    return x.contiguous(memory_format=LAYOUTS[layout]) if x.dim() == 4 else x


def bias_act_cases(
    shape: Sequence[int], dtype: torch.dtype, layout: str
) -> Iterator[tuple[str, Call, list[Call]]]:
    leaves = normal(shape, dtype, layout).requires_grad_(), normal(shape[1:2], dtype).requires_grad_()
    gradient = normal(shape, dtype, layout)
    ours = both_ways(lambda x, b: bias_act(x, b, act="lrelu", clamp=CLAMP), leaves, gradient, "require")
    yield "bias_act lrelu, clamp", ours, [both_ways(torch_bias_act, leaves, gradient, "off")]


def upfirdn2d_cases(
    shape: Sequence[int], dtype: torch.dtype, layout: str
) -> Iterator[tuple[str, Call, list[Call]]]:
    leaves = (normal(shape, dtype, layout).requires_grad_(),)
    for name, (taps, up, down, padding) in RESAMPLINGS.items():

        def fused(x: Tensor, given=(taps, up, down, padding)) -> Tensor:
            return upfirdn2d(x, given[0], up=given[1], down=given[2], padding=given[3])

        def grouped(x: Tensor, separable: bool, given=(taps, up, down, padding)) -> Tensor:
            return torch_upfirdn2d(x, *given, separable)

        with using("off"):
            gradient = normal(fused(leaves[0]).shape, dtype, layout)
        baselines = [
            both_ways(lambda x, s=separable, g=grouped: g(x, s), leaves, gradient, "off")
            for separable in (False, True)
        ]
        yield name, both_ways(fused, leaves, gradient, "require"), baselines


def adaptivemix_cases(
    shape: Sequence[int], dtype: torch.dtype, layout: str
) -> Iterator[tuple[str, Call, list[Call]]]:
    leaves = normal(shape, dtype, layout).requires_grad_(), normal(shape, dtype, layout).neg().requires_grad_()
    noise = normal(shape, dtype) * 0.05
    permutation = torch.randperm(shape[0], generator=torch.Generator().manual_seed(0))
    for distance in ("l1", "cosine"):

        def loss(a: Tensor, b: Tensor, distance=distance) -> Tensor:
            return adaptivemix.mixed_shrinkage(a, permutation, torch.tensor(0.3), b, noise, distance=distance)

        one = torch.ones((), dtype=dtype)
        yield (
            f"adaptivemix {distance}",
            *(
                both_ways(loss, leaves, one, "require"),
                [both_ways(loss, leaves, one, "off")],
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("bias_act", "upfirdn2d", "adaptivemix"))
    parser.add_argument("--markdown", action="store_true", help="Print a table.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for library in (CORE, ADAPTIVEMIX):
        build.build(library, "cpu")
    print(machine())
    if given.markdown:
        print(
            "\n| operation | batch | type, layout | torch calls | fused | times faster (quartiles) |\n|"
            + "---|" * 6
        )
    families = {
        "bias_act": (bias_act_cases, SHAPES),
        "upfirdn2d": (upfirdn2d_cases, SHAPES),
        "adaptivemix": (adaptivemix_cases, FEATURES),
    }
    for family, (cases, shapes) in families.items():
        if given.only not in (None, family):
            continue
        for shape, dtype, layout in itertools.product(shapes, (torch.float32, torch.bfloat16), LAYOUTS):
            for name, ours, baselines in cases(shape, dtype, layout):
                pairs = [paired(ours, baseline, rounds=given.rounds, warm_up=1) for baseline in baselines]
                pair = min(pairs, key=lambda pair: statistics.median(pair.baseline))
                cells = (
                    name,
                    "x".join(map(str, shape)),
                    f"{str(dtype).removeprefix('torch.')}, {layout}",
                    *pair.cells(),
                )
                show(cells, given.markdown)


if __name__ == "__main__":
    main()
