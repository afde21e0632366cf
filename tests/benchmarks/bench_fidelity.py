"""The scores of the plugin fidelity from features and statistics, against public code, at D = 2048.

Targets: Fréchet distance from statistics 3 times faster than torch-fidelity and 10 times faster than scipy's
square root of a matrix, equal to 1e-6; precision, recall, density and coverage at N = 10,000 twice as fast as the
package of the authors of density and coverage, with less than 200 MiB beyond the features; N = 50,000 without an
N x N array. Each row is paired in one process, and what is timed is also what is compared.

torch-fidelity has precision and recall alone: its rows compare our four scores with two. In training the
neighbours of the reals are computed once and kept.

"peak" is the resident memory of a process of its own above its state with the features. Both sets of features
take 160 MiB at N = 10,000, and 800 MiB at N = 50,000.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine, paired
from torch import Tensor

from gancore_fidelity.frechet import Statistics, frechet_distance, statistics
from gancore_fidelity.kernel_distance import draw_subsets, kernel_distance
from gancore_fidelity.manifolds import manifold_scores, neighbour_distances

WIDTH = 2048


def features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    """float32 (count, 2048): correlated, cut at zero, as those of a network are."""
    mixing = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(5)) / 8
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty(count, WIDTH)
    for start in range(0, count, 1000):
        rows = out[start : start + 1000]
        torch.randn(len(rows), WIDTH, generator=generator, out=rows)
        rows.mul_(0.5).add_(torch.randn(len(rows), 64, generator=generator) @ mixing).add_(0.2 + shift).clamp_(
            min=0
        )
    return out


def by_torch_fidelity(first: Statistics, second: Statistics) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    sides = [{"mu": side.mean.numpy(), "sigma": side.dense().numpy()} for side in (first, second)]
    return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])


def by_scipy(first: Statistics, second: Statistics) -> float:
    from scipy.linalg import sqrtm

    root = sqrtm(first.dense().numpy() @ second.dense().numpy())
    apart = (first.mean - second.mean).square().sum()
    return float(apart + first.trace + second.trace - 2 * np.trace(root).real)


def by_prdc(real: Tensor, generated: Tensor, k: int) -> dict[str, float]:
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {name: float(value) for name, value in compute_prdc(real.numpy(), generated.numpy(), k).items()}


def by_torch_fidelity_neighbours(real: Tensor, generated: Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    precision, recall = calculate_precision_recall_full(generated, real, 3)
    return float(precision), float(recall)


def status(name: str) -> int:
    """A line of this process's status, in bytes (Linux)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def measure_memory(call: Callable[[Tensor, Tensor], object], count: int) -> dict[str, float]:
    """Peak bytes and CPU seconds of one call in this process, libraries loaded before."""
    call(features(600, 1), features(600, 2))
    real, generated = features(count, 1), features(count, 2, 0.02)
    before, began = status("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts again from here
    call(real, generated)
    return {"peak": status("VmHWM") - before, "seconds": time.process_time() - began}


MEASURED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "ours": lambda real, generated: manifold_scores(real, generated),
    "prdc": lambda real, generated: by_prdc(real, generated, 5),
    "torch-fidelity": by_torch_fidelity_neighbours,
    "statistics, ours": lambda real, generated: statistics(generated),
}


def memory(name: str, count: int) -> str:
    command = [sys.executable, __file__, "--memory", name, "--count", str(count)]
    # Freed memory goes back to the system at once, so that what is resident is what is in use (glibc).
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout)
    return f"{name}, N = {count}: peak {found['peak'] / 2**20:.0f} MiB, {found['seconds']:.0f} s of CPU time"


class Kept:
    """A callable that keeps its last value, so that what is timed is also what is compared."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.value: Any = None

    def __call__(self) -> None:
        self.value = self.call()


def row(name: str, ours: Callable[[], Any], baseline: Callable[[], Any], rounds: int) -> tuple[Any, Any]:
    """Print a pair's seconds; both values."""
    sides = Kept(ours), Kept(baseline)
    pair = paired(*sides, rounds=rounds, warm_up=0)
    print(f"{name}: {pair.text(1, 's')}", flush=True)
    return sides[0].value, sides[1].value


def frechet(rounds: int) -> None:
    first, second = statistics(features(5000, 1)), statistics(features(5000, 2, 0.02))
    for name, baseline in (("torch-fidelity", by_torch_fidelity), ("scipy's square root", by_scipy)):
        values = row(
            f"Fréchet distance from statistics, D = {WIDTH}, against {name}",
            lambda: frechet_distance(first, second),
            lambda baseline=baseline: baseline(first, second),
            rounds,
        )
        print(f"  values {values[0]:.9f} and {values[1]:.9f}, apart {abs(values[0] - values[1]):.1e}")


def streamed(count: int, rounds: int) -> None:
    rows = features(count, 1)
    values = row(
        f"mean and covariance, N = {count}, against numpy",
        lambda: statistics(rows).dense().numpy(),
        lambda: np.cov(rows.numpy(), rowvar=False),
        rounds,
    )
    print(f"  largest difference {np.abs(values[0] - values[1]).max():.1e}")


def kernel(count: int, rounds: int) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    first, second = features(count, 1), features(count, 2, 0.02)
    drawn = {"kid_subsets": 20, "kid_subset_size": 1000, "rng_seed": 0}

    def ours() -> float:
        return kernel_distance(
            first, second, draw_subsets((count, count), 1000, 20, np.random.RandomState(0))
        ).mean

    def theirs() -> float:
        return float(kid_features_to_metric(first, second, verbose=False, **drawn)[KEY_METRIC_KID_MEAN])

    values = row("kernel distance, 20 subsets of 1000, against torch-fidelity", ours, theirs, rounds)
    print(f"  values {values[0]:.9f} and {values[1]:.9f}")


def manifolds(count: int, rounds: int) -> None:
    real, generated = features(count, 1), features(count, 2, 0.02)
    name = f"precision, recall, density and coverage, N = {count}, against"
    ours, theirs = row(
        f"{name} prdc",
        lambda: manifold_scores(real, generated, k_precision=5),
        lambda: by_prdc(real, generated, 5),
        rounds,
    )
    apart = max(abs(getattr(ours, key) - value) for key, value in theirs.items())
    print(f"  k = 5: {ours}, largest difference {apart:.1e}")
    kept = neighbour_distances(real, 5)
    for how, neighbours in (("", None), (", neighbours of the reals kept", kept)):
        ours, pair = row(
            f"{name} precision and recall of torch-fidelity{how}",
            lambda neighbours=neighbours: manifold_scores(real, generated, real_neighbours=neighbours),
            lambda: by_torch_fidelity_neighbours(real, generated),
            rounds,
        )
        apart = max(abs(ours.precision - pair[0]), abs(ours.recall - pair[1]))
        print(f"  k = 3: {ours}, largest difference {apart:.1e}", flush=True)


def warm_up() -> None:
    """Every library once, on little."""
    rows = features(1200, 1), features(1200, 2)
    few = [statistics(part[:, :16].contiguous()) for part in rows]
    for distance in (frechet_distance, by_torch_fidelity, by_scipy):
        distance(*few)
    manifold_scores(*rows)
    by_prdc(*rows, 5)
    by_torch_fidelity_neighbours(*rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=50_000, help="N of the last rows; 0 leaves them out.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", choices=tuple(MEASURED), help="Measure memory of one of them, print JSON.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(json.dumps(measure_memory(MEASURED[given.memory], given.count)))
        return
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}; CPU time", flush=True)
    warm_up()
    frechet(given.rounds)
    streamed(given.count, given.rounds)
    kernel(given.count, given.rounds)
    manifolds(given.count, given.rounds)
    for name in MEASURED:
        print(memory(name, given.count), flush=True)
    if given.large:
        print(memory("ours", given.large), flush=True)


if __name__ == "__main__":
    main()
