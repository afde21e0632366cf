"""What a run folder tells, read without torch and without ever failing on what a kill has left behind."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

from gancore.config import flatten
from gancore.errors import CheckpointError
from gancore.run_folder import RunFolder

State = Literal["not started", "running", "finished", "diverged", "stopped"]

TICK_KEYS = frozenset({"step", "images_seen", "images_per_second", "std"})
"""Keys of a line of metrics that are no curves."""

QUIET = 120.0
"""Seconds without news after which a run counts as stopped, where locks cannot tell."""

TAIL = 64
"""Bytes before the end of what was read, by which a file that was cut and grew again is noticed."""


@dataclass
class RunRecord:
    """A run as its folder shows it at one moment.

    Attributes:
        path: the folder.
        config, origins, versions: of ``config.toml``, the first by dotted key.
        rows: lines of metrics, each with a whole ``step``. evaluations: lines with metrics, in order of step.
        events: warnings, divergence and what else ``metrics.jsonl`` says beside numbers.
        history: lines of ``history.jsonl``: when the run was started, resumed and stopped.
        frames: (step, picture) of the fixed-seed sheets. others: other pictures in ``samples/``.
        saved: steps of checkpoints. sidecar: the newest readable one.
        plan: the step plan, if it was recorded.
        running: whether a process trains in the folder now.
        problems: what could not be read, one sentence each.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    frames: list[tuple[int, Path]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    sidecar: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name or str(self.path)

    @property
    def steps(self) -> int | None:
        """The length of the run, if the configuration tells."""
        steps = self.config.get("train.steps")
        return steps if is_whole(steps) else None

    @property
    def step(self) -> int:
        """How far the run has come, as far as is written."""
        logged = [int(row["step"]) for row in self.rows[-1:]]
        return max([0, *logged, *self.saved[-1:], *(step for step, _ in self.frames[-1:])])

    @property
    def images_seen(self) -> int:
        """Images consumed up to :attr:`step`."""
        batch = self.config.get("train.batch")
        return self.step * batch if is_whole(batch) else 0

    @property
    def state(self) -> State:
        """What has become of the run."""
        if self.running:
            return "running"
        if self.events and self.events[-1].get("event") == "diverged":
            last = self.events[-1].get("step")
            if not self.rows or not is_whole(last) or self.rows[-1]["step"] <= last:
                return "diverged"
        if self.steps is not None and self.step >= self.steps:
            return "finished"
        return "stopped" if self.step or self.rows or self.saved else "not started"


class Rows:
    """The lines of a JSON-lines file that grows; each call of :meth:`read` parses only what is new.

    A file that became shorter, or that was cut and has grown past its old end, is read anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._end = 0
        self._tail = b""

    def read(self) -> list[dict[str, Any]]:
        """All whole lines that hold an object."""
        try:
            with open(self._path, "rb") as file:
                file.seek(max(0, self._end - TAIL))
                if file.read(min(TAIL, self._end)) != self._tail:
                    self._forget()
                    file.seek(0)
                new = file.read()
        except FileNotFoundError:
            self._forget()
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._end += len(whole)
        self._tail = (self._tail + whole)[-TAIL:]
        for line in whole.decode("utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                self._rows.append(row)
        return list(self._rows)

    def _forget(self) -> None:
        self._rows, self._end, self._tail = [], 0, b""


class RunReader:
    """Reads a run folder again and again, as it grows.

    Args:
        path: of the run folder.

    Raises:
        CheckpointError: there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(path)
        self.path = self.folder.path
        self._metrics = Rows(self.folder.metrics)
        self._evaluations = Rows(self.path / "evaluations.jsonl")
        self._history = Rows(self.path / "history.jsonl")

    def read(self) -> RunRecord:
        """The run as it is now.

        Raises:
            CheckpointError: the folder is gone, or its files may not be read.
        """
        record = RunRecord(self.path)
        try:
            self._read_config(record)
            self._read_rows(record)
            self._read_pictures(record)
            self._read_checkpoints(record)
            self._read_plan(record)
            record.running = is_training(self.path)
        except OSError as error:
            raise CheckpointError(
                f"cannot read the run in '{self.path}': {error.strerror or error} ({error.filename})"
            ) from None
        return record

    def _read_config(self, record: RunRecord) -> None:
        try:
            document = tomllib.loads(self.folder.config.read_bytes().decode())
        except ValueError as error:  # TOML's error, or text that is not UTF-8
            record.problems.append(f"config.toml cannot be read: {error}.")
            return
        origins, versions = document.pop("origin", {}), document.pop("versions", {})
        record.origins = {str(k): str(v) for k, v in origins.items()} if isinstance(origins, dict) else {}
        record.versions = versions if isinstance(versions, dict) else {}
        record.config = flatten(document)

    def _read_rows(self, record: RunRecord) -> None:
        for row in self._metrics.read():
            if not is_whole(row.get("step")):
                continue
            if "event" in row:
                record.events.append(row)
            elif isinstance(row.get("metrics"), dict):
                record.evaluations.append(row)
            else:
                record.rows.append(row)
        later = [row for row in self._evaluations.read() if isinstance(row.get("metrics"), dict)]
        record.evaluations += [row for row in later if is_whole(row.get("step"))]
        record.evaluations.sort(key=lambda row: int(row["step"]))
        record.history = self._history.read()

    def _read_pictures(self, record: RunRecord) -> None:
        if not self.folder.samples.is_dir():
            return
        for path in sorted(self.folder.samples.glob("*.png")):
            match = re.fullmatch(r"step-(\d+)\.png", path.name)
            if match:
                record.frames.append((int(match[1]), path))
            elif not path.name.startswith("."):
                record.others.append(path)
        record.frames.sort()

    def _read_checkpoints(self, record: RunRecord) -> None:
        if not self.folder.checkpoints.is_dir():
            return
        found = {}
        for path in self.folder.checkpoints.glob("step-*.json"):
            match = re.fullmatch(r"step-(\d+)\.json", path.name)
            if match:
                found[int(match[1])] = path
        for step in sorted(found, reverse=True):
            sidecar = _read_object(found[step])
            if sidecar is None:
                if found[step].exists():  # not one that training has just deleted
                    record.problems.append(f"checkpoints/{found[step].name} is damaged.")
                continue
            record.saved.insert(0, step)
            record.sidecar = record.sidecar or sidecar

    def _read_plan(self, record: RunRecord) -> None:
        path = self.path / "plan.json"
        if path.exists():
            plan = _read_object(path)
            if plan is None:
                record.problems.append("plan.json is damaged.")
            record.plan = plan or {}


def is_whole(value: object) -> TypeGuard[int]:
    """A count that a float holds exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_number(value: object) -> TypeGuard[float]:
    """A number that fits a float; JSON may hold longer ones."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023


def is_training(path: Path) -> bool:
    """Whether a process holds the lock of a run folder; without locks, whether something was written lately."""
    try:
        import fcntl
    except ImportError:  # Windows
        return time.time() - max((file.stat().st_mtime for file in path.iterdir()), default=0.0) < QUIET
    try:
        with open(path / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def curves(record: RunRecord) -> dict[str, tuple[list[int], list[float | None], list[float | None]]]:
    """Everything logged, by name: steps, means over a tick, their standard deviations (None where unknown)."""
    found: dict[str, tuple[list[int], list[float | None], list[float | None]]] = {}
    for row in record.rows:
        spread = row.get("std")
        spread = spread if isinstance(spread, Mapping) else {}
        for name, value in row.items():
            if name in TICK_KEYS or not (value is None or is_number(value)):
                continue
            steps, values, widths = found.setdefault(name, ([], [], []))
            width = spread.get(name)
            steps.append(row["step"])
            values.append(value)
            widths.append(width if is_number(width) else None)
    return {name: curve for name, curve in sorted(found.items()) if any(v is not None for v in curve[1])}


def speed(record: RunRecord) -> tuple[list[int], list[float]]:
    """Steps, and images a second over the tick that ended there."""
    rows = [row for row in record.rows if is_number(row.get("images_per_second"))]
    rows = [row for row in rows if row["images_per_second"] > 0]
    return [row["step"] for row in rows], [float(row["images_per_second"]) for row in rows]


def training_seconds(record: RunRecord) -> float:
    """Time in training steps, from the logged speeds: without pictures, checkpoints, evaluations and start-up."""
    batch = record.config.get("train.batch")
    if not is_whole(batch):
        return 0.0
    total, before = 0.0, 0
    for step, rate in zip(*speed(record), strict=True):
        total += max(step - before, 0) * batch / rate
        before = step
    return total


def seconds_left(record: RunRecord) -> float | None:
    """Until the end of the run at the median of its latest speeds, or None where nothing tells."""
    latest = sorted(speed(record)[1][-20:])
    batch = record.config.get("train.batch")
    if not latest or record.steps is None or not is_whole(batch):
        return None
    return max(record.steps - record.step, 0) * batch / latest[len(latest) // 2]


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None when the file is gone or holds something else."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None
