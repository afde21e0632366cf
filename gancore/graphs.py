"""A phase of a step as one CUDA graph: recorded once for each set of active terms, then replayed with new inputs.

Everything random, and everything read from the data, is drawn before (``before_d_step``, ``before_g_step``, the
draws of the augmentation chain). What remains of a phase is a function of these draws and of the networks on the
device; a graph holds its kernels and none of its Python. The first :data:`EAGER_FIRST` updates of a program run
eagerly, the next is recorded. A hook that reads what only the host knows, such as ``step.index``, is found then.
At the replay after that the same update is also computed eagerly, and the two must agree. Whatever cannot be
recorded runs eagerly, and :attr:`Graphs.notes` says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gancore.errors import PluginError
from gancore.method import Method, load_method_state, method_state
from gancore.optimizers import NetworkOptimizer
from gancore.program import Program
from gancore.step import Readable, Stash, Step
from gancore.telemetry import Telemetry

EAGER_FIRST = 3
MOST_VARIANTS = 4
"""Recordings of one program whose draws differ in shape or in plain numbers."""

TOLERANCE = {"float32": 1e-3, "bf16": 2e-2, "float64": 1e-9}
"""Largest distance of replayed gradients from eager ones, as a share of their norm."""

Compute = Callable[[Step, Tensor | None], None]


class Recorder(Protocol):
    """Turns a function of fixed memory into a replay of its kernels."""

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Record ``body`` without computing anything; the result computes it."""
        ...


class CudaRecorder:
    """CUDA graphs that share one memory pool, for they never run at the same time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Capture ``body`` on a stream of its own."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            body()
        self._pool = graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay


class RecordedStep(Step):
    """A step whose tensors stay in place; while it is recorded, nothing may depend on the host.

    Args:
        step: the phase to record. draws: copies of its draws.
    """

    __slots__ = ("recording",)

    def __init__(self, step: Step, draws: Mapping[str, Any]) -> None:
        self.recording = False
        for name in Step.__slots__:
            setattr(self, name, getattr(step, name))
        self.labels, self.latents, self.augmentation = draws["labels"], draws["latents"], draws["augmentation"]
        self.stash = Stash(draws["stash"])
        self.d, self.images = Readable(self, self._output), Readable(self, self._image)
        self.outputs, self.built, self.leaves = {}, {}, {}
        self._scores, self._gradients = {}, {}
        self.recording = True

    def follow(self, step: Step) -> None:
        """What hooks see after the phase: the index, keys and positions in the data of ``step``."""
        for name in ("index", "critic", "images_seen", "_key", "_chosen"):
            setattr(self, name, getattr(step, name))

    def __getattribute__(self, name: str) -> Any:
        if name in _HOST and object.__getattribute__(self, "recording"):
            caller = object.__getattribute__(self, "caller")
            doing = object.__getattribute__(self, "doing")
            raise PluginError(f"'{caller}' reads step.{name} in its {doing}; read it in a hook before the step")
        return object.__getattribute__(self, name)


_HOST = frozenset({"index", "critic", "images_seen", "rng", "indices", "mirrored"})


@dataclasses.dataclass
class _Recording:
    """A graph, the step whose tensors are its inputs and outputs, and what it logs."""

    step: RecordedStep
    inputs: list[Tensor]
    records: dict[str, Tensor]
    gradients: list[Tensor]
    replay: Callable[[], None]
    replays: int = 0


class Graphs:
    """Runs phases, by graph where that works.

    Args:
        optimizers: by network. modules: everything that a phase may change on the device.
        precision: of the networks, for the comparison.

    Attributes:
        notes: why programs run eagerly, as sentences.
    """

    def __init__(
        self,
        *,
        recorder: Recorder,
        telemetry: Telemetry,
        optimizers: Mapping[str, NetworkOptimizer],
        modules: Sequence[nn.Module],
        methods: Mapping[str, Method],
        precision: str,
    ) -> None:
        self.notes: list[str] = []
        self._recorder = recorder
        self._telemetry = telemetry
        self._optimizers = optimizers
        self._modules = modules
        self._methods = methods
        self._tolerance = TOLERANCE[precision]
        self._updates: dict[Program, int] = {}
        self._recordings: dict[Program, dict[Hashable, _Recording]] = {}
        self._eager: set[Program] = set()

    @property
    def replayed(self) -> int:
        """Phases that were computed by replay."""
        return sum(each.replays for found in self._recordings.values() for each in found.values())

    def run(self, step: Step, reals: Tensor | None, compute: Compute) -> Step:
        """Compute a phase whose draws are made.

        Args:
            compute: forwards, losses, backward and update of a phase, without a value read on the host.

        Returns:
            The step whose outputs are those of this phase: ``step``, or the recorded one.
        """
        program = step.program
        self._updates[program] = self._updates.get(program, 0) + 1
        if program in self._eager or self._updates[program] <= EAGER_FIRST:
            compute(step, reals)
            return step
        try:
            drawn, signature = flatten((reals, step.draws()))
        except TypeError as error:
            return self._give_up(step, reals, compute, str(error))
        known = self._recordings.setdefault(program, {})
        recording = known.get(signature)
        if recording is None:
            if len(known) == MOST_VARIANTS:
                return self._give_up(
                    step, reals, compute, "shapes or plain numbers among its draws change from step to step"
                )
            states = self._states()
            try:
                recording = known[signature] = self._record(step, reals, compute)
            except Exception as error:  # whatever a third party's hook, or CUDA, has against it
                for name, state in states.items():
                    load_method_state(self._methods[name], state)
                first = (str(error).splitlines() or [""])[0]
                why = first if isinstance(error, PluginError) else f"{type(error).__name__}: {first}"
                return self._give_up(step, reals, compute, why)
        elif recording.replays == 1:
            difference = self._difference(recording, step, reals, compute, drawn)
            if difference:
                del known[signature]
                self._eager.add(program)
                self._note(program, difference)
            return step
        self._replay(recording, drawn)
        recording.step.follow(step)
        return recording.step

    def _record(self, step: Step, reals: Tensor | None, compute: Compute) -> _Recording:
        fixed_reals, draws = _mapped(Tensor.clone, (reals, step.draws()))
        twin = RecordedStep(step, draws)
        inputs, _ = flatten((fixed_reals, draws))
        outside = self._telemetry.take()
        try:
            replay = self._recorder.record(lambda: compute(twin, fixed_reals))
            records = self._telemetry.take()
        finally:
            twin.recording = False
            self._telemetry.take()
            self._telemetry.put(outside)
        parameters = self._optimizers[step.program.network].parameters
        gradients = [p.grad for p in parameters if p.grad is not None]
        return _Recording(twin, inputs, records, gradients, replay)

    def _replay(self, recording: _Recording, drawn: list[Tensor]) -> None:
        with torch.no_grad():
            for fixed, new in zip(recording.inputs, drawn, strict=True):
                fixed.copy_(new)
        recording.replay()
        recording.replays += 1
        self._telemetry.put(recording.records)

    def _difference(
        self, recording: _Recording, step: Step, reals: Tensor | None, compute: Compute, drawn: list[Tensor]
    ) -> str:
        """Compute the update by replay, undo it, compute it eagerly; what differs, or nothing."""
        outside = self._telemetry.take()
        before = [(tensor, tensor.clone()) for tensor in self._tensors()]
        states = self._states()
        self._replay(recording, drawn)
        replayed = [gradient.clone() for gradient in recording.gradients]
        losses = {name: value.clone() for name, value in self._telemetry.take().items()}
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        self._telemetry.put(outside)
        compute(step, reals)
        changed = [name for name, state in self._states().items() if state != states[name]]
        if changed:
            return f"'{changed[0]}' counts on the host inside the step; count in a tensor on the device"
        eager = [p.grad for p in self._optimizers[step.program.network].parameters if p.grad is not None]
        distance = _distance(replayed, eager)
        if distance > self._tolerance:
            return f"replayed gradients are {distance:.2g} of their norm away from eager ones"
        now = self._telemetry.peek()
        far = [n for n, v in losses.items() if n.startswith("loss/") and not _near(v, now[n], self._tolerance)]
        return f"'{far[0]}' differs between replay and eager" if far else ""

    def _states(self) -> dict[str, dict[str, Any]]:
        return {name: method_state(method) for name, method in self._methods.items()}

    def _tensors(self) -> Iterator[Tensor]:
        for module in self._modules:
            yield from (parameter.detach() for parameter in module.parameters())
            yield from module.buffers()
        for optimizer in self._optimizers.values():
            yield from optimizer.state().values()

    def _give_up(self, step: Step, reals: Tensor | None, compute: Compute, why: str) -> Step:
        self._eager.add(step.program)
        self._note(step.program, why)
        compute(step, reals)
        return step

    def _note(self, program: Program, why: str) -> None:
        terms = ", ".join(term.key for term in program.terms)
        self.notes.append(f"phase '{program.phase}' ({terms}) runs without a CUDA graph: {why}")


def flatten(value: Any) -> tuple[list[Tensor], Hashable]:
    """The tensors in nested draws, and everything else about them: structure, shapes, types, plain numbers.

    Raises:
        TypeError: something is neither a tensor nor plain nor a container of such.
    """
    tensors: list[Tensor] = []

    def visit(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _mapped(visit, value)
    return tensors, _signature(value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with ``function`` of each tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(function, part) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(_mapped(function, part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **_mapped(function, parts))
    raise TypeError(
        f"a {type(value).__name__} among its draws; expected tensors, plain numbers, and dataclasses, tuples or "
        "dictionaries of them"
    )


def _signature(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device.type)
    if isinstance(value, Mapping):
        return tuple((key, _signature(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(_signature(part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(_signature(getattr(value, field.name)) for field in dataclasses.fields(value))
    return (type(value).__name__, value)


def _distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    if len(ours) != len(theirs):
        return float("inf")
    if not ours:
        return 0.0
    off = torch.stack([(a - b).double().square().sum() for a, b in zip(ours, theirs, strict=True)]).sum()
    size = torch.stack([b.double().square().sum() for b in theirs]).sum()
    found = (off / size.clamp(min=1e-30)).sqrt().item()
    return found if found == found else float("inf")


def _near(value: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool(torch.isclose(value.double(), other.double(), rtol=tolerance, atol=tolerance))
