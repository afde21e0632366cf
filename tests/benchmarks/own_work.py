"""A phase without its networks: what draws, augmentations, views, losses and optimisers cost, measured directly.

G and D return what they returned before, and the backward passes what it is given, at no cost. What is left of a
phase is the work of the core and of the methods.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gancore.augment import Augment
from gancore.program import Group, Program
from gancore.step import Step
from gancore.trainer import Trainer

PARTS = ("augmentation", "derived taps", "losses", "optimiser", "views and draws")
"""Derived taps with the power iterations of all layers, views and draws with all that is not named."""


@dataclass
class Recording:
    """What G and D returned in one phase, by view, and something of the shape of what went into D."""

    generated: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


def record(trainer: Trainer) -> dict[str, Recording]:
    """Train one step and keep what G and D return, by phase."""
    found: dict[str, Recording] = {phase: Recording() for phase in trainer.plan.phases}
    generate, discriminate = trainer.forward.generate, trainer.forward.discriminate
    derive = trainer.forward._derive
    own: dict[str, dict[str, Tensor]] = {}

    def generated(step: Step, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images = generate(step, latents)
        found[step.phase].generated.update({name: image.detach() for name, image in images.items()})
        return images

    def derived(step: Step, group: Group, outputs: Mapping[str, dict[str, Tensor]]) -> None:
        for view, tensors in outputs.items():
            own[view] = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        derive(step, group, outputs)

    def discriminated(step: Step, group: Group, inputs: list[Tensor]) -> None:
        discriminate(step, group, inputs)
        for view, rows in zip(group.views, inputs, strict=True):
            found[step.phase].outputs[view] = own[view]
            found[step.phase].gradients[view] = torch.rand_like(rows.detach()) - 0.5

    with _replaced(trainer.forward, generate=generated, discriminate=discriminated, _derive=derived):
        trainer.train_step()
    return found


def seconds(trainer: Trainer, recordings: Mapping[str, Recording], clock: Callable[[], float]) -> Counter[str]:
    """Seconds of one step without G and D, by part: :data:`PARTS`, and augmentations by method."""
    total: Counter[str] = Counter()
    for phase in trainer.plan.phases:
        program = trainer.plan.full_program(phase)
        assert program is not None
        total += _Phase(trainer, program, recordings[phase], clock).run()
    return total


class _Phase:
    """One phase with stand-ins for G and D."""

    def __init__(
        self, trainer: Trainer, program: Program, recording: Recording, clock: Callable[[], float]
    ) -> None:
        self.trainer, self.program, self.recording, self.clock = trainer, program, recording, clock
        self.in_g = program.network == "g"
        # What a gradient must reach: for D's phases its parameters, for those of G the images.
        self.anchor = torch.zeros((), dtype=trainer.forward.options.dtype, requires_grad=True)
        self.images = {name: image.clone() for name, image in recording.generated.items()}
        for image in self.images.values():
            image.requires_grad_(self.in_g)
        self.spent: Counter[str] = Counter()
        self.marks: dict[str, float] = {}

    def run(self) -> Counter[str]:
        trainer, program, clock = self.trainer, self.program, self.clock
        step = trainer.new_step(program, 0)
        run, links = trainer.forward.run, trainer.chain.links
        begin = trainer.forward.begin_phase

        def forward(*arguments: Any) -> None:
            run(*arguments)
            self.marks["views"] = clock()

        def begin_phase() -> None:
            with self.timed("derived taps"):
                begin()

        timed = tuple((name, _TimedLink(link, name, self)) for name, link in links)
        with (
            trainer.others_frozen(program.network),
            _replaced(
                trainer.forward,
                generate=self.generate,
                discriminate=self.discriminate,
                run=forward,
                begin_phase=begin_phase,
            ),
            _replaced(trainer.chain, links=timed),
        ):
            began = clock()
            total = trainer.loss(step)
            self.marks["loss"] = clock()
            total.backward()  # type: ignore[no-untyped-call]
            self.marks["backward"] = clock()
            with torch.no_grad():
                trainer._call(f"after_{program.network}_step", step)
            ended = clock()
        trainer.telemetry.commit()
        reached = self.marks.get("reached", self.marks["backward"])
        spent = Counter(self.spent)
        spent["augmentation"] = sum(self.spent[name] for name, _ in links)
        spent["losses"] = reached - self.marks["views"]
        found = spent["augmentation"] + spent["derived taps"] + spent["losses"]
        spent["views and draws"] = ended - began - found
        spent["optimiser"] = self.optimiser()
        return spent

    def optimiser(self) -> float:
        optimizer = self.trainer.optimizers[self.program.network]
        optimizer.fill_missing()
        began = self.clock()
        optimizer.step(self.trainer.plan.interval(self.program.phase))
        return self.clock() - began

    def generate(self, step: Step, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.images[name] for name in latents}

    def discriminate(self, step: Step, group: Group, inputs: list[Tensor]) -> None:
        """What is recorded, and what methods derive from it now."""
        derived = self.trainer.plan.declarations.taps
        stretch = _Stretch(self, "derived taps")
        found: dict[str, dict[str, Tensor]] = {}
        for view, rows in zip(group.views, inputs, strict=True):
            tensors = self.recording.outputs[view]
            if group.key.grad:
                outputs = _Discriminator.apply(self, view, rows, self.anchor, *tensors.values())
                tensors = dict(zip(tensors, outputs, strict=True))
            sources = {derived[name].source for name in group.outputs[view] if name in derived}
            found[view] = {name: stretch.into(t) if name in sources else t for name, t in tensors.items()}
        if any(not names.isdisjoint(derived) for names in group.outputs.values()):
            with torch.set_grad_enabled(group.key.grad), self.timed("derived taps"):
                self.trainer.forward._derive(step, group, found)
        for view, names in group.outputs.items():
            step.outputs[view] = {
                name: stretch.out_of(found[view][name]) if name in derived else found[view][name]
                for name in names
            }

    def gradient(self, view: str) -> Tensor:
        """Of what goes into D, and the end of the losses' backward."""
        self.marks.setdefault("reached", self.clock())
        return self.recording.gradients[view]

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = self.clock()
        yield
        self.spent[part] += self.clock() - began


class _Stretch:
    """A part of the phase between tensors that go in and tensors that come out: its time in the backward."""

    def __init__(self, phase: _Phase, part: str) -> None:
        self.phase, self.part = phase, part
        self.began = 0.0

    def into(self, values: Tensor) -> Tensor:
        out: Tensor = _Edge.apply(values, self.leave)
        return out

    def out_of(self, values: Tensor) -> Tensor:
        out: Tensor = _Edge.apply(values, self.enter)
        return out

    def enter(self) -> None:
        """The gradient comes from what was made of the results; the first of them counts."""
        now = self.phase.clock()
        self.phase.marks.setdefault("reached", now)
        self.began = self.began or now

    def leave(self) -> None:
        """It goes on to what the results were made of; the last of them counts."""
        now = self.phase.clock()
        self.phase.spent[self.part] += now - self.began
        self.began = now


class _Discriminator(torch.autograd.Function):
    """Recorded outputs; backward a recorded gradient, which can be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, phase: _Phase, view: str, rows: Tensor, anchor: Tensor, *outputs: Tensor) -> Any:
        ctx.phase, ctx.view, ctx.others = phase, view, len(outputs)
        ctx.save_for_backward(anchor)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (anchor,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a penalty asks for the gradient while the losses are computed
            found = _Constant.apply(anchor, ctx.phase.recording.gradients[ctx.view])
        else:
            found = ctx.phase.gradient(ctx.view)
        found = found if ctx.needs_input_grad[2] else None
        return None, None, found, torch.zeros_like(anchor), *[None] * ctx.others


class _Constant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(anchor)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return torch.zeros_like(ctx.saved_tensors[0]), None


class _Edge(torch.autograd.Function):
    """The identity, which tells when the gradient of the whole phase passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, passed: Callable[[], None]) -> Tensor:
        ctx.passed = passed
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if not torch.is_grad_enabled():  # else it is a penalty's gradient, a part of the losses
            ctx.passed()
        return gradients[0], None


class _TimedLink:
    """A link of the chain, with its time forward and backward."""

    def __init__(self, link: Augment, name: str, phase: _Phase) -> None:
        self.link, self.name, self.phase = link, name, phase
        self.sides = link.sides

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> Mapping[str, Tensor]:
        with self.phase.timed(self.name):
            return self.link.draw(step, side, shape)

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        stretch = _Stretch(self.phase, self.name)
        entered = stretch.into(images)
        with self.phase.timed(self.name):
            images = self.link.transform(entered, draw)
        return stretch.out_of(images)


@contextlib.contextmanager
def _replaced(owner: object, **members: object) -> Iterator[None]:
    """Members of one object, for a while."""
    before = {name: vars(owner)[name] for name in members if name in vars(owner)}
    vars(owner).update(members)
    try:
        yield
    finally:
        for name in members:
            del vars(owner)[name]
        vars(owner).update(before)
