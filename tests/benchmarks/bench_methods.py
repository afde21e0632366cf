"""What each method, and each pair that can be mixed, costs: measured, and predicted from the rows D looks at.

Baseline: a step of the same objective alone (of hinge for KDD as a term, else of the default one), same seed, in
the same process, in turns. DCGAN at 32 px in its defaults, batch 64, float32, one thread, CPU time, images of
noise in memory. Everything is in multiples of the baseline's step:

* measured: a step.
* rows: the baseline, and what the passes of G and D cost on the rows that the mix puts through them, beyond those
  of the baseline (``gancore.rows``). Nothing of a method runs in these passes.
* own work: what the mix costs beyond the baseline when passes of G and D cost nothing (``own_work``):
  augmentations, taps that it derives, losses, the optimiser of parameters that it adds, draws and views.

Target: measured and rows within 10 %; where they are not, measured and rows + own work. Neither has the memory
that a larger step gives back to the system and takes anew. On Linux with glibc, MALLOC_TRIM_THRESHOLD_ and
MALLOC_MMAP_THRESHOLD_ = 4000000000 in the environment keep it; what then changes is what that costs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from bench_hooks import PLAIN
from own_work import PARTS, Recording, record, seconds
from timing import machine

from gancore.assembly import Session, assemble
from gancore.cli.plugins import compatibility
from gancore.config import resolve
from gancore.data.dataset import MemoryDataset
from gancore.plugin_manager import Registry, discover
from gancore.rows import pass_seconds

TARGET = 0.1
METHODS: dict[str, dict[str, object]] = {
    "adaptivemix": {},
    "adaptivemix official": {"adaptivemix.preset": "official"},
    "kdd": {},
    "kdd as term": {"kdd.as_term": True},
    "kdd anchors=1": {"kdd.anchors": 1},
    "kdd feature_dim=128": {"kdd.feature_dim": 128},
    "augself": {},
    "icr": {},
    "cr": {},
    "cnlsgan": {},
    "ada": {"ada.p": 0.5},
    "diffaugment": {},
}
ALONE = frozenset({"kdd feature_dim=128"})
"""Variants that are measured in no pair."""

CLOCK = time.process_time


def plugin(variant: str) -> str:
    return variant.split()[0]


def chosen(variants: tuple[str, ...]) -> tuple[list[str], dict[str, object]]:
    """Methods and options of a mix; KDD as a term stands beside hinge, unless the mix has an objective."""
    names = [plugin(variant) for variant in variants]
    options = {key: value for variant in variants for key, value in METHODS[variant].items()}
    if "kdd as term" in variants and "cnlsgan" not in variants:
        names.append("hinge")
    return names, options


class Subject:
    """A session, and its costs one at a time."""

    def __init__(self, registry: Registry, names: list[str], options: dict[str, object], images: MemoryDataset):
        given = {"plugins": names, "network.name": "dcgan", "train.steps": 10**6, **PLAIN, **options}
        config = resolve(registry, [("benchmark", given)])
        self.session: Session = assemble(config, registry, dataset=images)
        self.trainer = self.session.trainer
        self.programs = [self.trainer.plan.full_program(phase) for phase in self.trainer.plan.phases]
        self.recordings: dict[str, Recording] = record(self.trainer)

    def step(self) -> float:
        began = CLOCK()
        self.trainer.train_step()
        return CLOCK() - began

    def passes(self) -> float:
        return sum(pass_seconds(self.trainer, program, 1, warm_up=0, clock=CLOCK) for program in self.programs)

    def own(self) -> Counter[str]:
        return seconds(self.trainer, self.recordings, CLOCK)

    def rows(self) -> int:
        return sum(program.rows() for program in self.programs)


@dataclass
class Line:
    """What was found of one mix, round by round, in multiples of the baseline's step."""

    name: str
    rows: int
    baseline_rows: int
    seconds: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    own: list[dict[str, float]] = field(default_factory=list)

    def part(self, name: str) -> float:
        return statistics.median(own.get(name, 0.0) for own in self.own)

    @property
    def ratio(self) -> float:
        return statistics.median(self.measured)

    @property
    def by_rows(self) -> float:
        return statistics.median(self.predicted)

    @property
    def own_work(self) -> float:
        return statistics.median(sum(own[part] for part in PARTS) for own in self.own)

    @property
    def explained(self) -> float:
        return self.by_rows + self.own_work

    def parts(self) -> str:
        """What the own work is, from 0.02 steps on; augmentations by method where there are several."""
        links = [name for name in self.own[0] if name not in PARTS]
        names = [*(links if len(links) > 1 else PARTS[:1]), *PARTS[1:]]
        found = sorted(((self.part(name), name) for name in names), reverse=True)
        return ", ".join(f"{name} {value:.2f}" for value, name in found if value >= 0.02)

    def cells(self) -> tuple[str, ...]:
        low, high = np.percentile(self.measured, [25, 75])
        by_rows = self.ratio / self.by_rows - 1
        explained = self.ratio / self.explained - 1
        parts = self.parts()
        return (
            self.name,
            f"{self.baseline_rows} -> {self.rows}",
            f"{1e3 * statistics.median(self.seconds):.0f} ms",
            f"{self.ratio:.2f} ({low:.2f} to {high:.2f})",
            f"{self.by_rows:.2f}",
            f"{by_rows:+.0%}" + ("" if abs(by_rows) <= TARGET else " *"),
            f"{self.own_work:.2f}" + (f" ({parts})" if parts else ""),
            f"{self.explained:.2f}",
            f"{explained:+.0%}" + ("" if abs(explained) <= TARGET else " *"),
        )


HEADINGS = (
    "mix",
    "batches through D",
    "a step",
    "measured (quartiles)",
    "rows",
    "measured / rows",
    "own work",
    "rows + own work",
    "measured / (rows + own work)",
)


def compare(name: str, mix: Subject, plain: Subject, rounds: int) -> Line:
    """Both in turns, who goes first changes every round."""
    line = Line(name, mix.rows(), plain.rows())
    for index in range(rounds):
        order = (mix, plain) if index % 2 else (plain, mix)
        steps = {subject: subject.step() for subject in order}
        passes = {subject: subject.passes() for subject in order}
        own = {subject: subject.own() for subject in order}
        unit = steps[plain]
        line.seconds.append(steps[mix])
        line.measured.append(steps[mix] / unit)
        line.predicted.append((unit + passes[mix] - passes[plain]) / unit)
        found = {part: (own[mix][part] - own[plain][part]) / unit for part in own[mix] | own[plain]}
        line.own.append({**dict.fromkeys(PARTS, 0.0), **found})
    return line


def mixes(registry: Registry, only: list[str], with_pairs: bool) -> tuple[list[tuple[str, ...]], list[str]]:
    """The mixes to measure, and the pairs that cannot be mixed."""
    found = [(name,) for name in METHODS]
    refused = []
    if with_pairs:
        for pair in itertools.combinations((name for name in METHODS if name not in ALONE), 2):
            if plugin(pair[0]) == plugin(pair[1]):
                continue
            if compatibility(registry, *chosen(pair))["compatible"]:
                found.append(pair)
            else:
                refused.append(" + ".join(pair))
    return [mix for mix in found if not only or all(name in mix for name in only)], refused


def text(cells: tuple[str, ...]) -> str:
    name, rows, step, measured, by_rows, off, own, explained, left = cells
    return (
        f"{name}: measured {measured}, {step} a step; batches through D {rows}; rows {by_rows}, {off}; "
        f"own work {own}; rows + own work {explained}, {left}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2, help="Of a pair; a method alone has twice as many.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", choices=tuple(METHODS))
    parser.add_argument("--pairs", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--markdown", action="store_true", help="Print a table.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    registry = discover()
    noise = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32), dtype=np.uint8)
    images = MemoryDataset(noise, name="noise")
    size: dict[str, object] = {"train.batch": given.batch}
    plain: dict[str, Subject] = {}
    chosen_mixes, refused = mixes(registry, given.only, given.pairs)
    if given.markdown:
        print(f"\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    show: Callable[[tuple[str, ...]], str] = _row if given.markdown else text
    lines = []
    for mix in chosen_mixes:
        names, options = chosen(mix)
        objective = "hinge" if "hinge" in names else "nonsaturating"
        if objective not in plain:
            plain[objective] = Subject(registry, [objective], size, images)
        subject = Subject(registry, names, options | size, images)
        rounds = given.rounds * (2 if len(mix) == 1 else 1)
        lines.append(compare(" + ".join(mix), subject, plain[objective], rounds))
        print(show(lines[-1].cells()), flush=True)
        subject.session.close()
        del subject
        gc.collect()
    by_rows = sum(abs(line.ratio / line.by_rows - 1) <= TARGET for line in lines)
    explained = sum(abs(line.ratio / line.explained - 1) <= TARGET for line in lines)
    print(
        f"\n{len(lines)} mixes: rows alone within {TARGET:.0%} for {by_rows}, "
        f"rows and own work for {explained}; * marks the others"
    )
    if refused:
        print(f"cannot be mixed: {', '.join(refused)}")


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
