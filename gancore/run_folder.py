"""The files of a run: ``config.toml``, ``metrics.jsonl``, samples, checkpoints, and what was measured."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gancore.atomic import write_atomic
from gancore.errors import CheckpointError, ConfigError, RunFolderError

LOCK_TRIES = 3
"""Who only asks whether a run is training, such as ``gan watch``, holds its lock for a moment."""


class RunFolder:
    """Paths and writers of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.history = self.path / "history.jsonl"
        self.plan = self.path / "plan.json"
        self.pictures = self.path / "pictures"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | Path, config: str) -> RunFolder:
        """A new run folder with its ``config.toml``.

        Raises:
            ConfigError: it holds a run already, or something else; nothing is touched.
            RunFolderError: it cannot be written; the folders that were made are taken away again.
        """
        cls.refuse_taken(path)
        folder = cls(path)
        made: list[Path] = []
        try:
            with _writing(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
                for part in (folder.samples, folder.checkpoints):
                    part.mkdir()
                    made.append(part)
            folder.write_config(config)
        except RunFolderError:
            for part in reversed(made):  # only what this call has made
                with contextlib.suppress(OSError):
                    part.rmdir()
            raise
        return folder

    @classmethod
    def refuse_taken(cls, path: str | Path) -> None:
        """Find out, before any data is read, that a run folder cannot be made here.

        Raises:
            ConfigError: it holds a run already, or something else. RunFolderError: no rights.
        """
        folder = cls(path)
        if folder.config.exists() or folder.checkpoints.exists():
            raise ConfigError(
                f"'{path}' already holds a run; choose another --outdir, or continue it with: gan resume {path}"
            )
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            raise ConfigError(f"'{path}' exists and is not an empty folder; choose another --outdir")
        parent = next(p for p in (folder.path, *folder.path.absolute().parents) if p.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise RunFolderError(f"cannot write '{path}': no rights to write in '{parent}'")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder.

        Raises:
            CheckpointError: there is no run in it.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise CheckpointError(f"'{path}' holds no run: '{folder.config}' is missing")
        return folder

    def write_config(self, text: str) -> None:
        """Write ``config.toml``."""
        write_atomic(self.config, text.encode())

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write the step plan, ``plan.json``."""
        write_atomic(self.plan, json.dumps(plan, indent=1, default=str).encode())

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Add a line to ``history.jsonl``, which a resume leaves alone."""
        _append(self.history, line)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        _append(self.metrics, row)

    def metrics_bytes(self) -> int:
        """Size of ``metrics.jsonl``."""
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def truncate_metrics(self, size: int) -> None:
        """Drop what was logged after a checkpoint."""
        if self.metrics_bytes() > size:
            with _writing(self.metrics):
                os.truncate(self.metrics, size)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines of ``metrics.jsonl``."""
        return _read_rows(self.metrics)

    def append_evaluation(self, row: Mapping[str, Any]) -> None:
        """Add a line to ``evaluations.jsonl``: what was measured after training, which a resume leaves alone."""
        _append(self.evaluations, row)

    def read_evaluations(self) -> list[dict[str, Any]]:
        """What was measured while training and after it, in order of step, then of time."""
        rows = [row for row in (*self.read_metrics(), *_read_rows(self.evaluations)) if _is_evaluation(row)]
        return sorted(rows, key=lambda row: int(row["step"]))

    def picture(self, name: str, step: int, *, later: bool = False) -> Path:
        """Where a picture of an evaluation is kept; its folder is made.

        Args:
            later: measured after training: under a number of its own, since a step may be measured many times.
        """
        with _writing(self.pictures):
            self.pictures.mkdir(exist_ok=True)
            path = self.pictures / f"{name}-{step:08d}.png"
            for number in itertools.count(1) if later else ():
                path = self.pictures / f"{name}-{step:08d}-{number}.png"
                with contextlib.suppress(FileExistsError):
                    path.touch(exist_ok=False)  # atomic: no other process gets this number
                    break
        return path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from training in the same folder.

        Raises:
            ConfigError: another process is.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks of this kind
            yield
            return
        with contextlib.ExitStack() as stack:
            with _writing(self.path):
                file = stack.enter_context(open(self.path / ".lock", "w"))
            for left in reversed(range(LOCK_TRIES)):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not left:
                        raise ConfigError(
                            f"another process is training in '{self.path}'; wait for it or stop it"
                        ) from None
                    time.sleep(0.05)
                    continue
                except OSError:
                    pass  # a file system without locks
                break
            yield


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line in one write, on a line of its own where a kill has cut the last one short."""
    with _writing(path), open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        cut = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * cut + json.dumps(row).encode() + b"\n")


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    kinds = {"step": int, "metrics": dict, "protocols": dict}
    return all(isinstance(row.get(key), kind) for key, kind in kinds.items())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON objects; a line that a kill cut short is passed over."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def claim_default(parent: str | Path, label: str) -> Path:
    """Make and return the first free ``parent/NNN-label``; two processes never get the same one.

    Raises:
        RunFolderError: ``parent`` cannot be written.
    """
    parent = Path(parent)
    with _writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            claim = parent / f".{number:03d}"
            try:
                claim.mkdir()  # atomic, whatever the label
            except FileExistsError:
                continue
            try:
                if not any(parent.glob(f"{number:03d}-*")):
                    path = parent / f"{number:03d}-{label}"
                    path.mkdir()
                    return path
            finally:
                claim.rmdir()
    raise AssertionError("unreachable: counting does not end")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"cannot write '{path}': {error.strerror or error}") from None
