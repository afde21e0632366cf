"""Options of the built-in networks. Imports no torch, so that they can be listed and checked at no cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancore.options import option


@dataclass(frozen=True, kw_only=True)
class DCGANOptions:
    """Widths and normalisation of ``dcgan`` (Radford et al., 2015, arXiv:1511.06434)."""

    latent_dim: int = option(128, help="Length of z.", minimum=1)
    g_width: int = option(64, help="Channels of G at half the image size; doubles per halving.", minimum=1)
    d_width: int = option(64, help="Channels of D at half the image size; doubles per halving.", minimum=1)
    max_width: int = option(512, help="Upper bound on the channels of any layer.", minimum=1)
    label_width: int = option(64, help="Length of the class embedding next to z; conditional only.", minimum=1)
    d_norm: Literal["spectral", "batch", "instance", "none"] = option(
        "spectral",
        help="Normalisation in D; batch and instance leave the first layer without.",
    )


@dataclass(frozen=True, kw_only=True)
class SNGANOptions:
    """Widths and normalisation of ``sngan`` (Miyato et al., 2018, arXiv:1802.05957)."""

    latent_dim: int = option(128, help="Length of z.", minimum=1)
    g_width: int = option(
        256, help="Channels of G up to 32 px; above, the last block has a quarter of it.", minimum=4
    )
    d_width: int = option(
        128, help="Channels of D up to 32 px; above, the first block has a half of it.", minimum=2
    )
    d_norm: Literal["spectral", "none"] = option(
        "spectral", help="Spectral normalisation of every layer of D, its embedding included, or none."
    )


@dataclass(frozen=True, kw_only=True)
class MLPOptions:
    """Sizes and normalisation of ``mlp``, the pair for points in the plane."""

    latent_dim: int = option(32, help="Length of z.", minimum=1)
    width: int = option(128, help="Units of every hidden layer, in G and in D.", minimum=1)
    depth: int = option(3, help="Hidden layers, in G and in D.", minimum=1)
    label_width: int = option(16, help="Length of the class embedding next to z; conditional only.", minimum=1)
    d_norm: Literal["spectral", "none"] = option("none", help="Spectral normalisation of D, or none.")
