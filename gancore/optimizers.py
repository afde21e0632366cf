"""Optimisers by name, lazy-phase correction, and zero-filled gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gancore.sections import OptimizerOptions


class NetworkOptimizer:
    """The optimiser of one network and of the method modules that train with it.

    Args:
        named: parameters by name; the names key the saved state.
    """

    def __init__(self, named: Mapping[str, Tensor], options: OptimizerOptions) -> None:
        self.named = dict(named)
        self.parameters = list(self.named.values())
        self.options = options
        self.optimizer = _build(self.parameters, options)

    def step(self, interval: int = 1) -> None:
        """Clip and update. A lazy phase with interval k takes c = k/(k+1): lr c, betas to the power c.

        Reference: arXiv:1912.04958, appendix B ("lazy regularization").
        """
        if self.options.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        if interval == 1:
            self.optimizer.step()
        else:
            with self._corrected(interval / (interval + 1)):
                self.optimizer.step()

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def fill_missing(self) -> None:
        """Zero gradients where the active terms reached nothing, so that every rank reduces the same tensors."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def state(self) -> dict[str, Tensor]:
        """Moments by ``"PARAMETER/MOMENT"``."""
        tensors = {}
        for name, parameter in self.named.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore moments; layout and alignment follow the parameters."""
        for name, parameter in self.named.items():
            saved = {key: tensors.get(f"{name}/{key}") for key in _moments(self.options)}
            entries: dict[str, Any] = {}
            for key, value in saved.items():
                if value is None:  # another algorithm's moments are of no use in part: start afresh
                    entries.clear()
                    break
                if key == "step":
                    entries[key] = value.to(torch.float32).reshape(()).clone()
                else:
                    fresh = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                    entries[key] = fresh.copy_(value)
            if entries:
                self.optimizer.state[parameter] = entries

    @contextmanager
    def _corrected(self, factor: float) -> Iterator[None]:
        saved = [dict(group) for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * factor
            if "betas" in group:
                group["betas"] = tuple(beta**factor for beta in group["betas"])
        try:
            yield
        finally:
            for group, before in zip(self.optimizer.param_groups, saved, strict=True):
                group["lr"] = before["lr"]
                if "betas" in group:
                    group["betas"] = before["betas"]


def _moments(options: OptimizerOptions) -> tuple[str, ...]:
    if options.name in ("adam", "adamw"):
        return ("step", "exp_avg", "exp_avg_sq")
    if options.name == "rmsprop":
        return ("step", "square_avg", *(("momentum_buffer",) if options.momentum else ()))
    return ("momentum_buffer",) if options.momentum else ()


def _build(parameters: Sequence[Tensor], options: OptimizerOptions) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    common["foreach" if options.name == "rmsprop" else "fused"] = True  # torch has no fused RMSprop
    if any(parameter.is_cuda for parameter in parameters) and options.name != "sgd":
        common["capturable"] = True  # counts steps on the device, so that a graph can hold the update
    if not parameters:  # a method may leave a network without a single reachable parameter
        parameters = [torch.nn.Parameter(torch.zeros(()))]
    if options.name == "adam":
        return torch.optim.Adam(parameters, betas=options.betas, eps=options.eps, **common)
    if options.name == "adamw":
        return torch.optim.AdamW(parameters, betas=options.betas, eps=options.eps, **common)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(parameters, momentum=options.momentum, eps=options.eps, **common)
    return torch.optim.SGD(parameters, momentum=options.momentum, **common)
