"""Run every phase once before the first step: errors of plugins show now, and unreached parameters are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gancore.attribution import attributed
from gancore.errors import PluginError
from gancore.method import load_method_state, method_state
from gancore.telemetry import Telemetry

if TYPE_CHECKING:
    from gancore.trainer import Trainer


def probe(trainer: Trainer) -> dict[str, frozenset[str]]:
    """Compute the losses and gradients of every phase with all of its terms, and undo every trace of it.

    Returns:
        For each network, the parameters that no term reaches. They must not be left to the optimiser's momentum
        or weight decay.

    Raises:
        PluginError: whatever is wrong with a method, by name: besides what a step refuses, terms without a
            gradient, work in place on what others read, buffers bound anew, draws from a global generator.
    """
    saved = _saved(trainer)
    counters = {name: method_state(method) for name, method in trainer.manager.methods.items()}
    generators = _global_generators()
    trainer.set_progress()
    trainer.forward.checking = True
    reached: dict[str, set[str]] = {"d": set(), "g": set()}
    for phase in trainer.plan.phases:
        program = trainer.plan.full_program(phase)
        if program is None:
            continue
        named = trainer.trained[program.network]
        step = trainer.new_step(program, 0)
        with trainer.others_frozen(program.network), attributed(step):
            gradients = torch.autograd.grad(trainer.loss(step), list(named.values()), allow_unused=True)
        found = zip(named, gradients, strict=True)
        reached[program.network].update(name for name, gradient in found if gradient is not None)
    trainer.forward.checking = False
    _undo(saved)
    for name, state in counters.items():
        load_method_state(trainer.manager.methods[name], state)
    if _global_generators() != generators:
        raise PluginError(
            "something in a step draws from the global generator of torch or numpy, so a resumed run would "
            f"differ; draw with step.rng() (methods: {', '.join(sorted(trainer.manager.methods))}), and use "
            "networks without dropout"
        )
    trainer.telemetry = Telemetry(trainer.device)
    return {network: frozenset(trainer.trained[network].keys() - names) for network, names in reached.items()}


def _saved(trainer: Trainer) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    """Every buffer, and every parameter that no optimiser owns, with a copy of its value."""
    saved = []
    for module in (trainer.generator, trainer.discriminator, *trainer.modules.modules.values()):
        for holder in module.modules():
            owned = [(n, p) for n, p in holder.named_parameters(recurse=False) if not p.requires_grad]
            for name, tensor in (*holder.named_buffers(recurse=False), *owned):
                saved.append((holder, name, tensor, tensor.detach().clone()))
    return saved


@torch.no_grad()
def _undo(saved: list[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for holder, name, tensor, value in saved:
        if getattr(holder, name) is not tensor:
            raise PluginError(
                f"a method binds a new tensor to the buffer '{name}' of its {type(holder).__name__}; change "
                "buffers in place (copy_, add_), so that they are saved and captured"
            )
        tensor.copy_(value)


def _global_generators() -> tuple[bytes, bytes, object]:
    """State of the generators that anyone may draw from; numpy's words change only every 624 draws."""
    _, words, *place = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), np.asarray(words).tobytes(), place
