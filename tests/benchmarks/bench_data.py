"""Images a second from memory at 32 px: batches of float images in [-1, 1], shuffled. Target: over 50,000.

The baseline is the conversion alone: a contiguous block of uint8 to float, no shuffling.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from timing import machine, paired

from gancore.data.dataset import MemoryDataset
from gancore.data.loader import Loader

BATCH, PASSES = 64, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
    print(machine())
    for mirror in (False, True):
        loader = Loader(MemoryDataset(images, name="noise"), 0, torch.device("cpu"), mirror)
        start = iter(range(0, 10**9, BATCH))

        def ours(loader: Loader = loader, start=start) -> None:  # type: ignore[no-untyped-def]
            for _ in range(PASSES):
                loader.batch("d", next(start), BATCH)

        def limit() -> None:
            for index in range(PASSES):
                torch.from_numpy(images[index * BATCH : (index + 1) * BATCH]).float().mul_(1 / 127.5).sub_(1)

        result = paired(ours, limit, rounds=rounds)
        rate = BATCH * PASSES / statistics.median(result.ours)
        slowest = BATCH * PASSES / max(result.ours)
        mirrored = "with" if mirror else "without"
        print(f"{mirrored} mirroring: {rate:,.0f} images/s (slowest round {slowest:,.0f}); {result.text()}")
        loader.close()


if __name__ == "__main__":
    main()
