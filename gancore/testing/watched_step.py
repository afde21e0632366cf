"""Look over a method's shoulder in a step, without changing a bit of the run.

The step of the trainer is replaced by one that notes who the caller is. Everything between two changes of caller
is the work of one hook, view, link or score function of one method.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from unittest import mock

from torch import Tensor

import gancore.trainer
from gancore.step import Step

CORE_ATTRIBUTES = ("outputs", "built", "leaves")
"""What a step holds for the core."""


class Observer(Protocol):
    """Whoever wants to know when the method is at work."""

    method: str

    def begin(self, step: Step) -> None:
        """A step was made."""

    def enter(self, step: Step) -> None:
        """The method's code is about to run."""

    def leave(self, step: Step) -> None:
        """It has run; ``step.doing`` says what."""

    def read(self, step: Step, view: str, output: str) -> None:
        """It has read an output of a view."""

    def reached(self, step: Step, attribute: str) -> None:
        """It has read an attribute of the step that belongs to the core."""

    def drew(self, step: Step, rng: Any) -> None:
        """It has asked for its random numbers."""


@contextlib.contextmanager
def watching(observer: Observer) -> Iterator[None]:
    """Steps made inside tell ``observer`` what its method does."""
    with mock.patch.object(gancore.trainer, "Step", _step_class(observer)):
        yield


class _Seen:
    """An output of D that notes what is read of it."""

    def __init__(self, output: Any, note: Callable[[str], None]) -> None:
        self._output = output
        self._note = note

    @property
    def logits(self) -> Tensor:
        self._note("logits")
        return self._output.logits  # type: ignore[no-any-return]

    @property
    def taps(self) -> _SeenTaps:
        return _SeenTaps(self._output.taps, self._note)


class _SeenTaps:
    def __init__(self, taps: Any, note: Callable[[str], None]) -> None:
        self._taps = taps
        self._note = note

    def __getitem__(self, tap: str) -> Tensor:
        self._note(tap)
        return self._taps[tap]  # type: ignore[no-any-return]


_CALLER: Any = vars(Step)["caller"]
"""The slot that the property below stands before."""


def _is_core(module: str) -> bool:
    return module.startswith("gancore.") and not module.startswith("gancore.builtins")


def _step_class(observer: Observer) -> type[Step]:
    """A step that reports to the observer; a class for each, since a step has no room for more attributes."""

    def at_work(step: Step) -> bool:
        return step.caller == observer.method

    class Watched(Step):
        __slots__ = ()

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            observer.begin(self)

        @property
        def caller(self) -> str:
            return _get(self)

        @caller.setter
        def caller(self, name: str) -> None:
            before = _get(self)
            if before == observer.method != name:
                observer.leave(self)
            _CALLER.__set__(self, name)
            if name == observer.method != before:
                observer.enter(self)

        def _output(self, view: str, allowed: frozenset[str]) -> Any:
            output = super()._output(view, allowed)
            if not at_work(self):
                return output
            return _Seen(output, lambda name: observer.read(self, view, name))

        def _image(self, view: str, allowed: frozenset[str]) -> Tensor:
            if at_work(self):
                observer.read(self, view, "images")
            return super()._image(view, allowed)

        def scores(self, side: str) -> Tensor:
            scores = super().scores(side)
            if at_work(self):
                observer.read(self, "scores of", side)
                observer.read(self, self.canonical(side), "logits")
            return scores

        def margin(self, side: str) -> Tensor:
            margin = super().margin(side)
            if at_work(self):
                observer.read(self, "margin of", side)
            return margin

        def input_gradient(self, term: str) -> Tensor:
            gradient = super().input_gradient(term)
            key = f"{observer.method}/{term}"
            penalty = next((t.penalty for t in self.program.terms if t.key == key), None)
            if at_work(self) and penalty is not None:
                if penalty.output == "scores":
                    observer.read(self, "scores of", penalty.view)
                    observer.read(self, self.canonical(penalty.view), "logits")
                else:
                    observer.read(self, self.canonical(penalty.view), penalty.output)
            return gradient

        def rng(self, stream: str = "") -> Any:
            rng = super().rng(stream)
            if at_work(self):
                observer.drew(self, rng)
            return rng

    for attribute in CORE_ATTRIBUTES:
        setattr(Watched, attribute, _guarded(attribute, observer))
    return Watched


def _get(step: Step) -> str:
    try:
        return str(_CALLER.__get__(step))
    except AttributeError:  # not set yet
        return ""


def _guarded(attribute: str, observer: Observer) -> property:
    slot = vars(Step)[attribute]

    def get(step: Step) -> Any:
        reader = sys._getframe(1).f_globals.get("__name__", "")
        if step.caller == observer.method and not _is_core(reader):
            observer.reached(step, attribute)
        return slot.__get__(step)

    return property(get, lambda step, value: slot.__set__(step, value))
