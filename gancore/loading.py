"""The networks of a checkpoint, built from its own configuration; needs no data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gancore import checkpoint
from gancore.errors import CheckpointError
from gancore.networks.protocols import Discriminator, Generator
from gancore.plugin_manager import Registry


def networks_of(
    found: checkpoint.Checkpoint, registry: Registry, *, averaged: bool = True
) -> tuple[Generator, Discriminator]:
    """G and D of a checkpoint, on the CPU, in evaluation mode and without gradients.

    Args:
        averaged: the average of G's weights, or G as it is trained.

    Raises:
        CheckpointError: the weights do not fit the networks. PluginError: the network is not installed.
    """
    flat = found.meta["config"]
    spec = registry.network(flat["network.name"])
    prefix = "network."
    options = {k[len(prefix) :]: v for k, v in flat.items() if k.startswith(prefix) and k != "network.name"}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    data: dict[str, Any] = found.meta["data"]
    with torch.random.fork_rng(devices=[]):
        networks = spec.load()(spec.options(**options), tuple(data["shape"]), len(data.get("classes") or []))
    for network, name in zip(networks, ("ema." if averaged else "g.", "d."), strict=True):
        _restore(network, name, found, double=flat["compute.precision"] == "float64")
    return networks


def _restore(network: nn.Module, prefix: str, found: checkpoint.Checkpoint, *, double: bool) -> None:
    if double:
        network.double()
    problems = checkpoint.restore_module(network, prefix, found.tensors)
    if problems:
        which = "discriminator" if prefix == "d." else "generator"
        raise CheckpointError(f"the {which} does not fit its checkpoint: {'; '.join(problems[:20])}")
    network.eval().requires_grad_(False)
