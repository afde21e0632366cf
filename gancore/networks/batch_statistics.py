"""BatchNorm for latent sets that must not move the running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norm_layers(module: nn.Module) -> list[_BatchNorm]:
    """torch's BatchNorm layers in ``module``, in order of registration. Find them once and keep the list."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


@contextmanager
def running_statistics_frozen(module: nn.Module | Sequence[_BatchNorm]) -> Iterator[None]:
    """Normalise with batch statistics, and leave the running ones as they are, bit for bit.

    Layers in training mode use the statistics of their input and update neither ``running_mean``,
    ``running_var`` nor ``num_batches_tracked``. Layers in eval mode go on using the running statistics.

    Args:
        module: a network, or the list that :func:`batch_norm_layers` found in it, which saves the search.
    """
    layers = batch_norm_layers(module) if isinstance(module, nn.Module) else module
    tracked = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, before in zip(layers, tracked, strict=True):
            layer.track_running_stats = before
