"""Ablations without processes: run folders as ``gan train`` and ``gan eval`` leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gancore import checkpoint
from gancore.config import file_values
from gancore.options import Options
from gancore.plugin_manager import Origin, Registry, discover
from gancore.run_folder import RunFolder
from gancore.specs import MethodSpec

DIGEST = "ab" * 32
STEPS = 10


def registry_with_gauge() -> Registry:
    """What is installed with gancore alone, and a plugin that measures."""
    found = discover([])
    found.methods["gauge"] = MethodSpec(
        name="gauge", summary="Measures.", target="nowhere:Gauge", options=Options, observer=True
    )
    found.origins["gauge"] = Origin("gancore-gauge", "0.1")
    return found


@dataclass
class FakeProcess:
    """A process that takes ``polls`` looks until it has done its work."""

    work: Callable[[bool], int]
    polls: int = 1
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.polls -= 1
            if self.polls <= 0:
                self.code = -9  # unless the work tells
                self.code = self.work(False)
        return self.code

    def terminate(self) -> None:
        if self.code is None:
            self.code = self.work(True)

    def kill(self) -> None:
        self.code = -9


Score = Callable[[str, int], float]


@dataclass
class FakeGan:
    """``gan train``, ``resume`` and ``eval``, as far as files and exit codes go.

    Attributes:
        score: the metric of an arm and seed. codes: exit codes of the next processes of a job, by arm and seed; 0
            for one that does its work. measures_itself: runs measure at their end. config_extra: of a run's
            ``config.toml``. seen, threads: the command lines, in order, and what was said beside them.
    """

    score: Score = lambda arm, seed: 10.0 + seed
    codes: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    seen: list[list[str]] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=lambda: {"better": "lower", "samples": 100})
    threads: list[int] = field(default_factory=list)
    measures_itself: bool = False
    config_extra: str = ""
    at_once: int = 0
    most_at_once: int = 0
    before_exit: Callable[[str, int], None] = lambda arm, seed: None

    def launch(self, arguments: Sequence[str], log: Path, threads: int = 0) -> FakeProcess:
        self.threads.append(threads)
        self.seen.append(list(arguments))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        name = arguments[arguments.index("--outdir") + 1] if arguments[0] == "train" else arguments[1]
        run = RunFolder(name)
        arm, seed = run.path.parent.name, int(run.path.name.removeprefix("seed-"))

        def work(asked_to_stop: bool) -> int:
            self.at_once -= 1
            planned = self.codes.get((arm, seed), [])
            code = 75 if asked_to_stop else planned.pop(0) if planned else 0
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"$ gan {' '.join(arguments)}\nsome progress\n")
                if code not in (0, 75):
                    file.write(f"error: code {code} of {arguments[0]}\n")
            if arguments[0] == "eval":
                if code == 0:
                    self.measure(run, arm, seed)
            else:
                if arguments[0] == "train":
                    values = Path(arguments[1]).read_text(encoding="utf-8")
                    make_run(run, values + self.config_extra, seed)
                save_step(run, STEPS if code == 0 else STEPS // 2, seed, plugins_of(run))
                if code == 0 and self.measures_itself:
                    run.append_metrics(self.row(arm, seed))
                if code == 5:
                    run.append_metrics({"step": 7, "event": "diverged", "what": "not finite: loss/d"})
            self.before_exit(arm, seed)
            return code

        return FakeProcess(work, polls=2)

    def measure(self, run: RunFolder, arm: str, seed: int) -> None:
        run.append_evaluation(self.row(arm, seed))

    def row(self, arm: str, seed: int) -> dict[str, Any]:
        """An evaluation of the last step."""
        row = {"step": STEPS, "images_seen": 40, "metrics": {"fid": self.score(arm, seed)}}
        return {**row, "protocols": {"fid": self.protocol}, "reference": "gaussians"}


def make_run(run: RunFolder, config: str, seed: int) -> None:
    """A run folder before its first step."""
    assert not (run.path.exists() and any(run.path.iterdir())), "gan train would refuse this folder"
    made = RunFolder.create(run.path, config.replace("seed = 0", f"seed = {seed}"))
    made.append_metrics({"step": 1, "images_seen": 4, "images_per_second": 1.0})


def plugins_of(run: RunFolder) -> list[str]:
    found: list[str] = file_values(run.config)["plugins"]
    return found


def save_step(run: RunFolder, step: int, seed: int, plugins: Sequence[str], digest: str = DIGEST) -> None:
    """A checkpoint of a step, and lines of metrics up to it."""
    for logged in range(2, step + 1, 2):
        run.append_metrics({"step": logged, "images_seen": 4 * logged, "images_per_second": 100.0})
    meta = {
        "images_seen": 4 * step,
        "config": {"train.seed": seed, "plugins": list(plugins)},
        "data": {"digest": digest},
        "environment": {"torch": "2.15.0", "device": "cpu", "threads": 1, "precision": "float32"},
    }
    checkpoint.save(run.checkpoints, step, {"x": torch.zeros(1)}, meta)
