"""Tiny networks of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gancore.networks.builtin import BUILTIN
from gancore.networks.protocols import Discriminator, Generator

TINY: dict[str, dict[str, Any]] = {
    "dcgan": {"latent_dim": 8, "g_width": 4, "d_width": 4, "max_width": 16, "label_width": 4},
    "sngan": {"latent_dim": 8, "g_width": 8, "d_width": 4},
    "mlp": {"latent_dim": 8, "width": 16, "depth": 2, "label_width": 4},
}
Make = Callable[..., tuple[Generator, Discriminator]]


@pytest.fixture
def make() -> Make:
    """``make(name, size=16, channels=3, num_classes=0, **options)``: a seeded tiny pair, in training mode."""
    specs = {spec.name: spec for spec in BUILTIN}

    def build(
        name: str, size: int = 16, channels: int = 3, num_classes: int = 0, **options: Any
    ) -> tuple[Generator, Discriminator]:
        spec = specs[name]
        shape = (channels, size, size) if spec.kind == "image" else (2,)
        spec.check(shape)
        torch.manual_seed(0)
        return spec.load()(spec.options(**{**TINY[name], **options}), shape, num_classes)

    return build


@pytest.fixture
def draw() -> Callable[..., torch.Tensor]:
    """``draw(*shape, seed=0, dtype=float32)``: standard normal values from a generator of their own."""

    def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    return normal
