"""A whole step as gancore trains by default against a plain float32 loop over textbook networks, by turns.

The baseline: the same networks with the same weights in torch's own layers (a convolution, then a mean of 2x2
pixels; each pixel four times, then a convolution), contiguous, float32, eager, torch's own choice of Adam, real
and fake in one batch, one power iteration a phase, one call to average G. Same loss, batch and number of updates,
images from memory on both sides. One thread, CPU time. The rates of large matrix products, before and after, say
what bf16 can bring at most in this run.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from bench_hooks import PLAIN, Loop, build
from timing import machine, paired
from torch import Tensor
from torch.nn import functional as F

from gancore.assembly import Session
from gancore.limits import measure_limits
from gancore.networks import convolution


class Textbook:
    """Inside the block, gancore's networks compute every convolution and resampling as torch does."""

    def __enter__(self) -> None:
        self.saved = {name: getattr(convolution, name) for name in ("conv2d", "conv_transpose2d")}
        convolution.conv2d, convolution.conv_transpose2d = F.conv2d, F.conv_transpose2d
        self.sngan = {name: getattr(_sngan(), name) for name in ("conv_and_pool", "upsample_and_conv")}
        _sngan().conv_and_pool = _conv_and_pool
        _sngan().upsample_and_conv = _upsample_and_conv

    def __exit__(self, *_: object) -> None:
        for name, value in self.saved.items():
            setattr(convolution, name, value)
        for name, value in self.sngan.items():
            setattr(_sngan(), name, value)


def _sngan() -> Any:
    from gancore.networks import sngan

    return sngan


def _conv_and_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)


def _upsample_and_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


class PlainLoop(Loop):
    """The hand-written loop with torch's own Adam, several updates of D a step."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        config = session.config
        self.critics = config.train.n_critic
        self.adam = {
            name: torch.optim.Adam(network.parameters(), lr=config.optimizers[name].lr, betas=(0.5, 0.999))
            for name, network in (("g", self.g), ("d", self.d))
        }

    def step(self) -> None:
        """The updates of D, one of G."""
        with Textbook():
            for _ in range(self.critics - 1):
                self.d_update()
            super().step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--network", action="append", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print(f"  large products, before: {_rates()}", flush=True)
    for network in given.network or ["dcgan", "sngan"]:
        common = {
            "network.name": network,
            "train.batch": given.batch,
            "train.n_critic": 5 if network == "sngan" else 1,
        }
        ours = build(common)
        loop = PlainLoop(build({**common, **PLAIN}))
        pair = paired(ours.trainer.train_step, loop.step, rounds=given.rounds, warm_up=1)
        faster = [theirs / mine for mine, theirs in zip(pair.ours, pair.baseline, strict=True)]
        low, middle, high = statistics.quantiles(faster, n=4)
        print(
            f"{network}, batch {given.batch}: gancore {1e3 * statistics.median(pair.ours):.0f} ms (least "
            f"{1e3 * min(pair.ours):.0f}), float32 loop {1e3 * statistics.median(pair.baseline):.0f} ms (least "
            f"{1e3 * min(pair.baseline):.0f}): {middle:.2f} times faster ({low:.2f} to {high:.2f})",
            flush=True,
        )
        print(f"  large products, after: {_rates()}", flush=True)


def _rates() -> str:
    cpu = torch.device("cpu")
    wide, half = (measure_limits(cpu, dtype).products / 1e9 for dtype in (torch.float32, torch.bfloat16))
    return f"float32 {wide:.0f} GFLOP/s, bf16 {half:.0f} GFLOP/s ({half / wide:.1f} times)"


if __name__ == "__main__":
    main()
