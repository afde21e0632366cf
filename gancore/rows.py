"""What the rows cost that D is asked to look at: passes through D alone, timed without any method.

The cost of a method is that of its rows plus its own work. The first can be known before the method is written;
a comparison of both shows what the second is.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from gancore.program import Group, Program
from gancore.step import Step
from gancore.trainer import Trainer


def pass_seconds(trainer: Trainer, program: Program, repeats: int = 3) -> float:
    """Median seconds of all passes that a phase asks of G and D, forward and backward, on random numbers.

    Neither losses nor optimisers, draws, augmentations or views of methods are in it.

    Args:
        trainer: its networks are used and left as they are, but for spectral norms and running statistics.
        program: which latent sets and which groups of views.
    """
    runs = [_once(trainer, program) for _ in range(repeats + 1)]
    return statistics.median(runs[1:])


def _once(trainer: Trainer, program: Program) -> float:
    step = trainer.new_step(program, 0)
    for side in step.labels:
        if trainer.discriminator.num_classes:
            step.labels[side] = torch.zeros(step.batch, dtype=torch.int64, device=step.device)
    inputs = {view: _noise(trainer, program, view) for group in program.groups for view in group.views}
    with trainer.others_frozen(program.network):
        began = _now(step.device)
        trainer.forward.begin_phase()
        generated = trainer.forward.generate(step, _latents(trainer, step, program))
        for group in program.groups:
            _group(trainer, step, group, inputs, program.network)
        if program.network == "g" and generated:
            images = [image for image in generated.values() if image.requires_grad]
            total = torch.stack([image.mean() for image in images]).sum()
            torch.autograd.grad(total, _parameters(trainer, "g"))
        return _now(step.device) - began


def _group(trainer: Trainer, step: Step, group: Group, inputs: dict[str, Tensor], network: str) -> None:
    """One group of D: backward to D's parameters, or to the images in a phase of G; twice for a penalty."""
    through = bool(group.key.leaves) or network == "g"
    images = [inputs[view].requires_grad_(through and group.key.grad) for view in group.views]
    trainer.forward.discriminate(step, group, images)
    if not group.key.grad:
        return
    outputs = [tensor for view in group.views for tensor in step.outputs[view].values()]
    total = torch.stack([tensor.mean() for tensor in outputs]).sum()
    if network == "g":
        torch.autograd.grad(total, images)
        return
    if group.key.leaves:
        gradients = torch.autograd.grad(total, images, create_graph=True)
        total = total + torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    torch.autograd.grad(total, _parameters(trainer, "d"), allow_unused=True)


def _parameters(trainer: Trainer, network: str) -> list[Tensor]:
    return [parameter for parameter in trainer.trained[network].values() if parameter.requires_grad]


def _noise(trainer: Trainer, program: Program, view: str) -> Tensor:
    node = next(node for node in program.images if node.name == view)
    shape = (node.rows * trainer.options.batch, *trainer.loader.dataset.shape)
    options = trainer.forward.options
    generator = torch.Generator(trainer.device).manual_seed(0)
    return torch.rand(shape, generator=generator, device=trainer.device, dtype=options.dtype) * 2 - 1


def _latents(trainer: Trainer, step: Step, program: Program) -> dict[str, Tensor]:
    shape = (step.batch, trainer.generator.latent_dim)
    zeros = torch.zeros(shape, device=step.device, dtype=trainer.forward.options.dtype)
    return {node.name: zeros for node in program.images if node.kind == "generated"}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
