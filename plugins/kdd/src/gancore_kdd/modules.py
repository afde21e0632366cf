"""What KDD keeps: the linear head W, the class embedding V, and features of reals from earlier steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

MOST_ORTHOGONAL = 2048
"""Larger square matrices take seconds to minutes to orthogonalise."""


class Head(nn.Module):
    """phi_UN = W * features, and V for the classes; D trains both.

    W starts with orthonormal rows (or columns), so that phi_UN starts with the angles of the features; above 2048
    rows and columns, where that takes long, with Gaussian rows of length about 1. V starts uniform within
    1/sqrt(K) of zero.

    Args:
        width: length of the flattened features. dimension: K. num_classes: 0 for no V.
        spectral: spectral norm of both.
    """

    def __init__(self, width: int, dimension: int, num_classes: int, *, spectral: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dimension, bias=False)
        if min(width, dimension) <= MOST_ORTHOGONAL:
            nn.init.orthogonal_(self.linear.weight)
        else:
            nn.init.normal_(self.linear.weight, std=max(width, dimension) ** -0.5)
        self.classes: nn.Embedding | None = None
        if num_classes:
            self.classes = nn.Embedding(num_classes, dimension)
            nn.init.uniform_(self.classes.weight, -(dimension**-0.5), dimension**-0.5)
        if spectral:
            for layer in (self.linear, self.classes):
                if layer is not None:
                    parametrizations.spectral_norm(layer)

    def forward(self, features: Tensor) -> Tensor:
        """(B, …) to (B, K)."""
        out: Tensor = self.linear(features.flatten(1))
        return out


class Memory(nn.Module):
    """Features of every image under the weights with which D last saw it.

    Args:
        images: of the set. variants: 2 when images are mirrored at random, else 1. dimension: K.
    """

    features: Tensor
    filled: Tensor

    def __init__(self, images: int, variants: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(images, variants, dimension))
        self.register_buffer("filled", torch.zeros(images, variants, dtype=torch.bool))

    def recall(self, images: Tensor, variants: Tensor, otherwise: Tensor) -> Tensor:
        """What is remembered of ``images`` (B,) in ``variants`` (B,); where nothing is, ``otherwise`` (B, K)."""
        known = self.filled[images, variants]
        return torch.where(known[:, None], self.features[images, variants], otherwise.detach())

    def store(self, images: Tensor, variants: Tensor, features: Tensor) -> None:
        """Remember ``features`` (B, K)."""
        self.features[images, variants] = features.detach()
        self.filled[images, variants] = True


class Last(nn.Module):
    """The real anchors of D's last step, (rows, K)."""

    features: Tensor

    def __init__(self, rows: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(rows, dimension))


def memory_bytes(images: int, variants: int, dimension: int, dtype: torch.dtype) -> int:
    """Size of a :class:`Memory`."""
    return images * variants * (dimension * dtype.itemsize + 1)


def has_spectral_norm(network: nn.Module) -> bool:
    """Whether some tensor of the network is spectrally normalised."""
    return any(
        isinstance(part, parametrizations._SpectralNorm)
        for layer in network.modules()
        if parametrize.is_parametrized(layer)
        for chain in layer.parametrizations.values()  # type: ignore[operator]
        for part in chain.children()
    )
