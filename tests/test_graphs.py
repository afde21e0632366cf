"""Recorded phases: what is replayed is what would have been computed, and what cannot be says why.

No GPU is needed: :class:`Playback` keeps the Python of a phase, with everything that the host knew when it was
recorded, and plays it on the memory that the inputs are copied into. Real captures are in ``test_gpu.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from methods_for_tests import ALL, spec_of
from torch import Tensor

from gancore.api import Method, Step, StepKey, hookimpl
from gancore.assembly import Session
from gancore.graphs import EAGER_FIRST, MOST_VARIANTS, flatten
from gancore.method import load_method_state
from gancore.testing import different, registry_with, run_steps, tensors_of, tiny_session

MIX = ["adaptivemix", "shrink", "head", "brighten", "r1"]
DRAW = StepKey[object]("draw")
HOST = {"number": 0}
"""A number of the host; a recording keeps what it was."""


class Playback:
    """Stands for CUDA graphs on a CPU."""

    def __init__(self, session: Session) -> None:
        trainer = self.trainer = session.trainer
        compute = trainer._compute

        def anew(step: Step, reals: Tensor | None) -> None:
            for computed in (step.outputs, step.built, step.leaves, step._scores, step._gradients):
                computed.clear()
            compute(step, reals)

        trainer._compute = anew
        trainer.record_with(self)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        before = [(tensor, tensor.clone()) for tensor in self.trainer.graphs._tensors()]
        try:
            body()
            handed_out = self._results()
        finally:  # a recording computes nothing
            with torch.no_grad():
                for tensor, value in before:
                    tensor.copy_(value)

        number = HOST["number"]

        def replay() -> None:
            now, HOST["number"] = HOST["number"], number
            outside = self.trainer.telemetry.take()
            states = self.trainer.graphs._states()
            body()
            HOST["number"] = now
            for name, state in states.items():  # a replay runs no Python
                load_method_state(self.trainer.manager.methods[name], state)
            for name, value in self._results().items():
                handed_out[name].copy_(value)
            self.trainer.telemetry.take()
            self.trainer.telemetry.put(outside)

        return replay

    def _results(self) -> dict[object, Tensor]:
        gradients = {
            (network, name): parameter.grad
            for network, optimizer in self.trainer.optimizers.items()
            for name, parameter in optimizer.named.items()
            if parameter.grad is not None
        }
        return {**self.trainer.telemetry.peek(), **gradients}


def played(plugins, overrides=None, registry=None, steps=8) -> tuple[Session, Session]:
    """A run by playback, and the same run as ever."""
    played, plain = (tiny_session(plugins, overrides, registry) for _ in range(2))
    Playback(played)
    return run_steps(played, steps), run_steps(plain, steps)


@pytest.mark.parametrize(
    ("lazy", "steps"),
    [pytest.param("merge", 100, marks=pytest.mark.slow), ("merge", 12), ("separate", 12)],
)
def test_replayed_steps_are_bit_equal(lazy, steps) -> None:
    overrides = {"r1.every": 3, "train.lazy": lazy, "train.n_critic": 2, "data.conditional": True}
    ours, theirs = played(MIX, overrides, registry_with(*ALL), steps)
    assert ours.trainer.graphs.notes == []
    assert ours.trainer.graphs.replayed > 2 * steps
    assert not different(tensors_of(ours), tensors_of(theirs))
    assert ours.trainer.telemetry.flush() == theirs.trainer.telemetry.flush()


@pytest.mark.parametrize(
    "method",
    [
        "ada",
        "kdd",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("diffaugment", "augself", "icr", "cnlsgan")),
    ],
)
def test_every_method_can_be_replayed(method) -> None:
    ours, theirs = played([method], {"data.conditional": True}, steps=10)
    if method == "ada":
        assert ours.trainer.chain.links
    assert ours.trainer.graphs.notes == []
    assert ours.trainer.graphs.replayed >= 10
    assert not different(tensors_of(ours), tensors_of(theirs))


class Odd(Method):
    """One term in D; what it draws or counts is up to the class."""

    calls = 0

    @hookimpl
    def declare(self, plan) -> None:
        plan.term("odd", "d", reads={"real": ("logits",)})

    @hookimpl
    def before_d_step(self, step: Step) -> None:
        step.stash[DRAW] = self.drawn(step)

    @hookimpl
    def d_loss(self, step: Step):
        if not step.wants("odd"):
            return None
        return self.terms(odd=(step.d["real"].logits * self.factor(step)).mean())

    def drawn(self, step: Step) -> object:
        return None

    def factor(self, step: Step) -> float | Tensor:
        return 1.0


class ReadsTheIndex(Odd):
    def factor(self, step: Step) -> float:
        return 1.0 + step.index


class DrawsInTheLoss(Odd):
    def factor(self, step: Step) -> Tensor:
        return step.rng().uniform()


class BakesANumberIn(Odd):
    def drawn(self, step: Step) -> None:
        HOST["number"] = step.index

    def factor(self, step: Step) -> float:
        return 1.0 + HOST["number"]


class CountsOnTheHost(Odd):
    def factor(self, step: Step) -> float:
        self.calls += 1
        return 1.0

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state) -> None:
        self.calls = state["calls"]


class DrawsAnObject(Odd):
    def drawn(self, step: Step) -> object:
        return object()


class DrawsAnotherNumber(Odd):
    def drawn(self, step: Step) -> object:
        return {"number": step.index}


class DrawsOneOfTwo(Odd):
    def drawn(self, step: Step) -> object:
        return 0.5 if step.index % 2 else 2.0

    def factor(self, step: Step) -> float:
        return step.stash[DRAW]


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (ReadsTheIndex, "'odd' reads step.index in its d_loss; read it in a hook before the step"),
        (DrawsInTheLoss, "'odd' reads step.rng in its d_loss"),
        (BakesANumberIn, "of their norm away from eager ones"),
        (CountsOnTheHost, "'odd' counts on the host inside the step"),
        (DrawsAnObject, "a object among its draws"),
        (DrawsAnotherNumber, "plain numbers among its draws change"),
        (DrawsOneOfTwo, ""),
    ],
)
def test_what_cannot_be_replayed_runs_eagerly_and_says_why(cls, why) -> None:
    registry = registry_with(spec_of(cls, "odd"))
    ours, theirs = played(["odd"], {"network.name": "mlp"}, registry, 16)
    assert not different(tensors_of(ours), tensors_of(theirs))
    assert ours.trainer.telemetry.flush() == theirs.trainer.telemetry.flush()
    notes = ours.trainer.graphs.notes
    assert len(notes) == bool(why), notes
    if why:
        assert notes[0].startswith("phase 'd' (")
        assert "odd/odd" in notes[0]
        assert why in notes[0]
    assert ours.manager.methods["odd"].calls == theirs.manager.methods["odd"].calls
    # G's phase is another program.
    assert ours.trainer.graphs.replayed >= 16 - EAGER_FIRST


def test_a_failed_recording_changes_nothing() -> None:
    ours, theirs = (tiny_session(MIX, None, registry_with(*ALL)) for _ in range(2))

    class Fails:
        def record(self, body):
            body_began.append(True)
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    body_began: list[bool] = []
    ours.trainer.record_with(Fails())
    run_steps(ours, 8), run_steps(theirs, 8)
    assert not different(tensors_of(ours), tensors_of(theirs))
    notes = ours.trainer.graphs.notes
    assert len(notes) == len(body_began) == 2
    assert all(note.endswith("RuntimeError: operation not permitted when stream is capturing") for note in notes)


class Pair(NamedTuple):
    first: Tensor
    second: int


@dataclass(frozen=True)
class Draw:
    mix: Tensor
    pair: Pair


def test_draws_of_any_nesting_are_found() -> None:
    one, two, three = torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(())
    value = {"a": [one, None, (two, "x")], "b": Draw(three, Pair(one, 4))}
    tensors, signature = flatten(value)
    assert [id(tensor) for tensor in tensors] == [id(one), id(two), id(three), id(one)]
    assert signature == flatten({"a": [one + 1, None, (two, "x")], "b": Draw(three, Pair(one, 4))})[1]
    for other in (
        {"a": [one, None, (two, "y")], "b": Draw(three, Pair(one, 4))},
        {"a": [one, None, (two.float(), "x")], "b": Draw(three, Pair(one, 4))},
        {"a": [one, None, (two, "x")], "b": Draw(three, Pair(one, 5))},
        {"a": [one[:1], None, (two, "x")], "b": Draw(three, Pair(one, 4))},
    ):
        assert flatten(other)[1] != signature
    assert MOST_VARIANTS >= 2
