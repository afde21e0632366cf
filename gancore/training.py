"""Fit a session into a run folder: ticks, snapshots, evaluations, signals, resume."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gancore import checkpoint, pictures
from gancore.advice import Advisor
from gancore.assembly import Session, environment
from gancore.drift import drifted
from gancore.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    GancoreError,
    Interrupted,
    Preempted,
    nearest,
)
from gancore.evaluation import Evaluation, evaluate
from gancore.method import load_method_state, method_state
from gancore.metrics import unlike
from gancore.networks.protocols import Generator
from gancore.run_folder import RunFolder
from gancore.sampling import generate
from gancore.signals import caught_signals
from gancore.sinks import SinkRun, Sinks


@dataclass(frozen=True)
class Tick:
    """Progress, handed to the caller once a tick and once a snapshot."""

    step: int
    steps: int
    images_seen: int
    images_per_second: float
    seconds_left: float
    moments: Mapping[str, Mapping[str, float]]
    snapshot: str | None = None
    warnings: tuple[str, ...] = ()


Report = Callable[[Tick], None]


def fit(session: Session, folder: RunFolder, report: Report | None = None) -> None:
    """Train to the configured number of steps. The caller holds the folder's lock.

    Raises:
        DivergedError: a loss or weight is not finite; the last checkpoint is intact.
        Interrupted, Preempted: a signal came; the run was saved and can be resumed.
        RunFolderError: the folder cannot be written; earlier checkpoints are intact.
    """
    trainer, config = session.trainer, session.config
    output, steps = config.output, config.train.steps
    began, first = time.monotonic(), trainer.step_index
    advisor = Advisor(session.manager, folder.read_metrics())
    last_time, last_step = began, first
    with caught_signals(second_stops=True) as caught, _sinks(session, folder, report) as sinks:
        if first == 0:
            if output.evaluate_every:  # the curve's beginning; and what is missing is found before training
                _evaluate(session, folder, sinks)
            picture = snapshot(session, folder)
            sinks.picture(0, "samples", Path(picture))
            if report is not None:
                report(Tick(0, steps, 0, 0.0, 0.0, {}, picture))
            last_time = time.monotonic()
        elif _evaluation_failed(session, folder):
            _evaluate(session, folder, sinks)
        while trainer.step_index < steps:
            trainer.train_step()
            step = trainer.step_index
            done = step == steps
            out_of_time = bool(output.max_hours) and time.monotonic() - began >= output.max_hours * 3600
            stopping = caught.signal is not None or out_of_time
            ticked = step % output.log_every == 0 or done
            if ticked:
                _check_finite(session, folder)
                now = time.monotonic()
                rate = (step - last_step) * config.train.batch / max(now - last_time, 1e-9)
                last_time, last_step = now, step
                moments = trainer.telemetry.flush()
                row = _row(session, moments, rate)
                folder.append_metrics(row)
                sinks.row(row)
                eager = trainer.graphs.notes if trainer.graphs is not None else ()
                warnings = advisor.warnings(step, moments, [*eager, *sinks.failures()])
                for row in warnings:
                    folder.append_metrics(row)
                if report is not None:
                    left = (steps - step) * (now - began) / max(step - first, 1)
                    said = tuple(f"{row['method']}: {row['what']}" for row in warnings)
                    report(Tick(step, steps, trainer.images_seen, rate, left, moments, warnings=said))
            if output.evaluate_every and (step % output.evaluate_every == 0 or done):
                _evaluate(session, folder, sinks)
                last_time, last_step = time.monotonic(), step
            if step % output.snap == 0 or done or stopping:
                _check_finite(session, folder)
                picture = snapshot(session, folder)
                sinks.picture(step, "samples", Path(picture))
                if report is not None:
                    report(Tick(step, steps, trainer.images_seen, 0.0, 0.0, {}, picture))
                last_time, last_step = time.monotonic(), step
            if stopping and not done:
                _stop(folder, step, caught.signal)


def snapshot(session: Session, folder: RunFolder) -> str:
    """A checkpoint and a sample grid; returns the grid's path."""
    trainer, config = session.trainer, session.config
    tensors, meta = state(session)
    bad = [name for name, tensor in tensors.items() if name.startswith(_MUST_BE_FINITE) and _not_finite(tensor)]
    if bad:
        raise _diverged(session, folder, f"'{bad[0]}' and {len(bad) - 1} more tensors are not finite")
    picture = folder.samples / f"step-{trainer.step_index:08d}.png"
    pictures.save_png(sample_sheet(session), picture)
    meta["metrics_bytes"] = folder.metrics_bytes()
    checkpoint.save(folder.checkpoints, trainer.step_index, tensors, meta)
    best = _best_step(session, folder)
    checkpoint.prune(folder.checkpoints, config.output.keep, trainer.step_index, best)
    return str(picture)


def state(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that a resume needs: tensors by name, and the sidecar's content."""
    trainer = session.trainer
    tensors: dict[str, Tensor] = {}
    for prefix, module in _modules(session).items():
        tensors.update({f"{prefix}{name}": value for name, value in module.state_dict().items()})
    for network, optimizer in trainer.optimizers.items():
        tensors.update({f"optimizer.{network}/{name}": value for name, value in optimizer.state().items()})
    names, sums = trainer.telemetry.state()
    tensors["telemetry.sums"] = sums
    meta = {
        "images_seen": trainer.images_seen,
        "config": session.config.flat(),
        "plugins": plugin_versions(session),
        "environment": environment(session),
        "data": session.dataset.describe(),
        "methods": {name: method_state(method) for name, method in sorted(session.manager.methods.items())},
        "telemetry": names,
    }
    return tensors, meta


def restore(
    session: Session,
    found: checkpoint.Checkpoint,
    *,
    allow_inexact: bool = False,
    allow_drift: tuple[str, ...] = (),
) -> None:
    """Load a checkpoint into a session, or refuse with everything that differs.

    Args:
        allow_inexact: continue on another machine, version or thread count; no longer bit-equal.
        allow_drift: ``"data"`` when the set may differ.

    Raises:
        CheckpointError: drift or another environment, each named with its two values.
    """
    _refuse_data_drift(session, found, allow_drift)
    _refuse_inexact(session, found, allow_inexact)
    problems: list[str] = []
    for prefix, module in _modules(session).items():
        problems += checkpoint.restore_module(module, prefix, found.tensors)
    if problems:
        raise CheckpointError(f"checkpoint step {found.step} does not fit: " + "; ".join(problems[:20]))
    trainer = session.trainer
    for network, optimizer in trainer.optimizers.items():
        prefix = f"optimizer.{network}/"
        optimizer.load_state({n[len(prefix) :]: t for n, t in found.tensors.items() if n.startswith(prefix)})
    trainer.telemetry.load_state(found.meta["telemetry"], found.tensors["telemetry.sums"])
    for name, saved in found.meta["methods"].items():
        if saved and name in session.manager.methods:
            load_method_state(session.manager.methods[name], saved)
    trainer.step_index = found.step


def keep_evaluation(folder: RunFolder, found: Evaluation, *, later: bool = False) -> dict[str, Any]:
    """Save the pictures of an evaluation, and return its row. ``later`` keeps those of training as they are."""
    files = {}
    for name, (picture, _) in found.pictures.items():
        path = folder.picture(name, found.step, later=later)
        pictures.save_png(picture, path)
        files[name] = str(path.relative_to(folder.path))
    return found.row(files)


def sample_sheet(session: Session) -> Any:
    """The sample grid of a run: fixed latents, so that sheets of one run can be compared."""
    generator = session.trainer.ema.model
    assert isinstance(generator, Generator)
    seed, count = session.config.train.seed, session.config.output.grid
    if session.dataset.kind == "points":
        points = generate(generator, 2000, seed, session.device)
        reference = session.dataset.read(torch.arange(min(2000, len(session.dataset))).numpy())
        return pictures.scatter(points, reference)
    if generator.num_classes:
        labels, columns = pictures.class_rows(generator.num_classes, count)
        titles = pictures.class_titles(session.dataset.class_names, labels[:columns])
        return pictures.grid(
            generate(generator, len(labels), seed, session.device, labels), columns, titles=titles
        )
    return pictures.grid(generate(generator, count, seed, session.device))


def plugin_versions(session: Session) -> dict[str, dict[str, str]]:
    """Distribution and version of each method of the run and of its networks."""
    names = [*session.config.methods, session.config.network_name]
    origins = {name: session.registry.origins[name] for name in names}
    return {name: {"distribution": o.distribution, "version": o.version} for name, o in sorted(origins.items())}


# Parts.


def _evaluate(session: Session, folder: RunFolder, sinks: Sinks) -> None:
    """Measure, and keep the result. Where it fails training ends, and is saved first."""
    step = session.trainer.step_index
    try:
        found = evaluate(session)
        if step == 0:
            _check_best(session, found)
    except GancoreError as error:
        if step == 0 or step in checkpoint.steps(folder.checkpoints):
            raise
        with contextlib.suppress(GancoreError):  # the first error is the one to tell
            snapshot(session, folder)
            error.args = (f"{error}. Saved at step {step}; once it is mended: gan resume {folder.path}",)
        raise
    row = keep_evaluation(folder, found)
    folder.append_metrics(row)
    sinks.row(row)
    for name, picture in row.get("pictures", {}).items():
        sinks.picture(row["step"], name, folder.path / picture["file"], picture["caption"])


def _check_best(session: Session, found: Evaluation) -> None:
    metric = session.config.output.keep_best
    if metric and metric not in found.metrics:
        raise ConfigError(
            f"output.keep_best = '{metric}' is not measured{nearest(metric, found.metrics)}; measured are: "
            f"{', '.join(found.metrics) or 'none'}"
        )


def _evaluation_failed(session: Session, folder: RunFolder) -> bool:
    """Whether the run was saved at a step whose measurement failed: it is made up for."""
    step, every = session.trainer.step_index, session.config.output.evaluate_every
    if not every or step % every:
        return False
    return not any("metrics" in row and row["step"] == step for row in folder.read_metrics())


@contextlib.contextmanager
def _sinks(session: Session, folder: RunFolder, report: Report | None) -> Iterator[Sinks]:
    """The sinks of a session, closed at its end, however it ends."""
    trainer, config = session.trainer, session.config
    sinks = Sinks(session.registry, config.output.sinks, SinkRun(folder.path, trainer.step_index, config.flat()))
    try:
        yield sinks
    finally:
        sinks.close()
        failures = tuple(sinks.failures())
        if failures and report is not None:
            seen = trainer.images_seen
            report(Tick(trainer.step_index, config.train.steps, seen, 0.0, 0.0, {}, warnings=failures))


_MUST_BE_FINITE = ("g.", "d.", "ema.", "optimizer.")
"""A method may keep an infinity of its own, such as a minimum of nothing yet."""


def _not_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _modules(session: Session) -> dict[str, torch.nn.Module]:
    trainer = session.trainer
    modules: dict[str, torch.nn.Module] = {
        "g.": trainer.generator,
        "d.": trainer.discriminator,
        "ema.": trainer.ema.model,
    }
    modules.update({f"methods.{key}.": module for key, module in trainer.modules.modules.items()})
    return modules


def _row(session: Session, moments: Mapping[str, Mapping[str, float]], rate: float) -> dict[str, Any]:
    trainer = session.trainer
    return {
        "step": trainer.step_index,
        "images_seen": trainer.images_seen,
        "images_per_second": round(rate, 2),
        **{name: _short(moment["mean"]) for name, moment in moments.items()},
        "std": {name: _short(moment["std"]) for name, moment in moments.items()},
    }


def _short(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None  # JSON has no NaN


def _check_finite(session: Session, folder: RunFolder) -> None:
    if session.trainer.telemetry.is_finite():
        return
    moments = session.trainer.telemetry.flush()
    bad = [name for name, moment in moments.items() if not math.isfinite(moment["mean"])]
    raise _diverged(session, folder, f"not finite: {', '.join(bad[:8]) or 'a loss'}")


def _diverged(session: Session, folder: RunFolder, what: str) -> DivergedError:
    saved = checkpoint.steps(folder.checkpoints)
    last = f"step {saved[-1]}" if saved else "none"
    step = session.trainer.step_index
    folder.append_metrics({"step": step, "event": "diverged", "what": what})
    return DivergedError(
        f"diverged by step {step}: {what}; the last good checkpoint is intact ({last}). "
        "Lower the learning rates, clip gradients (-o optimizer.d.clip_norm=1) or check the methods' weights"
    )


def _best_step(session: Session, folder: RunFolder) -> int | None:
    """The saved step with the best score among those measured as the newest was; None when none was."""
    metric = session.config.output.keep_best
    if not metric:
        return None
    saved = set(checkpoint.steps(folder.checkpoints))
    rows = [row for row in folder.read_metrics() if metric in row.get("metrics", {}) and row["step"] in saved]
    if not rows:
        return None
    newest = rows[-1]["protocols"][metric]
    rows = [row for row in rows if not unlike({"newest": newest, "row": row["protocols"][metric]})]
    sign = -1 if newest["better"] == "higher" else 1
    return int(min((sign * row["metrics"][metric], row["step"]) for row in rows)[1])


def _stop(folder: RunFolder, step: int, received: int | None) -> None:
    how = f"saved at step {step}; continue with: gan resume {folder.path}"
    if received == signal.SIGTERM:
        raise Preempted(f"terminated, {how}")
    if received is not None:
        raise Interrupted(f"interrupted, {how}")
    raise Preempted(f"output.max_hours reached, {how}")


def _refuse_data_drift(session: Session, found: checkpoint.Checkpoint, allowed: tuple[str, ...]) -> None:
    if found.meta["data"]["digest"] != session.dataset.digest and "data" not in allowed:
        raise drifted(found.step, ["data: the set's content or preparation changed (its digest differs)"])


def _refuse_inexact(session: Session, found: checkpoint.Checkpoint, allowed: bool) -> None:
    before, now = found.meta["environment"], environment(session)
    lines = [f"{key}: {before.get(key)} -> {now[key]}" for key in sorted(now) if before.get(key) != now[key]]
    if lines and not allowed:
        raise CheckpointError(
            f"resuming here would not be bit-equal ({'; '.join(lines)}); restore these, or go on with "
            "--allow-inexact"
        )


__all__ = ["Tick", "evaluate", "fit", "generate", "restore", "sample_sheet", "snapshot", "state"]
