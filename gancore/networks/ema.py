"""Exponential moving average of a generator's weights."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn


def beta_for(batch: int, images_seen: int, half_life_kimg: float, ramp: float | None = None) -> float:
    """Share of the average that one update keeps: ``0.5 ** (batch / half_life_in_images)``.

    Args:
        batch: images per step.
        images_seen: images seen so far, this step's included.
        half_life_kimg: after so many thousand images an old weight counts half; 0 makes the average a copy.
        ramp: when above 0, the half-life is at most ``ramp * images_seen``, so that early weights are
            forgotten soon; None or 0 for no such bound.
    """
    half_life = half_life_kimg * 1000
    if ramp is not None and ramp > 0:
        half_life = min(half_life, images_seen * ramp)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


class ExponentialAverage:
    """A copy of a module whose parameters follow the module's as an exponential moving average.

    Buffers (running statistics, the vectors of spectral normalisation) are copied, not averaged.

    Attributes:
        model: the copy, in eval mode and without gradients. Save and restore it by its ``state_dict``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source: weakref.ref[nn.Module] | None = None
        self._parameters: _Pairs = []
        self._buffers: list[_Pairs] = []

    @torch.no_grad()
    def update(self, model: nn.Module, beta: float) -> None:
        """Set each parameter to ``beta * average + (1 - beta) * parameter`` and copy the buffers.

        Args:
            model: the module that was copied, or one of the same structure.
            beta: in [0, 1]; see :func:`beta_for`.

        Raises:
            ValueError: ``model`` has other parameters or buffers than the copy.
        """
        if self._source is None or self._source() is not model:
            self._bind(model)
        if self._parameters:
            average, current = _tensors(self._parameters)
            torch._foreach_lerp_(average, current, 1.0 - beta)
        for pairs in self._buffers:
            average, current = _tensors(pairs)
            torch._foreach_copy_(average, current)

    def _bind(self, model: nn.Module) -> None:
        """Find both modules' tensors, once: walking the modules costs more than an update."""
        kept_parameters, kept_buffers = _slots(self.model)
        new_parameters, new_buffers = _slots(model)
        self._parameters = _paired(kept_parameters, new_parameters)
        by_dtype: dict[torch.dtype, _Pairs] = {}
        for pair in _paired(kept_buffers, new_buffers):
            # One list per dtype: torch copies mixed lists tensor by tensor.
            holder, key = pair[0]
            by_dtype.setdefault(holder[key].dtype, []).append(pair)
        self._buffers = list(by_dtype.values())
        self._source = weakref.ref(model)


# Where a tensor lives, not the tensor: ``module.to(...)`` puts new buffers into the same dictionaries.
_Slot = tuple[dict[str, Any], str]
_Pairs = list[tuple[_Slot, _Slot]]


def _slots(model: nn.Module) -> tuple[dict[str, _Slot], dict[str, _Slot]]:
    """Parameters and buffers by name; a shared one once."""
    parameters: dict[str, _Slot] = {}
    buffers: dict[str, _Slot] = {}
    seen: set[int] = set()
    for prefix, layer in model.named_modules():
        for holder, slots in ((layer._parameters, parameters), (layer._buffers, buffers)):
            for key, tensor in holder.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    slots[f"{prefix}.{key}"] = (holder, key)
    return parameters, buffers


def _paired(kept: dict[str, _Slot], new: dict[str, _Slot]) -> _Pairs:
    different = sorted(kept.keys() ^ new.keys())
    for name in kept.keys() & new.keys():
        (holder, key), (other, other_key) = kept[name], new[name]
        if holder[key].shape != other[other_key].shape:
            different.append(name)
    if different:
        raise ValueError(f"the model differs from its average in {', '.join(sorted(different))}")
    return [(kept[name], new[name]) for name in kept]


def _tensors(pairs: _Pairs) -> tuple[list[Tensor], list[Tensor]]:
    return [holder[key] for (holder, key), _ in pairs], [holder[key] for _, (holder, key) in pairs]
