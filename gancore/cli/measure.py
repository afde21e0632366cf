"""Time and memory of a step, measured on an assembled session that is then thrown away."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import torch

from gancore.compute import peak_memory
from gancore.graphs import EAGER_FIRST
from gancore.limits import now

if TYPE_CHECKING:
    from gancore.assembly import Session
    from gancore.trainer import Trainer

REPEATS = 3
DUE, NOT_DUE = "every_term_due", "lazy_terms_not_due"
_LONGEST_CYCLE = 10_000

Timings = dict[str, dict[str, list[float]]]


def measure(session: Session) -> dict[str, Any]:
    """Median seconds of every phase, with all terms due and without the lazy ones; the peak of memory.

    A step is run to warm up, on a GPU as many as it takes to record graphs, then three. Nothing is written. The
    session's weights move, so it is of no use afterwards.
    """
    device, config = session.device, session.config
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timings: Timings = {phase: {} for phase in session.plan.phases}
    rest = _run(session, 0, timings)
    if any(interval > 1 for phase in session.plan.phases for interval in _intervals(session, phase)):
        rest += _run(session, 1, timings)
    phases = {
        phase: {case: statistics.median(seconds) for case, seconds in cases.items()}
        for phase, cases in timings.items()
    }
    step = statistics.median(rest)
    for phase, seconds in phases.items():
        updates = config.train.n_critic if phase[0] == "d" else 1
        shares = _shares(session, phase)
        step += updates * sum(share * seconds.get(case, seconds.get(DUE, 0.0)) for case, share in shares.items())
    return {
        "phase_seconds": phases,
        "step_seconds": step,
        "images_per_second": config.train.batch / step,
        "run_seconds": step * config.train.steps,
        "peak_memory_bytes": peak_memory(device),
        "memory_of": str(device) if device.type == "cuda" else "the process",
    }


def _run(session: Session, index: int, timings: Timings) -> list[float]:
    """Time the phases of steps at ``index``; return what these steps spent outside of phases."""
    trainer, plan, device = session.trainer, session.plan, session.device
    update = trainer.update
    inside: list[float] = []
    warm = False

    def timed(phase: str, critic: int) -> None:
        program = plan.program(phase, trainer.d_updates + critic if phase[0] == "d" else trainer.step_index)
        began = now(device)
        update(phase, critic)
        seconds = now(device) - began
        inside.append(seconds)
        if program is not None and warm:
            case = DUE if program is plan.full_program(phase) else NOT_DUE
            timings[phase].setdefault(case, []).append(seconds)

    rest = []
    trainer.update = timed  # type: ignore[method-assign]
    try:
        cold = cold_steps(trainer)
        for repeat in range(REPEATS + cold):
            warm = repeat >= cold
            trainer.step_index = index
            inside.clear()
            began = now(device)
            trainer.train_step()
            if warm:
                rest.append(max(now(device) - began - sum(inside), 0.0))
    finally:
        trainer.update = update  # type: ignore[method-assign]
    return rest


def _intervals(session: Session, phase: str) -> list[int]:
    program = session.plan.full_program(phase)
    return [term.every for term in program.terms] if program is not None else []


def _shares(session: Session, phase: str) -> dict[str, float]:
    """The share of updates at which all terms of a phase are due, and at which only some are."""
    cycle = min(math.lcm(*_intervals(session, phase)), _LONGEST_CYCLE)
    programs = [session.plan.program(phase, update) for update in range(cycle)]
    full = sum(program is session.plan.full_program(phase) for program in programs)
    some = sum(program is not None for program in programs) - full
    return {DUE: full / cycle, NOT_DUE: some / cycle}


def cold_steps(trainer: Trainer) -> int:
    """Steps before the first that counts: on a GPU until graphs are recorded and compared."""
    return 1 if trainer.graphs is None else EAGER_FIRST + 3
