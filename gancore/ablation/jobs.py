"""The jobs of an ablation and how far each is, read from its run folder: nothing else remembers it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gancore.ablation.plan import Plan
from gancore.atomic import make_folder, write_atomic
from gancore.config import flatten
from gancore.errors import CheckpointError, ConfigError
from gancore.run_folder import RunFolder

State = Literal["waiting", "started", "trained", "done", "diverged", "failed"]

OVER: tuple[State, ...] = ("done", "diverged", "failed")
"""States of a job that the queue leaves alone."""

TAIL = 1 << 16
"""Bytes at the end of ``metrics.jsonl`` that hold its last lines."""


@dataclass(frozen=True, order=True)
class Job:
    """One run of one arm."""

    seed: int
    arm: str

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        step: G updates that a checkpoint holds. what: why it diverged or failed.
        row: the evaluation that counts, of a job that is done.
    """

    state: State
    step: int = 0
    what: str = ""
    row: dict[str, Any] | None = None


class AblationFolder:
    """Paths of an ablation::


    plan.json  configs/ARM.toml  runs/ARM/seed-N/  logs/ARM/seed-N.log  failures/ARM/seed-N.json
    results.json  table.md  report.html
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.plan = self.path / "plan.json"

    def config(self, arm: str) -> Path:
        """The configuration that ``gan train`` is given."""
        return self.path / "configs" / f"{arm}.toml"

    def run(self, job: Job) -> RunFolder:
        """Where a job trains."""
        return RunFolder(self.path / "runs" / job.arm / f"seed-{job.seed}")

    def log(self, job: Job) -> Path:
        """What the processes of a job said."""
        return self.path / "logs" / job.arm / f"seed-{job.seed}.log"

    def failure(self, job: Job) -> Path:
        """Why a job failed; absent when it did not."""
        return self.path / "failures" / job.arm / f"seed-{job.seed}.json"

    def record(self, job: Job) -> Path:
        """The evaluation that counts, and what had been asked for."""
        return self.run(job).path / "ablation.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from working on the same ablation.

        Raises:
            ConfigError: another process does. RunFolderError: the folder cannot be written.
        """
        with RunFolder(self.path).locked():
            yield

    def make(self) -> None:
        """Create the folder.

        Raises:
            ConfigError: something else is there. RunFolderError: it cannot be written.
        """
        if self.path.exists() and not self.plan.exists() and not self._is_empty():
            raise ConfigError(f"'{self.path}' exists and holds no ablation; choose another --outdir")
        make_folder(self.path)

    def _is_empty(self) -> bool:
        """But for what was written before the plan, by a process that was killed."""
        own = {".lock", ".plan.json.part", "configs"}
        return self.path.is_dir() and all(found.name in own for found in self.path.iterdir())


def jobs_of(plan: Plan) -> list[Job]:
    """All jobs, seed by seed, so that every seed that ends is a comparison of all arms."""
    return [Job(seed, arm) for seed in plan.seeds for arm in plan.arms]


def status(folder: AblationFolder, plan: Plan, job: Job) -> Status:
    """How far a job is."""
    run = folder.run(job)
    saved = _newest(run)
    failure = read_json(folder.failure(job))
    if failure is not None:
        return Status("failed", saved, str(failure.get("what", "")))
    if not run.config.is_file():
        return Status("waiting")
    if saved < plan.steps:
        what = _diverged(run)
        return Status("diverged", saved, what) if what else Status("started", saved)
    record = read_json(folder.record(job))
    if record is not None and record.get("request") == plan.request and _can_be_compared(record.get("row")):
        return Status("done", saved, row=record["row"])
    return Status("trained", saved)


def keep_evaluation(folder: AblationFolder, plan: Plan, job: Job) -> bool:
    """Note the newest evaluation of a trained run as the one that counts; False when there is none at its end."""
    found = folder.run(job).read_evaluations()
    rows = [row for row in found if row["step"] == plan.steps and _can_be_compared(row)]
    if not rows:
        return False
    record = {"request": plan.request, "row": rows[-1]}
    write_atomic(folder.record(job), (json.dumps(record, indent=1) + "\n").encode())
    return True


def measured_itself(folder: AblationFolder, plan: Plan, job: Job) -> bool:
    """Whether a run measures while it trains, as the plan asks: by the same observers with the same options."""
    try:
        document = tomllib.loads(folder.run(job).config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not document.get("output", {}).get("evaluate_every"):
        return False
    recorded = document.get("versions", {}).get("plugins", {})
    versions = {name: recorded.get(name, {}).get("version") for name in plan.observers}
    options = flatten(document)
    return versions == plan.measuring_versions and all(
        options.get(key) == value for key, value in plan.measuring.items()
    )


def check_trained(folder: AblationFolder, plan: Plan, job: Job) -> str:
    """Why a trained run does not belong into the comparison; empty when it does.

    Compares what its last checkpoint says of itself: images seen, data, configuration.
    """
    try:
        meta = _final_meta(folder, plan, job)
    except CheckpointError as error:
        return str(error)
    if meta["images_seen"] != plan.images:
        return f"it has seen {meta['images_seen']:,} images, the others {plan.images:,}"
    if plan.data_digest and meta["data"]["digest"] != plan.data_digest:
        return "it was trained on other data: the digest of its set differs"
    if meta["config"]["train.seed"] != job.seed:
        return f"it has seed {meta['config']['train.seed']}"
    wanted = plan.arms[job.arm]["plugins"]
    found = [name for name in meta["config"]["plugins"] if name not in plan.observers]
    return "" if found == wanted else f"it has the plugins {', '.join(found)}, its arm {', '.join(wanted)}"


def trained_with(folder: AblationFolder, plan: Plan, job: Job) -> dict[str, Any]:
    """The environment of a trained run: torch, device, threads, precision."""
    environment: dict[str, Any] = _final_meta(folder, plan, job)["environment"]
    return environment


def in_use(run: RunFolder) -> bool:
    """Whether a process trains in a run folder, such as one that outlived the queue that started it."""
    if not run.path.is_dir():
        return False
    try:
        with run.locked():
            return False
    except ConfigError:
        return True


def clear_stump(run: RunFolder) -> None:
    """Take away what a process left that was killed while it made its run folder: empty folders, no run."""
    if run.config.exists() or not run.path.is_dir():
        return
    for part in (run.samples, run.checkpoints):
        with contextlib.suppress(OSError):
            part.rmdir()
    for name in (".config.toml.part", ".lock"):
        with contextlib.suppress(OSError):
            (run.path / name).unlink()


def last_step(run: RunFolder) -> int:
    """The newest step that ``metrics.jsonl`` has a line of; 0 when there is none."""
    try:
        with open(run.metrics, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return int(json.loads(line)["step"])
    return 0


def write_failure(folder: AblationFolder, job: Job, code: int, what: str) -> None:
    """Keep why a job failed, until it is tried again."""
    path = folder.failure(job)
    make_folder(path.parent)
    write_atomic(path, (json.dumps({"code": code, "what": what}) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """An object of a JSON file; None when there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _final_meta(folder: AblationFolder, plan: Plan, job: Job) -> dict[str, Any]:
    from gancore import checkpoint

    return checkpoint.read_meta(folder.run(job).checkpoints / f"step-{plan.steps:08d}.json")


def _can_be_compared(row: object) -> bool:
    """Whether an evaluation has metrics that are numbers, each with its protocol; a damaged one is made again."""
    if not isinstance(row, dict):
        return False
    metrics, protocols = row.get("metrics"), row.get("protocols")
    if not isinstance(metrics, dict) or not isinstance(protocols, dict) or not metrics:
        return False
    return all(
        isinstance(value, int | float) and math.isfinite(value) and isinstance(protocols.get(name), dict)
        for name, value in metrics.items()
    )


def _newest(run: RunFolder) -> int:
    names = (path.stem.removeprefix("step-") for path in run.checkpoints.glob("step-*.json"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def _diverged(run: RunFolder) -> str:
    """What the last divergence was; a resume drops it from the metrics."""
    events = [row for row in run.read_metrics() if row.get("event") == "diverged"]
    return str(events[-1]["what"]) if events else ""
