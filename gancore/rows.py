"""What the rows cost that G makes and D is asked to look at: their passes alone, timed without any method.

The cost of a method is that of its rows plus its own work. The first can be known before the method is written;
a comparison of both shows what the second is.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from gancore.program import Group, Program
from gancore.step import Step
from gancore.trainer import Trainer


def pass_seconds(
    trainer: Trainer,
    program: Program,
    repeats: int = 3,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median seconds of all passes that a phase asks of G and D, forward and backward, on random numbers.

    Features that enter D at a tap are part of the passes. Nothing of a method is: no losses, draws,
    augmentations, views, derived taps; nor are optimisers and power iterations.

    Args:
        trainer: its networks are used and left as they are, but for spectral norms and running statistics.
        program: which latent sets and which groups of views.
        repeats: how many runs the median is taken of, after ``warm_up`` that do not count.
        clock: seconds; wall time by default.
    """
    runs = [_once(trainer, program, clock) for _ in range(warm_up + repeats)]
    return statistics.median(runs[warm_up:])


def _once(trainer: Trainer, program: Program, clock: Callable[[], float]) -> float:
    step = trainer.new_step(program, 0)
    for side in step.labels:
        if trainer.discriminator.num_classes:
            step.labels[side] = torch.zeros(step.batch, dtype=torch.int64, device=step.device)
    groups = [_plain(trainer, group) for group in (*program.groups, *program.feature_groups)]
    judged = _judged(trainer, program)
    inputs = {view: _noise(trainer, _shape(trainer, group)) for group in groups for view in group.views}
    latents = _latents(trainer, program)
    with trainer.others_frozen(program.network):
        trainer.forward.begin_phase()
        began = _now(step.device, clock)
        generated = trainer.forward.generate(step, latents)
        for group in groups:
            _group(trainer, step, group, [inputs[view] for view in group.views], judged)
        if program.network == "g" and generated:
            total = torch.stack([image.mean() for image in generated.values()]).sum()
            torch.autograd.grad(total, _parameters(trainer, "g"), allow_unused=True)
        return _now(step.device, clock) - began


def _group(trainer: Trainer, step: Step, group: Group, inputs: list[Tensor], judged: AbstractSet[str]) -> None:
    """One group of D, and backward to all that the gradient of a step goes to; twice for a penalty.

    That is the parameters of D in its own phases, the images in those of G, and features in both.
    """
    penalised, in_d = bool(group.key.leaves), step.program.network == "d"
    through = group.key.grad and (penalised or not in_d or group.key.tap is not None)
    inputs = [rows.requires_grad_(through) for rows in inputs]
    trainer.forward.discriminate(step, group, inputs)
    if not group.key.grad:
        return
    total = _sum(step, group.views)
    if penalised:
        gradients = torch.autograd.grad(total, inputs, create_graph=True)
        total = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        total = total + _sum(step, [view for view in group.views if view in judged])
    ends = [*(_parameters(trainer, "d") if in_d else []), *(inputs if through else [])]
    torch.autograd.grad(total, ends, allow_unused=True)


def _sum(step: Step, views: Iterable[str]) -> Tensor:
    """Of all outputs of some views, 0-d."""
    means = [tensor.mean() for view in views for tensor in step.outputs[view].values()]
    return torch.stack(means).sum() if means else torch.zeros((), device=step.device)


def _plain(trainer: Trainer, group: Group) -> Group:
    """The group with D's own taps in place of those that methods derive from them."""
    derived = trainer.plan.declarations.taps
    outputs = {
        view: frozenset(derived[name].source if name in derived else name for name in names)
        for view, names in group.outputs.items()
    }
    return dataclasses.replace(group, outputs=outputs)


def _judged(trainer: Trainer, program: Program) -> set[str]:
    """Views whose outputs a loss reads as they are, and not their gradient alone."""
    scores = trainer.plan.declarations.scores
    views: set[str] = set()
    for term in program.terms:
        views.update(term.reads)
        for side in term.scores:
            views.update({side} if scores is None else scores.reads[side])
    found = {trainer.plan.canonical(view) for view in views}
    for view in found & trainer.plan.declarations.features.keys():
        found |= {
            trainer.plan.canonical(source) for source, _ in trainer.plan.declarations.features[view].sources
        }
    return found


def _parameters(trainer: Trainer, network: str) -> list[Tensor]:
    return [parameter for parameter in trainer.trained[network].values() if parameter.requires_grad]


def _shape(trainer: Trainer, group: Group) -> tuple[int, ...]:
    """Of what each view of a group puts into D: images, or features at a tap."""
    tap = group.key.tap
    row = trainer.loader.dataset.shape if tap is None else trainer.discriminator.taps[tap].shape
    return (group.key.rows * trainer.options.batch, *row)


def _noise(trainer: Trainer, shape: tuple[int, ...]) -> Tensor:
    options = trainer.forward.options
    generator = torch.Generator(trainer.device).manual_seed(0)
    return torch.rand(shape, generator=generator, device=trainer.device, dtype=options.dtype) * 2 - 1


def _latents(trainer: Trainer, program: Program) -> dict[str, Tensor]:
    noise = _noise(trainer, (trainer.options.batch, trainer.generator.latent_dim))
    return {node.name: noise for node in program.images if node.kind == "generated"}


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
