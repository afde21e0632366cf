"""The gradients of a convolution in bfloat16 on a CPU: by matrix products, by torch, and torch's float32.

Where products are faster sets the bounds in ``gancore/networks/convolution.py``. Shapes are those of dcgan and
sngan at 32 px. One thread; milliseconds are the least of all rounds, for neighbours on the machine only add.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest import mock

import torch
from timing import machine

from gancore.networks import convolution
from gancore.networks.convolution import Geometry, correlate, spread

# batch, channels in, side, channels out, kernel
SHAPES = (
    (128, 3, 32, 64, Geometry(4, 2, 1)),
    (128, 64, 16, 128, Geometry(4, 2, 1)),
    (128, 128, 8, 256, Geometry(4, 2, 1)),
    (64, 128, 32, 128, Geometry(4, 2, 1)),
    (64, 128, 16, 128, Geometry(4, 2, 1)),
    (64, 256, 16, 256, Geometry(4, 2, 1)),
    (64, 256, 8, 256, Geometry(4, 2, 1)),
    (64, 256, 4, 256, Geometry(3, 1, 1)),
    (64, 256, 8, 256, Geometry(3, 1, 1)),
    (128, 128, 8, 128, Geometry(3, 1, 1)),
)


def least(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time, by turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            best[name] = min(best[name], 1e3 * (time.process_time() - began))
    return best


def bounded(call: Callable[[], object], bound: int) -> Callable[[], object]:
    """With products up to so many pixels."""

    def bound_call() -> object:
        with mock.patch.multiple(convolution, FEW=bound, SOME=bound, WIDE=0):
            return call()

    return bound_call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print("\n| batch, in, side, out, kernel | map | float32 | bf16, torch | bf16, products |\n|" + "---|" * 5)
    for batch, inner, side, outer, geometry in SHAPES:
        small = side // geometry.stride
        x, weight, y = (
            torch.randn(shape)
            for shape in (
                (batch, inner, side, side),
                (outer, inner, geometry.size, geometry.size),
                (batch, outer, small, small),
            )
        )
        half = [t.bfloat16().contiguous(memory_format=torch.channels_last) for t in (x, weight, y)]
        sides = (side, side)
        for name, of in (
            ("image gradient", lambda x, weight, y, g=geometry, s=sides: spread(y, weight, None, g, s)),
            ("weight gradient", lambda x, weight, y, g=geometry, s=sides: correlate(x, y, g)),
        ):
            found = least(
                {
                    "float32": bounded(lambda of=of, a=(x, weight, y): of(*a), -1),
                    "torch": bounded(lambda of=of, a=half: of(*a), -1),
                    "products": bounded(lambda of=of, a=half: of(*a), 10**9),
                },
                given.rounds,
            )
            shape = f"{batch}, {inner}, {side}, {outer}, {geometry.size}x{geometry.size}/{geometry.stride}"
            print(
                f"| {shape} | {name} | " + " | ".join(f"{ms:.1f} ms" for ms in found.values()) + " |", flush=True
            )


if __name__ == "__main__":
    main()
