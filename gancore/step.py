"""What a hook sees of one phase of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from gancore import ranks
from gancore.errors import PluginError
from gancore.randomness import Rng

if TYPE_CHECKING:
    from gancore.plan import StepPlan
    from gancore.program import Program

T = TypeVar("T")


class StepKey(Generic[T]):
    """A private, typed key into ``step.stash``. Make one a module: ``DRAW = StepKey[MixDraw]("draw")``."""

    def __init__(self, name: str = "") -> None:
        self.name = name or "value"


class Stash:
    """Data that a method keeps between the hooks of one phase."""

    def __init__(self, values: Mapping[StepKey[Any], Any] | None = None) -> None:
        self.values: dict[StepKey[Any], Any] = dict(values or {})

    def __getitem__(self, key: StepKey[T]) -> T:
        if key not in self.values:
            raise PluginError(
                f"step.stash holds no '{key.name}': no hook of this phase has set it; draw it in before_d_step "
                "and before_g_step"
            )
        return self.values[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: StepKey[T], value: T) -> None:
        self.values[key] = value

    def __contains__(self, key: StepKey[Any]) -> bool:
        return key in self.values


class DOutput:
    """What D says of one view, as far as the reader declared it; in float32 or wider."""

    __slots__ = ("_refuse", "_tensors")

    def __init__(self, tensors: Mapping[str, Tensor], refuse: Callable[[str], PluginError]) -> None:
        self._tensors = tensors
        self._refuse = refuse

    @property
    def logits(self) -> Tensor:
        """(B,)."""
        return self._read("logits")

    @property
    def taps(self) -> _Taps:
        """Tap name -> features (B, …)."""
        return _Taps(self._read)

    def _read(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise self._refuse(name)
        return self._tensors[name]


class _Taps:
    __slots__ = ("_read",)

    def __init__(self, read: Callable[[str], Tensor]) -> None:
        self._read = read

    def __getitem__(self, tap: str) -> Tensor:
        return self._read(tap)


class Readable(Generic[T]):
    """Views by name, as far as the calling method declared that it reads them."""

    def __init__(self, step: Step, show: Callable[[str, frozenset[str]], T]) -> None:
        self._step = step
        self._show = show

    def __getitem__(self, view: str) -> T:
        name = self._step.canonical(view)
        allowed = self._declared()
        if name not in allowed:
            raise self._step.undeclared(f"view '{view}'", allowed)
        return self._show(name, allowed[name])

    def __contains__(self, view: str) -> bool:
        return self._step.canonical(view) in self._declared()

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared())

    def _declared(self) -> Mapping[str, frozenset[str]]:
        return self._step.program.readable.get(self._step.caller, {})


class Step:
    """One phase of one step. Core fields are read-only for methods.

    Attributes:
        phase: ``"d"``, ``"d_reg"``, ``"g"`` or ``"g_reg"``.
        outputs, built: all outputs of D and all images by view, for the core; methods read ``d`` and ``images``.
        index: G updates done before this step. critic: index of the D update inside the step.
        images_seen: the batch times the steps done; a host number, like ``index``.
        batch: rows of a base view.
        latents: base latents (B, Z).
        labels: side -> class indices (B,) int64, or None.
        progress: done share of the run in [0, 1], a 0-d tensor on the device.
        d: view -> :class:`DOutput`. images: view -> images, (B, C, H, W) in [-1, 1] or points (B, 2); in the
            phases of G images that come from G carry G's graph.
        augmentation: side -> method -> the draws of its link of the chain.
        d_parameters: D's own parameters, for constraints in ``after_d_step``.
        stash: the method's own values of this phase, by :class:`StepKey`.
        caller, doing: the method that is running, and its hook or view.
    """

    __slots__ = (
        "_canonical",
        "_chosen",
        "_gradients",
        "_key",
        "_log",
        "_plan",
        "_scores",
        "augmentation",
        "batch",
        "built",
        "caller",
        "critic",
        "d",
        "d_parameters",
        "device",
        "doing",
        "images",
        "images_seen",
        "index",
        "labels",
        "latents",
        "leaves",
        "outputs",
        "phase",
        "program",
        "progress",
        "stash",
    )

    def __init__(
        self,
        *,
        program: Program,
        plan: StepPlan,
        canonical: Callable[[str], str],
        key: tuple[int | str, ...],
        index: int,
        critic: int,
        images_seen: int,
        batch: int,
        device: torch.device,
        progress: Tensor,
        log: Callable[[str, Tensor], None],
        chosen: Callable[[], tuple[Tensor, Tensor]],
        d_parameters: Sequence[Tensor] = (),
    ) -> None:
        self.program = program
        self.phase = program.phase
        self.index = index
        self.critic = critic
        self.images_seen = images_seen
        self.batch = batch
        self.device = device
        self.progress = progress
        self.labels: dict[str, Tensor | None] = {"real": None, "fake": None}
        self.latents: Tensor | None = None
        self.augmentation: dict[str, dict[str, Mapping[str, Tensor]]] = {}
        self.d_parameters = d_parameters
        self.stash = Stash()
        self.d: Readable[DOutput] = Readable(self, self._output)
        self.images: Readable[Tensor] = Readable(self, self._image)
        self.outputs: dict[str, dict[str, Tensor]] = {}
        self.built: dict[str, Tensor] = {}
        self.leaves: dict[str, Tensor] = {}
        self.caller = ""
        self.doing = ""
        self._plan = plan
        self._canonical = canonical
        self._key = key
        self._scores: dict[str, Tensor] = {}
        self._gradients: dict[tuple[str, str, str], Tensor] = {}
        self._log = log
        self._chosen = chosen

    def draws(self) -> dict[str, Any]:
        """Everything that was drawn for this phase: what a recorded step needs anew each time."""
        return {
            "labels": self.labels,
            "latents": self.latents,
            "augmentation": self.augmentation,
            "stash": self.stash.values,
        }

    def canonical(self, view: str) -> str:
        """The name under which a view is forwarded."""
        return self._canonical(view)

    def undeclared(self, what: str, allowed: Mapping[str, Iterable[str]]) -> PluginError:
        """The error for a read that was not declared for an active term of this phase."""
        declared = "; ".join(f"{view}: {', '.join(sorted(names))}" for view, names in sorted(allowed.items()))
        return PluginError(
            f"'{self.caller}' reads {what} in phase '{self.phase}' without having declared it for an active "
            f"term; it declared: {declared or 'nothing'}"
        )

    def _output(self, view: str, allowed: frozenset[str]) -> DOutput:
        readable = self.program.readable[self.caller]
        tensors = {name: tensor for name, tensor in self.outputs.get(view, {}).items() if name in allowed}
        return DOutput(tensors, lambda name: self.undeclared(f"'{name}' of view '{view}'", readable))

    def _image(self, view: str, allowed: frozenset[str]) -> Tensor:
        return self.built[view]

    @property
    def indices(self) -> Tensor:
        """Which images of the set the reals of this phase are, (B,) int64 on the device."""
        return self._chosen()[0]

    @property
    def mirrored(self) -> Tensor:
        """Which reals of this phase ``data.mirror`` has flipped, (B,) bool on the device."""
        return self._chosen()[1]

    def gather(self, values: Tensor) -> Tensor:
        """Rows of all ranks, own rows first, with gradient: (ranks * B, …); on one device ``values``."""
        return ranks.gather(values)

    def reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, detached; on one device ``values``."""
        return ranks.reduce_sum(values)

    def rng(self, stream: str = "") -> Rng:
        """The calling method's random numbers of this phase; the same stream gives the same numbers again."""
        return Rng(*self._key, self.caller, stream, device=self.device)

    def wants(self, term: str) -> bool:
        """Whether a term of the calling method is active in this phase."""
        key = f"{self.caller}/{term}"
        return any(active.key == key for active in self.program.terms)

    def scores(self, side: str) -> Tensor:
        """What the objective judges a side by: D's logits (B,), or what the owner of ``scores`` made."""
        if side not in self.program.score_sides.get(self.caller, ()):
            raise PluginError(
                f"'{self.caller}' reads the scores of side '{side}' in phase '{self.phase}' without having "
                "declared them for an active term"
            )
        if side not in self._scores:
            owner = self._plan.declarations.scores
            if owner is None:
                self._scores[side] = self.outputs[self.canonical(side)]["logits"]
            else:
                # ``observe`` may be the first to ask, without gradient; the loss reads the same tensor later.
                with torch.enable_grad(), self.calling(owner.method, "scores"):
                    self._scores[side] = owner.compute(self, side)
        return self._scores[side]

    def scored_sides(self) -> tuple[str, ...]:
        """Sides whose scores have been read in this phase."""
        return tuple(sorted(self._scores))

    def scored(self, side: str) -> Tensor:
        """Scores that have been read; for the log of the core."""
        return self._scores[side]

    def margin(self, side: str) -> Tensor:
        """The objective's margin of a side, (B,), detached: positive means "D says real"."""
        if side not in self.program.margin_sides.get(self.caller, ()):
            raise PluginError(
                f"'{self.caller}' reads the margin of side '{side}' in phase '{self.phase}' without having "
                "declared it with plan.watch(margins=…)"
            )
        owner = self._plan.declarations.margin
        if owner is None:
            raise PluginError(f"the objective '{self._plan.objective}' declares no margin")
        with torch.no_grad(), self.calling(owner.method, "margin"):
            return owner.compute(self, side).detach()

    def input_gradient(self, term: str) -> Tensor:
        """d(sum of a penalty's output) / d(its leaf), with a graph; the leaf's shape.

        Each gradient is computed once, however many terms ask for it.

        Args:
            term: a term of the calling method that was declared with a :class:`~gancore.api.Penalty`.
        """
        key = f"{self.caller}/{term}"
        penalty = next((t.penalty for t in self.program.terms if t.key == key), None)
        if penalty is None:
            raise PluginError(f"term '{key}' declared no penalty or is not active in phase '{self.phase}'")
        leaf = self.canonical(penalty.leaf)
        cached = (self.canonical(penalty.view), penalty.output, leaf)
        if cached not in self._gradients:
            if penalty.output == "scores":
                output = self.scores(penalty.view)
            else:
                output = self.outputs[self.canonical(penalty.view)][penalty.output]
            (gradient,) = torch.autograd.grad(output.sum(), self.leaves[leaf], create_graph=True)
            self._gradients[cached] = gradient
        return self._gradients[cached]

    def log(self, **values: Tensor) -> None:
        """Record 0-d tensors of the calling method; their mean over a tick goes to ``metrics.jsonl``."""
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.dim() != 0 or value.device.type != self.device.type:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise PluginError(
                    f"'{self.caller}' logs '{name}' as {shape}; expected a 0-d tensor on the {self.device.type}"
                )
            self._log(f"{self.caller}/{name}", value.detach())

    def calling(self, method: str, doing: str) -> _Calling:
        """Context in which ``method`` is the caller; an exception leaves both names in place, as its culprit."""
        return _Calling(self, method, doing)


class _Calling:
    __slots__ = ("_doing", "_method", "_previous", "_step")

    def __init__(self, step: Step, method: str, doing: str) -> None:
        self._step = step
        self._method = method
        self._doing = doing

    def __enter__(self) -> None:
        self._previous = (self._step.caller, self._step.doing)
        self._step.caller, self._step.doing = self._method, self._doing

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._step.caller, self._step.doing = self._previous
