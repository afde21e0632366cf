"""Feature extraction with the source in a thread of its own, against one batch after the other; wall clock.

Sources: PNG files decoded on demand at 64 and 256 px, and a DCGAN generator at 32 px. The network is the
classifier of the plugin ``fidelity``, the fastest of its backbones, so that the source counts most. The best
ratio that overlapping can reach is printed too: the slower of the two over both.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import machine, paired
from torch import Tensor

from gancore.data import DataOptions, open_dataset
from gancore.networks.dcgan import build
from gancore.networks.options import DCGANOptions
from gancore.sampling import in_batches
from gancore_fidelity.classifier import Classifier, Network, Trained
from gancore_fidelity.features import extract, to_uint8

COUNT, BATCH = 512, 64
Source = Callable[[], Iterator[Tensor]]


def classifier(channels: int, side: int) -> Classifier:
    """The backbone with the weights it begins with: what it costs does not depend on them."""
    side = min(side, 64)
    weights = {name: value.clone() for name, value in Network(channels, side, 10).state_dict().items()}
    return Classifier(Trained(weights, channels, side, 10, accuracy=1.0, chance=0.1))


def files(folder: Path, side: int) -> Source:
    """A zip of PNG files, read on demand."""
    path, random = folder / f"{side}.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(COUNT):
            small = random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, format="PNG")
            archive.writestr(f"{index:04d}.png", buffer.getvalue())
    data = open_dataset(DataOptions(source=str(path), image_size=side, memory_gib=0))
    parts = np.arange(COUNT).reshape(-1, BATCH)
    return lambda: (torch.from_numpy(data.read(part)) for part in parts)


def generator() -> Source:
    """Samples of an untrained DCGAN, 8-bit."""
    network = build(DCGANOptions(), (3, 32, 32), 0)[0].eval()
    shape, device = (3, 32, 32), torch.device("cpu")
    return lambda: (
        to_uint8(part, shape, "samples") for part in in_batches(network, COUNT, 0, device, batch=BATCH)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "png files of 64 px": (files(Path(folder), 64), 64),
            "png files of 256 px": (files(Path(folder), 256), 256),
            "generator at 32 px": (generator(), 32),
        }
        for name, (source, side) in sources.items():
            backbone = classifier(3, side)
            batches = list(source())

            def ours(backbone: Classifier = backbone, source: Source = source) -> None:
                extract(backbone, source())

            def one_after_the_other(backbone: Classifier = backbone, source: Source = source) -> None:
                torch.cat([backbone.features(batch).vectors for batch in source()])

            pair = paired(ours, one_after_the_other, rounds=rounds, warm_up=1, clock=time.perf_counter)
            alone = paired(
                lambda: list(source()),
                lambda: [backbone.features(batch) for batch in batches],
                rounds=3,
                warm_up=0,
                clock=time.perf_counter,
            )
            times = statistics.median(alone.ours), statistics.median(alone.baseline)
            rate, best = COUNT / statistics.median(pair.ours), max(times) / sum(times)
            parts = f"source {1e3 * times[0]:.0f} ms, network {1e3 * times[1]:.0f} ms"
            print(f"{name}: {rate:,.0f} images/s; {pair.text()}; at best {best:.2f} ({parts})", flush=True)


if __name__ == "__main__":
    main()
