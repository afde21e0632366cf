"""The reference paths of DiffAugment and ADA against one copy of the batch: what fused versions must beat.

A copy reads and writes every byte of the images once; a fused augmentation needs no more, each way. Both take
new memory for their result, which costs a CPU more than the copy itself above 32 MiB (glibc maps it at every
call). "traffic" is how many bytes the operators read and write, in bytes of the batch: a copy has 2. Every tensor
that goes into or comes out of an operator counts; an expanded one as often as it is read, views and memory that
is only reserved not at all. "operators" are the kernels that a device would start. Draws are part of a call.
ADA's pipe is bgc with p = 0.5; what it computes does not depend on p.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from timing import Pair, machine, paired
from torch import Tensor

from gancore.limits import Traffic
from gancore.ops import using
from gancore_ada import functional as ada
from gancore_ada.options import AdaOptions
from gancore_diffaugment import functional as diffaugment

POLICY = "color,translation,cutout"
P = 0.5
MULTIPLIERS = AdaOptions().multipliers()
MIB = 2**20


class Case:
    """An augmentation of one batch: call, and call with backward."""

    def __init__(self, name: str, augment: Callable[[Tensor, torch.Generator], Tensor], shape: tuple[int, ...]):
        generator = torch.Generator().manual_seed(0)
        self.name, self.augment, self.shape = name, augment, shape
        self.images = torch.rand(shape, generator=generator) * 2 - 1
        self.leaf = self.images.clone().requires_grad_()
        self.gradient = torch.randn(shape, generator=generator)
        self.generator = generator
        self.bytes = self.images.numel() * self.images.element_size()

    def forward(self) -> Tensor:
        return self.augment(self.images, self.generator)

    def both_ways(self) -> Tensor:
        (gradient,) = torch.autograd.grad(self.augment(self.leaf, self.generator), self.leaf, self.gradient)
        return gradient

    def copy(self) -> Tensor:
        return self.images.clone()

    def counted(self) -> tuple[Traffic, Traffic]:
        """Of the call, and of the backward; not the first, which makes what is kept for later ones."""
        self.both_ways()
        with Traffic() as forward:
            out = self.augment(self.leaf, self.generator)
        with Traffic() as backward:
            torch.autograd.grad(out, self.leaf, self.gradient)
        return forward, backward


def diffaugmented(images: Tensor, generator: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    draw = diffaugment.draw(generator, count, (channels, height, width), POLICY)
    return diffaugment.augment(images, draw, POLICY)


def adapted(images: Tensor, generator: torch.Generator) -> Tensor:
    shape = tuple(images.shape)
    return ada.apply(images, ada.compose(ada.sample(shape, P, MULTIPLIERS, generator=generator), shape))


def compare(case: Case, call: Callable[[], Tensor], rounds: int, copies: int) -> Pair:
    """Seconds of a call, and of one copy: so many copies in a row are timed."""

    def copy() -> None:
        for _ in range(copies):
            case.copy()

    found = paired(call, copy, rounds=rounds, warm_up=1)
    return Pair(found.ours, [seconds / copies for seconds in found.baseline])


def lines(case: Case, rounds: int, copies: int) -> Iterator[str]:
    """Forward, and forward with backward."""
    forward, backward = case.counted()
    shape = "x".join(map(str, case.shape))
    for way, call, counts in (
        ("forward", case.forward, (forward,)),
        ("forward and backward", case.both_ways, (forward, backward)),
    ):
        pair = compare(case, call, rounds, copies)
        seconds = statistics.median(pair.ours)
        moved = sum(count.bytes for count in counts)
        each = " + ".join(f"{count.bytes / case.bytes:.1f}" for count in counts)
        operators = " + ".join(str(count.operators) for count in counts)
        yield (
            f"{case.name}, {shape}, {way}: {pair.text(name='ms')} times a copy; "
            f"{case.shape[0] / seconds:,.0f} images/s; traffic {each} x {case.bytes / MIB:.2f} MiB, "
            f"{moved / seconds / 1e9:.2f} GB/s; {operators} operators"
        )


def shares_of_ada(case: Case, rounds: int) -> str:
    """Where the time of a call and its backward goes, each stage on its own."""
    shape = case.shape
    parameters = ada.sample(shape, P, MULTIPLIERS, generator=case.generator)
    draw = ada.compose(parameters, shape)

    def stage(apply: Callable[[Tensor, Tensor], Tensor], matrices: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(apply(case.leaf, matrices), case.leaf, case.gradient)

    stages: dict[str, Callable[[], object]] = {
        "draws": lambda: ada.sample(shape, P, MULTIPLIERS, generator=case.generator),
        "matrices": lambda: ada.compose(parameters, shape),
        "geometry": stage(ada.apply_geometry, draw["geometry"]),
        "colour": stage(ada.apply_color, draw["color"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds + 1):
        for name, call in stages.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    middle = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    total = sum(middle.values())
    text = ", ".join(
        f"{name} {100 * value / total:.1f} % ({1e3 * value:.2f} ms)" for name, value in middle.items()
    )
    return f"{case.name}, {'x'.join(map(str, shape))}, forward and backward: {text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="At 32 px; at 256 px a third of them.")
    parser.add_argument("--only", choices=("diffaugment", "ada"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    cases = [
        (Case("diffaugment", diffaugmented, (64, 3, 32, 32)), given.rounds, 50),
        (Case("diffaugment", diffaugmented, (64, 3, 256, 256)), max(given.rounds // 3, 3), 1),
        (Case("ada", adapted, (64, 3, 32, 32)), given.rounds, 50),
        (Case("ada", adapted, (16, 3, 256, 256)), max(given.rounds // 3, 3), 5),
    ]
    for case, rounds, copies in cases:
        if given.only not in (None, case.name):
            continue
        with using("off"):
            for line in lines(case, rounds, copies):
                print(line, flush=True)
            if case.name == "ada":
                print(shares_of_ada(case, rounds), flush=True)


if __name__ == "__main__":
    main()
