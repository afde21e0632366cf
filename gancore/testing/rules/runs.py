"""Rules about whole runs: resumed, without the method, in another order, with other global seeds."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancore import checkpoint
from gancore.assembly import Session
from gancore.errors import GancoreError
from gancore.testing import different, tensors_of
from gancore.testing.bench import STEPS, Bench, Run, outcome, snapshot
from gancore.testing.subject import Breach
from gancore.testing.watched_step import watching
from gancore.testing.witness import NAME, SPEC, Witness
from gancore.training import restore
from gancore.training import state as state_of


def state(bench: Bench) -> str | None:
    """A run that is saved after two steps and restored in a new session goes on, bit for bit, like an unbroken
    one."""
    whole = bench.reference
    with tempfile.TemporaryDirectory() as folder:
        with bench.session() as session:
            for _ in range(STEPS // 2):
                session.trainer.train_step()
            saved = snapshot(session)
            checkpoint.save(Path(folder), STEPS // 2, *state_of(session))
        with bench.session() as session:
            restore(session, checkpoint.load_latest(Path(folder)))
            _check_equal(saved, snapshot(session), "right after the restore")
            for _ in range(STEPS // 2):
                session.trainer.train_step()
            _check_equal(whole, outcome(session), f"after {STEPS // 2} more steps")
    return None


def weight_zero(bench: Bench) -> str | None:
    """A method of weight 0 leaves the run as it is without the method, bit for bit."""
    if bench.owns_objective:
        return f"'{bench.name}' is an objective; without one there is nothing to train"
    if (why := bench.needed_by_companions()) is not None:
        return why
    absent = bench.run(steps=2, plugins=list(bench.companions))
    try:
        present = bench.run({f"{bench.name}.weight": 0.0}, steps=2)
    except GancoreError as error:
        raise Breach(
            f"weight = 0 is refused: {error}",
            expected="the run that it would be without the method",
            fix="leave 'weight' and its range as gancore.api.Options declares them",
        ) from error
    wrong = different(_networks(absent), _networks(present))
    if wrong:
        raise Breach(
            f"{len(wrong)} tensors differ from a run without it, the first is '{wrong[0]}'",
            expected="the same bits",
            fix="everything that the method does hangs on its terms, watches and link; nothing happens at "
            "import, in __init__ or in claims, and options keep the weight that was given",
        )
    return None


def order(bench: Bench) -> str | None:
    """The order of `-p` does not change a bit, unless two links of the augmentation chain are in the run."""
    links = bench.watched.links
    if bench.name in links and len(links) > 1:
        return f"the chain {' -> '.join(links)} follows the order of -p: there it is meaning"
    turned = bench.run(plugins=bench.plugins[::-1])
    wrong = different(bench.reference.tensors, turned.tensors)
    if wrong or bench.reference.states != turned.states:
        raise Breach(
            f"with -p in reverse order '{(wrong or ['a state_dict'])[0]}' differs",
            expected="the same bits",
            fix="no state that methods share: module globals, class attributes, counters in __init__",
        )
    return None


def own_random_stream(bench: Bench) -> str | None:
    """The method draws from `step.rng()`, the same for the same seed, and its presence moves nobody else's draws,
    data or initial weights."""
    if (why := bench.needed_by_companions()) is not None:
        return why
    seen, weights = [], []
    registry = bench.registry_with(SPEC)
    for plugins in (bench.plugins, list(bench.companions)):
        with bench.session(plugins=[*plugins, NAME], registry=registry) as session:
            weights.append(_initial(session, bench.name))
            for _ in range(2):
                session.trainer.train_step()
            witness = session.manager.methods[NAME]
            assert isinstance(witness, Witness)
            seen.append(witness.seen)
    moved = [name for name in different(weights[1], weights[0]) if name in weights[1]]
    if moved:
        raise Breach(
            f"its presence changes the initial '{moved[0]}'"
            + (f" and {len(moved) - 1} more" if moved[1:] else ""),
            expected="the networks and modules that a run without it begins with",
            fix="in setup initialise modules of your own alone, and add them with run.add_module",
        )
    for (phase, index, _, with_it), (_, _, _, without) in zip(*seen, strict=True):
        for name in different(without, with_it):
            raise Breach(
                f"its presence changes the {name} of phase '{phase}' in step {index}",
                expected="the draws and data of a run without it",
                fix="change nothing in place, and draw from step.rng() alone",
            )
    wrong = different(bench.halfway.tensors, bench.run(steps=STEPS // 2).tensors)
    if wrong:
        raise Breach(
            f"two runs of one seed differ, first in '{wrong[0]}'",
            expected="the same bits",
            fix="draw from step.rng(), which depends on seed, step and phase; not from the clock, id or hash",
        )
    if bench.scrutinised.foreign:
        function, where = next(iter(bench.scrutinised.foreign.items()))
        raise Breach(
            f"torch.{function} draws from a generator of its own in its {where}",
            expected="step.rng().torch, or step.rng(stream).torch",
            fix="take the generator of step.rng(): it is keyed by seed, step, phase and method, so that a "
            "resumed run draws the same",
        )
    return None


def no_global_random(bench: Bench) -> str | None:
    """No hook draws from, moves or depends on the global generators of Python, numpy and torch, in setup and
    draws as well."""
    _ = bench.reference  # what is imported on first use is imported by now
    runs = []
    for seed in (1, 2):
        noted = _Globals(bench.name)
        with _global_seeds(seed), watching(noted):
            before = _generators()
            with bench.session() as session:
                built = _generators()
                for _ in range(2):
                    session.trainer.train_step()
                runs.append(outcome(session))
            after = _generators()
        moved = [name for name in before if before[name] != after[name]]
        if moved:
            early = noted.where or (
                "declare, setup or augment" if before[moved[0]] != built[moved[0]] else "a hook"
            )
            raise Breach(
                f"the global generator of {moved[0]} moves, in its {early}",
                expected="generators that are left alone",
                fix="step.rng() for tensors, step.rng().numpy for numbers; in setup gancore keeps torch's own "
                "initialisation apart, other draws take Rng(run.seed, 'a name')",
            )
    wrong = different(runs[0].tensors, runs[1].tensors)
    if wrong:
        raise Breach(
            f"the run depends on global seeds: '{wrong[0]}' differs",
            expected="a run that depends on train.seed alone",
            fix="step.rng() for everything random",
        )
    return None


# Parts.


def _check_equal(first: Run, second: Run, when: str) -> None:
    wrong = different(first.tensors, second.tensors)
    states = [name for name in first.states if first.states[name] != second.states.get(name)]
    if wrong or states:
        what = f"'{wrong[0]}' differs" if wrong else f"the state_dict of '{states[0]}' differs"
        more = f", and {len(wrong) - 1} more tensors" if wrong[1:] else ""
        raise Breach(
            f"{when} {what}{more}",
            expected="the bits of a run that was not interrupted",
            fix="tensors that cross steps are buffers of a module given to run.add_module, numbers are in "
            "state_dict and load_state_dict; nothing else survives a restart",
        )


def _networks(run: Run) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in run.tensors.items()
        if "methods." not in name and name != "telemetry.sums"
    }


def _initial(session: Session, method: str) -> dict[str, Tensor]:
    skipped = (f"methods.{method}.", "optimizer.", "telemetry.")
    return {name: t for name, t in tensors_of(session).items() if not name.startswith(skipped)}


@contextlib.contextmanager
def _global_seeds(seed: int) -> Iterator[None]:
    """Other states of the global generators, and the old ones afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed).get_state())
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _generators() -> Mapping[str, object]:
    """The states of the global generators."""
    return {
        "Python": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index]
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


class _Globals:
    """In which hook the global generators move."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.where = ""
        self._before: Mapping[str, object] = {}

    def begin(self, step: Any) -> None:
        """Of no interest here."""

    def enter(self, step: Any) -> None:
        self._before = _generators()

    def leave(self, step: Any) -> None:
        if not self.where and self._before != _generators():
            self.where = f"{step.doing}, phase '{step.phase}'"

    def read(self, step: Any, view: str, output: str) -> None:
        """Of no interest here."""

    def reached(self, step: Any, attribute: str) -> None:
        """Of no interest here."""

    def drew(self, step: Any, rng: Any) -> None:
        """Of no interest here."""
