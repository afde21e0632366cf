"""Specifications of the networks that come with gancore. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gancore.networks.options import DCGANOptions, MLPOptions, SNGANOptions
from gancore.networks.spec import NetworkSpec

IMAGE_SIZES = (16, 32, 64, 128)


def _defaults(*, lr: float, betas: tuple[float, float], n_critic: int) -> Mapping[str, Any]:
    return {
        "optimizer.g.lr": lr,
        "optimizer.g.betas": betas,
        "optimizer.d.lr": lr,
        "optimizer.d.betas": betas,
        "n_critic": n_critic,
    }


BUILTIN: tuple[NetworkSpec, ...] = (
    NetworkSpec(
        name="dcgan",
        summary="Transposed convolutions with BatchNorm against strided convolutions (arXiv:1511.06434).",
        build="gancore.networks.dcgan:build",
        options=DCGANOptions,
        kind="image",
        sizes=IMAGE_SIZES,
        defaults=_defaults(lr=2e-4, betas=(0.5, 0.999), n_critic=1),
    ),
    NetworkSpec(
        name="sngan",
        summary="Residual networks, spectral norm and projection in D (arXiv:1802.05957, arXiv:1802.05637).",
        build="gancore.networks.sngan:build",
        options=SNGANOptions,
        kind="image",
        sizes=IMAGE_SIZES,
        defaults=_defaults(lr=2e-4, betas=(0.0, 0.9), n_critic=5),
    ),
    NetworkSpec(
        name="mlp",
        summary="Fully connected layers for points in the plane.",
        build="gancore.networks.mlp:build",
        options=MLPOptions,
        kind="points",
        defaults=_defaults(lr=1e-3, betas=(0.5, 0.9), n_critic=1),
    ),
)
