"""KDD's log-ratios, forward and backward: what the plugin computes against four matrices of all pairs.

The baseline is the shortest form that materialises no B x B x K tensor: four products (real and fake points by
real and fake anchors), a mask for leave-one-out, logsumexp, and autograd. Both compute the hinge on the same unit
features and agree in value and gradient. Targets at B = 4096, K = 1024, float32: no slower with one thread and
with two, and less than 40 MiB kept beyond the two inputs.

"kept" is what autograd holds between forward and backward, beyond the inputs. "peak" is the resident memory of a
process of its own above its state with the inputs; the two gradients (32 MiB at that size) are part of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, paired
from torch import Tensor

from gancore_kdd import functional

Ratios = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def matrix(real: Tensor, fake: Tensor, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """Four products."""
    own = torch.eye(len(real), dtype=torch.bool)

    def density(points: Tensor, anchors: Tensor, leave_out: bool) -> Tensor:
        similar = points @ anchors.T / tau
        if leave_out:
            similar = similar.masked_fill(own, -math.inf)
        return similar.logsumexp(1) - math.log(len(anchors) - leave_out)

    at_real = density(real, real, True) - density(real, fake, False)
    at_fake = density(fake, real, False) - density(fake, fake, True)
    return at_real, at_fake


def plugin(real: Tensor, fake: Tensor, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """As the method calls it: plain matrices up to 2^15 pairs, the blocked form above."""
    return functional.log_ratios(real, fake, tau, unit_rows=True)


FORMS: dict[str, Ratios] = {"plugin": plugin, "matrix": matrix}


def inputs(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Unit features of two sides, leaves of the graph."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(batch, width, generator=generator) + shift for shift in (0.0, 0.1))
    return functional.unit(real).requires_grad_(), functional.unit(fake).requires_grad_()


def both_ways(form: str, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    loss = functional.hinge(*FORMS[form](real, fake))
    return loss.detach(), *torch.autograd.grad(loss, (real, fake))


def kept(form: str, real: Tensor, fake: Tensor) -> int:
    """Bytes of what autograd holds for the backward, beyond the inputs."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = functional.hinge(*FORMS[form](real, fake))
    for given in (real, fake):
        storages.pop(given.untyped_storage().data_ptr(), None)
    del loss
    return sum(storages.values())


def status(name: str) -> int:
    """A line of this process's status, in bytes (Linux)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def measure_memory(form: str, batch: int, width: int) -> dict[str, float]:
    """In a process of its own: kept and peak bytes, for one forward and backward."""
    both_ways(form, *inputs(600, 64))  # libraries and their work space
    real, fake = inputs(batch, width)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts again from here
    both_ways(form, real, fake)
    peak = status("VmHWM") - before
    return {"kept": kept(form, real, fake), "peak": peak}


def memory(form: str, batch: int, width: int) -> str:
    command = [sys.executable, __file__, "--memory", form, "--batch", str(batch), "--width", str(width)]
    # Freed memory goes back to the system at once, so that what is resident is what is in use (glibc).
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout)
    mib = 2**20
    return f"{form}: kept {found['kept'] / mib:.2f} MiB, peak {found['peak'] / mib:.1f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", choices=tuple(FORMS), help="Measure memory of one form, print JSON.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(json.dumps(measure_memory(given.memory, given.batch, given.width)))
        return
    sizes = [(64, 128, 20), (64, 1024, 20), (512, 128, 9), (512, 1024, 5)]
    sizes.append((given.batch, given.width, given.rounds))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
        for batch, width, rounds in sizes:
            real, fake = inputs(batch, width)
            if threads == 1:
                found, expected = both_ways("plugin", real, fake), both_ways("matrix", real, fake)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
            pair = paired(
                lambda real=real, fake=fake: both_ways("plugin", real, fake),
                lambda real=real, fake=fake: both_ways("matrix", real, fake),
                rounds=rounds,
                warm_up=0,
                clock=time.process_time if threads == 1 else time.perf_counter,
            )
            print(f"B = {batch}, K = {width}: {pair.text()}")
    for form in FORMS:
        print(f"B = {given.batch}, K = {given.width}, one thread: {memory(form, given.batch, given.width)}")


if __name__ == "__main__":
    main()
