"""Samples of a generator: each depends on the seed and its index alone, however they are batched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gancore.errors import ConfigError
from gancore.networks.protocols import Generator
from gancore.randomness import Rng

BATCH = 64


def generate(
    generator: Generator,
    count: int,
    seed: int,
    device: torch.device,
    labels: Sequence[int] | None = None,
    truncation: float = 1.0,
    batch: int = BATCH,
) -> Tensor:
    """All of :func:`in_batches` in one tensor."""
    return torch.cat(list(in_batches(generator, count, seed, device, labels, truncation, batch)))


@torch.no_grad()
def in_batches(
    generator: Generator,
    count: int,
    seed: int,
    device: torch.device,
    labels: Sequence[int] | None = None,
    truncation: float = 1.0,
    batch: int = BATCH,
) -> Iterator[Tensor]:
    """Samples of a generator in evaluation mode, a batch at a time.

    Args:
        labels: one class an image; None takes the classes in turn when the generator is conditional.
        truncation: factor on the latents; below 1 trades variety for typicality.
        batch: images at once, at least 1.

    Yields:
        (batch, C, H, W) in [-1, 1], or points (batch, 2), float32 on the CPU; the last one may be smaller.

    Raises:
        ConfigError: no samples asked for, a truncation that is not finite.
    """
    if count < 1 or not math.isfinite(truncation):
        raise ConfigError(
            f"{count} samples with truncation {truncation}: expected at least 1, and a finite number"
        )
    dtype = next(generator.parameters()).dtype
    for first in range(0, count, batch):
        indices = range(first, min(first + batch, count))
        latents = torch.stack([latent(generator.latent_dim, seed, index) for index in indices]) * truncation
        classes = None
        if generator.num_classes:
            chosen = [
                class_of(index, generator.num_classes) if labels is None else labels[index] for index in indices
            ]
            classes = torch.tensor(chosen, dtype=torch.int64, device=device)
        images: Tensor = generator(latents.to(device=device, dtype=dtype), classes)
        yield images.float().cpu()


def latent(width: int, seed: int, index: int) -> Tensor:
    """The latent of sample ``index`` under ``seed``: (width,), standard normal."""
    return Rng("samples", seed, index).normal(width)


def class_of(index: int, num_classes: int) -> int:
    """The class of sample ``index`` when nobody says: the classes in turn."""
    return index % num_classes
