"""Write down what a method reads, returns, draws and changes in a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gancore.assembly import Session
from gancore.program import Program
from gancore.step import Step

Read = tuple[str, str, str]
"""Network, view, output; or network, ``"scores of"`` or ``"margin of"``, side."""


class Watch:
    """What a method reads, returns and changes in a run.

    Attributes:
        declared, reads: what it said that it reads, and what it read.
        backdoors: attributes of the core that it read, with the hook.
        alive: term and network -> whether it had a gradient in some step.
        reaches: networks whose own parameters some term of the method had a gradient on.
        types: term and network -> type of its values.
        changed: what it changed in place, with the hook.
        shapes: of each draw -> where it was seen first, with the shapes that were seen.
        unsized: draws of its link that are not one row a sample.
        links: methods with a link of the augmentation chain, in its order.
        penalties: terms of the method that differentiate with respect to an image.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.declared: set[Read] = set()
        self.reads: set[Read] = set()
        self.backdoors: dict[str, str] = {}
        self.alive: dict[tuple[str, str], bool] = {}
        self.reaches: set[str] = set()
        self.types: dict[tuple[str, str], torch.dtype] = {}
        self.changed: dict[str, str] = {}
        self.shapes: dict[tuple[str, ...], dict[object, int]] = {}
        self.unsized: dict[str, tuple[int, ...]] = {}
        self.links: list[str] = []
        self.penalties: list[str] = []
        self._before: list[tuple[str, Tensor, int, Tensor | None]] = []
        self._stashed: dict[Any, int] = {}
        self._programs: set[int] = set()

    def unread(self) -> list[Read]:
        """What was declared and never read."""
        return sorted(self.declared - self.reads)

    def dead(self) -> list[tuple[str, str]]:
        """Terms that never had a gradient."""
        return sorted(term for term, alive in self.alive.items() if not alive)

    def add(self, other: Watch) -> None:
        """Take what a longer run has shown besides."""
        self.reads |= other.reads
        self.reaches |= other.reaches
        for term, alive in other.alive.items():
            self.alive[term] = alive or self.alive.get(term, False)

    def attach(self, session: Session) -> None:
        """Look at the terms and draws of a session, too."""
        trainer = session.trainer
        collect, loss = trainer._collect_terms, trainer.drawn_loss
        self.links = [name for name, _ in trainer.chain.links]
        terms = [term for term in session.plan.declarations.terms if term.method == self.method]
        self.penalties = [term.key for term in terms if term.penalty is not None]

        def collected(step: Step) -> dict[str, Tensor]:
            raw = collect(step)
            self._weigh(session, step.program, raw)
            return raw

        def lost(step: Step, reals: Tensor | None) -> Tensor:
            total = loss(step, reals)
            for side, draws in sorted(step.augmentation.items()):
                if self.method in draws:
                    self._note_draws(step, f"its link, side '{side}'", draws[self.method])
                    for name, value in draws[self.method].items():
                        if not isinstance(value, Tensor) or value.shape[:1] != (step.batch,):
                            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
                            self.unsized[name] = shape
            return total

        trainer._collect_terms = collected  # type: ignore[method-assign]
        trainer.drawn_loss = lost  # type: ignore[method-assign]

    def _weigh(self, session: Session, program: Program, raw: Mapping[str, Tensor]) -> None:
        network = program.network
        trained = list(session.trainer.trained[network].values())
        module = session.trainer.discriminator if network == "d" else session.trainer.generator
        own = {id(parameter) for parameter in module.parameters()}
        for term in program.terms:
            if term.method != self.method:
                continue
            key = (term.key, network)
            self.types[key] = raw[term.key].dtype
            if self.alive.setdefault(key, False) or not raw[term.key].requires_grad:
                continue
            gradients = torch.autograd.grad(raw[term.key], trained, retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is not None and bool((gradient != 0).any()):
                    self.alive[key] = True
                    if id(parameter) in own:
                        self.reaches.add(network)

    # As an observer.

    def begin(self, step: Step) -> None:
        program = step.program
        if id(program) in self._programs:
            return
        self._programs.add(id(program))
        network = program.network
        for view, outputs in program.readable.get(self.method, {}).items():
            self.declared |= {(network, view, output) for output in outputs}
        self.declared |= {(network, "scores of", side) for side in program.score_sides.get(self.method, ())}
        self.declared |= {(network, "margin of", side) for side in program.margin_sides.get(self.method, ())}

    def enter(self, step: Step) -> None:
        self._before = [
            (name, tensor, tensor._version, tensor.detach().clone() if copied else None)
            for name, tensor, copied in _visible(step)
        ]
        self._stashed = {key: id(value) for key, value in step.stash.values.items()}

    def leave(self, step: Step) -> None:
        parameters_too = not step.doing.startswith("after_")
        for name, tensor, version, copy in self._before:
            if copy is None and not parameters_too:
                continue
            if tensor._version != version or (copy is not None and not _same(tensor, copy)):
                self.changed.setdefault(name, f"{step.doing}, phase '{step.phase}'")
        self._before = []
        for key, value in step.stash.values.items():
            if self._stashed.get(key) != id(value):
                self._note_draws(step, f"stash '{key.name}'", value)

    def read(self, step: Step, view: str, output: str) -> None:
        self.reads.add((step.program.network, view, output))

    def reached(self, step: Step, attribute: str) -> None:
        self.backdoors.setdefault(attribute, step.doing)

    def drew(self, step: Step, rng: Any) -> None:
        """Of no interest here."""

    def _note_draws(self, step: Step, where: str, value: object) -> None:
        due = ",".join(sorted(term.key for term in step.program.terms))
        for path, tensor in tensors_in(value):
            seen = self.shapes.setdefault((f"{where}{path}", step.phase, due), {})
            seen.setdefault(tuple(tensor.shape), step.index)


def tensors_in(value: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside nested dicts, sequences and dataclasses, with the way to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{index}]")
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name), f"{path}.{name}")


def _visible(step: Step) -> Iterator[tuple[str, Tensor, bool]]:
    """What every method of the phase sees; parameters of D last, whose content is not copied."""
    for view, images in step.built.items():
        yield f"the images of view '{view}'", images, True
    for view, outputs in step.outputs.items():
        for name, tensor in outputs.items():
            yield f"'{name}' of view '{view}'", tensor, True
    if step.latents is not None:
        yield "step.latents", step.latents, True
    for side, labels in step.labels.items():
        if labels is not None:
            yield f"step.labels['{side}']", labels, True
    for side, draws in step.augmentation.items():
        for method, draw in draws.items():
            for name, value in draw.items():
                yield f"the draw '{name}' of '{method}' for side '{side}'", value, True
    for parameter in step.d_parameters:
        yield "a parameter of D", parameter, False


def _same(first: Tensor, second: Tensor) -> bool:
    both_nan = (first != first) & (second != second)
    return bool(((first == second) | both_nan).all())
