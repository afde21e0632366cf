"""Paired timing: two callables alternate in one process, and what is reported is the ratio with its spread."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pair:
    """Seconds of both callables, round by round."""

    ours: list[float]
    baseline: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over the baseline, round by round."""
        return [a / b for a, b in zip(self.ours, self.baseline, strict=True)]

    def text(self, unit: float = 1e3, name: str = "ms") -> str:
        """Medians, the median ratio and its quartiles."""
        low, middle, high = np.percentile(self.ratios, [25, 50, 75])
        ours, baseline = statistics.median(self.ours) * unit, statistics.median(self.baseline) * unit
        return (
            f"ours {ours:.3f} {name}, baseline {baseline:.3f} {name}, "
            f"ratio {middle:.4f} (quartiles {low:.4f} to {high:.4f}, {len(self.ours)} rounds)"
        )

    def cells(self) -> tuple[str, str, str]:
        """For a table: the baseline, ours, and how many times faster ours is, with quartiles."""
        low, middle, high = statistics.quantiles([1 / ratio for ratio in self.ratios], n=4)
        return (
            f"{1e3 * statistics.median(self.baseline):.1f} ms",
            f"{1e3 * statistics.median(self.ours):.2f} ms",
            f"{middle:.1f} ({low:.1f} to {high:.1f})",
        )


def show(cells: tuple[str, ...], markdown: bool) -> None:
    """Print a row, at once."""
    print(f"| {' | '.join(cells)} |" if markdown else ", ".join(cells), flush=True)


def paired(
    ours: Callable[[], object],
    baseline: Callable[[], object],
    *,
    rounds: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> Pair:
    """Alternate both, changing who goes first every round.

    Args:
        clock: CPU time of the process by default, which other work on the machine disturbs least.
    """
    for _ in range(warm_up):
        ours()
        baseline()
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    for index in range(rounds):
        order = [("ours", ours), ("baseline", baseline)]
        for name, call in order if index % 2 else reversed(order):
            began = clock()
            call()
            seconds[name].append(clock() - began)
    return Pair(seconds["ours"], seconds["baseline"])


def machine() -> str:
    """Processor, threads and versions, as they belong beside every figure."""
    import torch

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        name = names[0] if names else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{name}, {os.cpu_count()} CPUs, {torch.get_num_threads()} thread(s), {device}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"
    )
