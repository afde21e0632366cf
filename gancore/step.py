"""What a hook sees of one phase of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from gancore.errors import PluginError
from gancore.randomness import Rng

if TYPE_CHECKING:
    from gancore.method import Objective
    from gancore.plan import StepPlan
    from gancore.program import Program

T = TypeVar("T")


class StepKey(Generic[T]):
    """A private, typed key into ``step.stash``. Make one a module: ``DRAW = StepKey[MixDraw]()``."""


class Stash:
    """Data that a method keeps between the hooks of one phase."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def __getitem__(self, key: StepKey[T]) -> T:
        return self._values[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: StepKey[T], value: T) -> None:
        self._values[key] = value

    def __contains__(self, key: StepKey[Any]) -> bool:
        return key in self._values


@dataclass(slots=True)
class DOutput:
    """What D says of one view: logits (B,) and the requested taps (B, …), in float32 or wider."""

    taps: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


class Readable(Mapping[str, T]):
    """Views by name, as far as the calling method declared that it reads them."""

    def __init__(self, step: Step, what: str) -> None:
        self._step = step
        self._what = what
        self.values_by_view: dict[str, T] = {}

    def __getitem__(self, view: str) -> T:
        step = self._step
        name = step.canonical(view)
        allowed = step.program.readable.get(step.caller)
        if allowed is None or name not in allowed or name not in self.values_by_view:
            raise PluginError(
                f"'{step.caller}' reads {self._what} of view '{view}' in phase '{step.phase}' without having "
                f"declared it for an active term; it declared: {', '.join(sorted(allowed or ())) or 'none'}"
            )
        return self.values_by_view[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_view)

    def __len__(self) -> int:
        return len(self.values_by_view)


class Step:
    """One phase of one step. Core fields are read-only for methods.

    Attributes:
        phase: ``"d"``, ``"d_reg"``, ``"g"`` or ``"g_reg"``.
        index: G updates done before this step. critic: index of the D update inside the step.
        images_seen: reals of D's stream consumed per critic before this step.
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
        "_gradients",
        "_key",
        "_log",
        "_objective",
        "_plan",
        "_scores",
        "augmentation",
        "batch",
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
        objective: Objective,
        canonical: Callable[[str], str],
        key: tuple[int | str, ...],
        index: int,
        critic: int,
        images_seen: int,
        batch: int,
        device: torch.device,
        progress: Tensor,
        log: Callable[[str, Tensor], None],
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
        self.d: Readable[DOutput] = Readable(self, "outputs")
        self.images: Readable[Tensor] = Readable(self, "images")
        self.leaves: dict[str, Tensor] = {}
        self.caller = ""
        self.doing = ""
        self._plan = plan
        self._objective = objective
        self._canonical = canonical
        self._key = key
        self._scores: dict[str, Tensor] = {}
        self._gradients: dict[tuple[str, str, str], Tensor] = {}
        self._log = log

    def canonical(self, view: str) -> str:
        """The name under which a view is forwarded."""
        return self._canonical(view)

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
                logits = self.d.values_by_view[self.canonical(side)].logits
                if logits is None:
                    raise PluginError(f"logits of view '{side}' were not computed")
                self._scores[side] = logits
            else:
                with self.calling(owner.method, "scores"):
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
                f"declared it with plan.watch(margins=…); margins exist in the main phases, 'd' and 'g'"
            )
        with self.calling(self._objective.name, "margin"), torch.no_grad():
            margin = self._objective.margin(self, side)
        if margin is None:
            raise PluginError(f"the objective '{self._objective.name}' has no margin for side '{side}'")
        return margin.detach()

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
                output: Tensor | None = self.scores(penalty.view)
            elif penalty.output == "logits":
                output = self.d[penalty.view].logits
            else:
                output = self.d[penalty.view].taps[penalty.output]
            if output is None:
                raise PluginError(f"'{penalty.output}' of view '{penalty.view}' was not computed")
            (gradient,) = torch.autograd.grad(output.sum(), self.leaves[leaf], create_graph=True)
            self._gradients[cached] = gradient
        return self._gradients[cached]

    def log(self, **values: Tensor) -> None:
        """Record 0-d tensors of the calling method; their mean over a tick goes to ``metrics.jsonl``."""
        for name, value in values.items():
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
