"""What ``train`` and ``resume`` say about a run: the summary at its start, its ticks, its end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gancore.cli.console import Reporter
from gancore.text import duration, plural

if TYPE_CHECKING:
    from torch.nn import Module

    from gancore.assembly import Session
    from gancore.run_folder import RunFolder
    from gancore.training import Tick

NAMED = 4


class Follower:
    """The callbacks of one run.

    Attributes:
        path: the run folder, once the run has one.
    """

    def __init__(self, reporter: Reporter, *, resuming: bool = False) -> None:
        self.path: Path | None = None
        self._reporter = reporter
        self._resuming = resuming
        self._picture = ""
        self._first = self._steps = 0
        self._began = time.monotonic()

    def started(self, session: Session, folder: RunFolder) -> None:
        """Before the first step: what is trained on what."""
        trainer, say = session.trainer, self._reporter.say
        self.path = folder.path
        self._first, self._steps = trainer.step_index, session.config.train.steps
        self._began = time.monotonic()
        if self._resuming:
            for line in passed_over(folder, self._first):
                say(line)
            say(f"resuming from step {self._first:,} of {self._steps:,}")
        for line in summary(session):
            say(line)
        say(f"run folder: {folder.path}")
        self._reporter.training(self._first, self._steps, lambda: trainer.step_index)

    def tick(self, tick: Tick) -> None:
        """During training."""
        for text in tick.warnings:
            self._reporter.say(f"warning at step {tick.step:,}: {text}")
        self._reporter.tick(tick)
        if tick.snapshot is not None:
            self._picture = tick.snapshot
            if tick.step < tick.steps:
                self._reporter.say(f"saved step {tick.step:,}; samples: {tick.snapshot}")

    def finished(self) -> None:
        """After the last step."""
        self._reporter.close()
        spent = duration(time.monotonic() - self._began)
        self._reporter.say(f"trained {plural(self._steps - self._first, 'step')} in {spent}")
        if self._picture:
            self._reporter.say(f"samples: {self._picture}")


@contextlib.contextmanager
def following(*, resuming: bool = False) -> Iterator[tuple[Reporter, Follower]]:
    """Report a run on stderr; its path is the last line of stdout, however the run ends."""
    with Reporter() as reporter:
        follower = Follower(reporter, resuming=resuming)
        reporter.stage("starting")
        try:
            yield reporter, follower
        finally:
            reporter.close()
            if follower.path is not None:
                print(follower.path, file=sys.stdout, flush=True)


def summary(session: Session) -> list[str]:
    """Data, network, methods, device, length; parameters that nothing trains; notes on the data."""
    config, dataset, trainer = session.config, session.dataset, session.trainer
    what = "points" if dataset.kind == "points" else "images"
    shape = "x".join(str(size) for size in dataset.shape)
    classes = f", {len(dataset.class_names)} classes" if dataset.class_names else ""
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in networks(session)}
    sizes = ", ".join(f"{name} {millions(count)}" for name, count in counts.items())
    lines = [
        f"data: {dataset.name}, {len(dataset):,} {what} of {shape}{classes}; "
        f"network: {config.network_name} ({sizes} parameters); methods: {', '.join(config.plugins)}",
        f"{plural(config.train.steps, 'step')} of {config.train.batch} {what} on {session.device} "
        f"({plural(threads(), 'thread')}, {session.compute.precision}), seed {config.train.seed}",
    ]
    lines += operations(session)
    lines += [f"note: {note}" for note in dataset.notes]
    lines += [f"warning: {text}" for text in session.warnings]
    for network, names in trainer.unreached.items():
        if names:
            shown = ", ".join(sorted(names)[:NAMED]) + (", …" if len(names) > NAMED else "")
            lines.append(
                f"note: no term reaches {plural(len(names), 'parameter tensor')} of {network.upper()}, "
                f"which stay as they are: {shown}"
            )
    return lines


def operations(session: Session) -> list[str]:
    """Which fused operations the run uses, and why it does not use others."""
    used = [name for name, state in session.operations.items() if state.key]
    lines = [f"fused operations: {', '.join(used)}"] if used else []
    whys: dict[str, list[str]] = {}
    for name, state in session.operations.items():
        if state.why:
            whys.setdefault(state.why, []).append(name)
    return lines + [f"note: fused operations {', '.join(names)} {why}" for why, names in whys.items()]


def networks(session: Session) -> list[tuple[str, Module]]:
    """G, D and what the methods added, by name."""
    trainer = session.trainer
    return [("G", trainer.generator), ("D", trainer.discriminator), *sorted(trainer.modules.modules.items())]


def threads() -> int:
    """CPU threads that torch uses."""
    import torch

    return torch.get_num_threads()


def millions(count: int) -> str:
    """``"1.24 M"``, ``"83.1 k"``, ``"512"``."""
    if count >= 1_000_000:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e3:.1f} k" if count >= 1000 else str(count)


def passed_over(folder: RunFolder, step: int) -> list[str]:
    """A line for every damaged checkpoint that is newer than the one a run resumes from."""
    from gancore import checkpoint
    from gancore.errors import CheckpointError

    lines = []
    for newer in (found for found in checkpoint.steps(folder.checkpoints) if found > step):
        try:
            checkpoint.load(folder.checkpoints, newer)
        except CheckpointError as error:
            lines.append(f"passed over a damaged checkpoint: {error}")
    return lines
