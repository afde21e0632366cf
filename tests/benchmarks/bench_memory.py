"""Resident memory over 2,000 steps. Target: flat; a step keeps nothing that grows with their number."""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

import torch
from timing import machine

from gancore import run
from gancore.testing import tiny_config


def resident_kib() -> int:
    """Resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(machine())
    for network in ("dcgan", "mlp"):
        sizes: list[tuple[int, int]] = []

        def note(tick, sizes=sizes) -> None:  # type: ignore[no-untyped-def]
            if tick.moments:
                gc.collect()
                sizes.append((tick.step, resident_kib()))

        overrides = {"network.name": network, "train.steps": steps, "output.log_every": steps // 20}
        config = tiny_config(["adaptivemix", "r1"], {**overrides, "output.snap": steps // 4})
        with tempfile.TemporaryDirectory() as folder:
            run.train(config, outdir=Path(folder) / "run", report=note)
        half = sizes[len(sizes) // 2 :]
        growth = half[-1][1] - half[0][1]
        steps_between = half[-1][0] - half[0][0]
        print(
            f"{network}: {sizes[0][1] / 1024:.1f} MiB at step {sizes[0][0]}, {half[0][1] / 1024:.1f} MiB at "
            f"{half[0][0]}, {half[-1][1] / 1024:.1f} MiB at {half[-1][0]}: "
            f"{growth / steps_between:+.3f} KiB a step over the second half"
        )


if __name__ == "__main__":
    main()
