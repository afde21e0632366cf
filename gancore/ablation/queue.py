"""Runs the jobs of an ablation, some side by side: train or resume, then measure.

A kill at any moment loses nothing but what came after the last checkpoints: what is next for a job follows from
its run folder, so a queue that starts again goes on where the last one was. Processes that outlive their queue
save and stop (:mod:`.worker`); until they have, their run folders are locked and the new queue lets them be.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gancore.ablation.jobs import (
    OVER,
    AblationFolder,
    Job,
    Status,
    check_trained,
    clear_stump,
    in_use,
    jobs_of,
    keep_evaluation,
    last_step,
    measured_itself,
    read_json,
    status,
    write_failure,
)
from gancore.ablation.plan import Plan
from gancore.atomic import make_folder
from gancore.errors import Interrupted, Preempted, RunFolderError
from gancore.signals import Caught, caught_signals

DIVERGED, FOLDER, PREEMPTED, INTERRUPTED = 5, 8, 75, 130
"""Exit codes of ``gan`` that are no failure of a job."""

POLL = 0.2
"""Seconds between looks at the processes."""

ATTEMPTS = 3
"""Processes of a job that may die by a signal, without a checkpoint between them, before it counts as failed."""


class Process(Protocol):
    """What the queue needs of a process; ``subprocess.Popen`` has it."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


Launch = Callable[[Sequence[str], Path, int], Process]
"""Starts ``gan ARGUMENTS`` with its output added to a log, and CPU threads, 0 for as configured."""


@dataclass(frozen=True)
class Slot:
    """Room for one process: a device, "" for the configured one, and CPU threads, 0 for as configured."""

    device: str = ""
    threads: int = 0


@dataclass(frozen=True)
class Progress:
    """Where the queue is: jobs and steps, all and done."""

    jobs: int
    jobs_over: int
    steps: int
    steps_done: int
    running: tuple[str, ...]


@dataclass
class _Running:
    job: Job
    process: Process
    before: Status


@dataclass
class Queue:
    """The jobs of a plan, run in a folder. The caller holds the folder's lock.

    Args:
        slots: how many processes at once, and where.
        launch: starts a process. say: takes a line for the reader.
        over: called with a job when it is done, diverged or failed.
        tick: called with the progress, several times a second.
        max_hours: save and stop after so many hours; 0 for no limit.
        allow_inexact: resume runs on another machine than the one they were started on.
    """

    folder: AblationFolder
    plan: Plan
    slots: Sequence[Slot]
    launch: Launch
    say: Callable[[str], None] = lambda text: None
    over: Callable[[Job, Status], None] = lambda job, status: None
    tick: Callable[[Progress], None] = lambda progress: None
    max_hours: float = 0.0
    allow_inexact: bool = False
    _running: dict[int, _Running] = field(default_factory=dict)
    _deaths: dict[Job, tuple[int, int]] = field(default_factory=dict)
    _waiting_for: set[Job] = field(default_factory=set)

    def run(self, *, retry_failed: bool = False) -> None:
        """Work until every job is over.

        Args:
            retry_failed: run jobs again that had failed. Those that died by a signal are always tried again.

        Raises:
            Interrupted, Preempted: SIGINT; SIGTERM or ``max_hours``. The processes have saved and stopped.
            RunFolderError: the disk is full, or there are no rights to write.
        """
        self._forget_failures(every=retry_failed)
        jobs = jobs_of(self.plan)
        known = {job: self._status(job) for job in jobs}
        began = time.monotonic()
        with caught_signals(second_stops=False) as caught:
            try:
                while any(found.state not in OVER for found in known.values()):
                    self._collect(known)
                    self._start(known)
                    self.tick(self._progress(known))
                    out_of_time = bool(self.max_hours) and time.monotonic() - began >= self.max_hours * 3600
                    if caught.signal is not None or out_of_time:
                        self._stop(caught)
                    time.sleep(POLL)
            finally:
                self._end_all(caught)

    def _start(self, known: dict[Job, Status]) -> None:
        taken = {running.job for running in self._running.values()}
        open_jobs = [job for job, found in known.items() if found.state not in OVER and job not in taken]
        for index, slot in enumerate(self.slots):
            if index in self._running:
                continue
            for job in open_jobs:
                if in_use(self.folder.run(job)):
                    if job not in self._waiting_for:
                        self.say(f"{job}: a process of an earlier queue still works on it; it is left alone")
                    self._waiting_for.add(job)
                    continue
                if job in self._waiting_for:  # that process may have brought it further
                    self._waiting_for.discard(job)
                    known[job] = self._status(job)
                    if known[job].state in OVER:
                        continue
                open_jobs.remove(job)
                self._begin(index, slot, job, known[job])
                break

    def _begin(self, index: int, slot: Slot, job: Job, found: Status) -> None:
        if found.state == "waiting":
            clear_stump(self.folder.run(job))
        log = self.folder.log(job)
        make_folder(log.parent)
        arguments = command_of(self.folder, self.plan, job, found, slot)
        if arguments[0] == "resume" and self.allow_inexact:
            arguments.append("--allow-inexact")
        threads = slot.threads if arguments[0] == "eval" else 0  # a run's own are in its configuration
        self.say(
            f"{job}: {_DOING[arguments[0]]}{f' from step {found.step:,}' if found.state == 'started' else ''}"
        )
        self._running[index] = _Running(job, self.launch(arguments, log, threads), found)

    def _collect(self, known: dict[Job, Status]) -> None:
        for index, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                continue
            del self._running[index]
            job = running.job
            now = self._after(running, code)
            known[job] = now
            if now.state in OVER:
                self.over(job, now)

    def _after(self, running: _Running, code: int) -> Status:
        """The state of a job whose process has ended; failures are written down."""
        folder, plan, job, before = self.folder, self.plan, running.job, running.before
        if code == FOLDER:
            raise RunFolderError(
                f"{job}: {_last_words(folder.log(job))}; the queue goes on with: {_command(folder)}"
            )
        why = ""
        if code == 0 and before.state == "trained":
            if not keep_evaluation(folder, plan, job):
                why = f"the evaluation left no metrics of step {plan.steps:,}"
        elif code == 0:
            if status(folder, plan, job).state == "trained":
                why = check_trained(folder, plan, job)
            else:
                why = f"the process ended without a checkpoint of step {plan.steps:,}"
        elif code < 0 or code in (PREEMPTED, INTERRUPTED):
            now = status(folder, plan, job)
            deaths, at_step = self._deaths.get(job, (0, now.step))
            deaths = deaths + 1 if at_step == now.step else 1
            self._deaths[job] = (deaths, now.step)
            if deaths < ATTEMPTS:
                self.say(f"{job}: the process ended by {_signal_name(code)}; it is started again")
                return now
            why = f"{deaths} processes ended by {_signal_name(code)} at step {now.step:,}"
            if code == -9:
                why += "; the machine may be short of memory"
        elif code != DIVERGED:
            why = _last_words(folder.log(job))
        if code == DIVERGED and status(folder, plan, job).state != "diverged":
            why = _last_words(folder.log(job))
        if why:
            write_failure(folder, job, code, why)
        return self._status(job)

    def _status(self, job: Job) -> Status:
        """How far a job is; what a run has measured of itself at its end counts as its evaluation."""
        folder, plan = self.folder, self.plan
        found = status(folder, plan, job)
        if found.state == "trained" and measured_itself(folder, plan, job) and keep_evaluation(folder, plan, job):
            return status(folder, plan, job)
        return found

    def _progress(self, known: dict[Job, Status]) -> Progress:
        steps = {job: self.plan.steps if found.state in OVER else found.step for job, found in known.items()}
        for running in self._running.values():
            if running.before.state in ("waiting", "started"):
                steps[running.job] = max(steps[running.job], last_step(self.folder.run(running.job)))
        return Progress(
            len(known),
            sum(found.state in OVER for found in known.values()),
            self.plan.steps * len(known),
            sum(steps.values()),
            tuple(str(running.job) for running in self._running.values()),
        )

    def _stop(self, caught: Caught) -> None:
        """Let the processes save, then say how to go on."""
        received = caught.signal
        count = len(self._running)
        self.say(
            f"stopping: {count} process{'' if count == 1 else 'es'} will save; Ctrl-C once more ends them at once"
        )
        self._end_all(caught)
        way_on = f"saved; continue with: {_command(self.folder)}"
        if received == signal.SIGINT:
            raise Interrupted(f"interrupted, {way_on}")
        if received is not None:
            raise Preempted(f"terminated, {way_on}")
        raise Preempted(f"--max-hours reached, {way_on}")

    def _end_all(self, caught: Caught) -> None:
        """SIGTERM to every process, and wait; a second Ctrl-C kills them: their last checkpoints are whole."""
        for running in self._running.values():
            running.process.terminate()
        while any(running.process.poll() is None for running in self._running.values()):
            if caught.again:
                for running in self._running.values():
                    running.process.kill()
            time.sleep(POLL)
        self._running.clear()

    def _forget_failures(self, *, every: bool) -> None:
        for job in jobs_of(self.plan):
            path = self.folder.failure(job)
            failure = read_json(path)
            if failure is not None and (every or int(failure.get("code", 0)) < 0):
                path.unlink()


_DOING = {"train": "training", "resume": "going on", "eval": "measuring"}


def command_of(folder: AblationFolder, plan: Plan, job: Job, found: Status, slot: Slot) -> list[str]:
    """The arguments of ``gan`` that bring a job further."""
    run = str(folder.run(job).path)
    device = ["--device", slot.device] if slot.device else []
    if found.state == "trained":
        plugins = [word for name in plan.observers for word in ("-p", name)]
        return ["eval", run, "--step", str(plan.steps), *plugins, *device, *_overrides(plan)]
    if found.state == "started":  # the number of threads stays, for the run to be bit-equal
        return ["resume", run, *device]
    threads = ["--threads", str(slot.threads)] if slot.threads else []
    seed = ["--seed", str(job.seed)]
    return ["train", str(folder.config(job.arm)), *seed, "--outdir", run, *device, *threads]


def _overrides(plan: Plan) -> list[str]:
    import tomli_w

    words = []
    for key, value in plan.measuring.items():
        if value is not None:
            text = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
            words += ["-o", f"{key}={text}"]
    return words


def launch(arguments: Sequence[str], log: Path, threads: int = 0) -> Process:
    """Start ``gan ARGUMENTS`` as a process that stops when this one ends, however it ends."""
    try:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ gan {shlex.join(arguments)}\n")
            file.flush()
            return subprocess.Popen(
                [sys.executable, "-m", "gancore.ablation.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})},
                start_new_session=True,  # a Ctrl-C is for the queue, which lets its processes save
            )
    except OSError as error:
        raise RunFolderError(f"cannot start a run with its log in '{log}': {error.strerror or error}") from None


def _command(folder: AblationFolder) -> str:
    """What continues an ablation, ready for a shell."""
    return f"gan ablate {shlex.quote(str(folder.path))}"


def _last_words(log: Path) -> str:
    """The error that a process has left in its log, or its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    except OSError:
        return "no log"
    own = lines[max((i for i, line in enumerate(lines) if line.startswith("$ gan ")), default=-1) + 1 :]
    errors = [line.removeprefix("error: ") for line in own if line.startswith("error: ")]
    return (errors or own or ["it said nothing"])[-1]


def _signal_name(code: int) -> str:
    if code >= 0:
        return {PREEMPTED: "SIGTERM", INTERRUPTED: "SIGINT"}[code]
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
