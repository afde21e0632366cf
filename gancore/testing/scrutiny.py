"""What a method's hooks ask of torch in a step: operations that wait for the device, generators of its own."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gancore.step import Step


class Scrutiny(contextlib.ExitStack):
    """Every operation of a method's hooks in a step, as far as torch shows it.

    Attributes:
        waits: operation that makes the host wait for the device -> where.
        foreign: random function that draws from a generator other than those of ``step.rng()`` -> where.
    """

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.waits: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self._step: Step | None = None
        self._rngs: list[Any] = []

    def __enter__(self) -> Scrutiny:
        super().__enter__()
        self.enter_context(_Functions(self))
        self.enter_context(_Operations(self))
        return self

    @property
    def active(self) -> bool:
        """Whether the method is at work."""
        return self._step is not None

    def note(self, found: dict[str, str], what: str) -> None:
        """Remember the first place of a finding."""
        if self._step is not None and what not in found:
            found[what] = f"{self._step.doing}, phase '{self._step.phase}', {_where()}"

    def is_own(self, generator: object) -> bool:
        """Whether a generator is one that ``step.rng()`` has handed out."""
        return any(rng._torch is generator for rng in self._rngs)

    def begin(self, step: Step) -> None:
        self._rngs = []

    def enter(self, step: Step) -> None:
        self._step = step

    def leave(self, step: Step) -> None:
        self._step = None

    def read(self, step: Step, view: str, output: str) -> None:
        """Of no interest here."""

    def reached(self, step: Step, attribute: str) -> None:
        """Of no interest here."""

    def drew(self, step: Step, rng: Any) -> None:
        self._rngs.append(rng)


_HOST = frozenset(
    {
        "item",
        "tolist",
        "cpu",
        "numpy",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__array__",
        "__complex__",
    }
)
_WAITING = frozenset(
    {
        "_local_scalar_dense",
        "nonzero",
        "nonzero_numpy",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
        "bincount",
    }
)


class _Functions(TorchFunctionMode):
    """Calls from Python: what brings a value to the host, and generators."""

    def __init__(self, scrutiny: Scrutiny) -> None:
        super().__init__()
        self._scrutiny = scrutiny

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._scrutiny.active:
            name = getattr(func, "__name__", "")
            if name in _HOST:
                self._scrutiny.note(self._scrutiny.waits, f".{name}()")
            generator = kwargs.get("generator")
            if generator is not None and not self._scrutiny.is_own(generator):
                self._scrutiny.note(self._scrutiny.foreign, name)
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations that composite functions come down to."""

    def __init__(self, scrutiny: Scrutiny) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scrutiny = scrutiny

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._scrutiny.active:
            name = func.overloadpacket.__name__
            if name in _WAITING:
                self._scrutiny.note(self._scrutiny.waits, f"aten.{name}")
            elif name == "repeat_interleave" and not (kwargs or {}).get("output_size"):
                self._scrutiny.note(self._scrutiny.waits, "repeat_interleave without output_size")
            elif name in ("index", "index_put", "index_put_", "_unsafe_index"):
                chosen = [tensor for tensor in args[1] if tensor is not None]
                if any(tensor.dtype in (torch.bool, torch.uint8) for tensor in chosen):
                    self._scrutiny.note(self._scrutiny.waits, "indexing with a mask")
        return func(*args, **(kwargs or {}))


def _where() -> str:
    """File and line of the innermost frame that is neither torch's nor the kit's."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename.replace("\\", "/")
        if "/torch/" not in path and "/gancore/testing/" not in path and "/gancore/step" not in path:
            return f"{path}:{frame.lineno}"
    return "an unknown line"
