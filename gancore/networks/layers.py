"""Layers that more than one network uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gancore.errors import ConfigError
from gancore.networks.protocols import require_labels

LEAKY_SLOPE = 0.2

M = TypeVar("M", bound=nn.Module)


def uniform_by_fan_in_(weight: Tensor) -> Tensor:
    """Fill ``weight`` ``(out, in)`` from U(-1/sqrt(in), 1/sqrt(in)), torch's rule for linear layers."""
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5))


def normalised(module: M, spectral: bool) -> M:
    """``module`` with its weight under spectral normalisation, or as it is.

    Call it after the weight is initialised: registration runs 15 power iterations on the weight it finds.
    """
    return cast(M, spectral_norm(module)) if spectral else module


def halvings(size: int, final: int) -> int:
    """How often ``size`` is halved to reach ``final``.

    Raises:
        ConfigError: ``size`` is not ``final`` times a power of two that is at least 2.
    """
    count = int(math.log2(max(size // final, 1)))
    if count < 1 or final << count != size:
        raise ConfigError(f"image size {size}: expected a power of two, at least {2 * final}")
    return count


class ProjectionHead(nn.Module):
    """Last layer of D: ``logit = <w + embed(y), pooled> + b``, or ``<w, pooled> + b`` without classes.

    Reference: Miyato and Koyama, "cGANs with Projection Discriminator", 2018, arXiv:1802.05637, equation 4.

    Args:
        width: length of ``pooled``.
        num_classes: 0 for an unconditional head.
        spectral: spectral normalisation of w and of the embedding.
        initialise: fills both weights.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        spectral: bool = False,
        initialise: Callable[[Tensor], Tensor] = uniform_by_fan_in_,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.linear = nn.Linear(width, 1)
        initialise(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        normalised(self.linear, spectral)
        self.embedding: nn.Embedding | None = None
        if num_classes:
            self.embedding = nn.Embedding(num_classes, width)
            initialise(self.embedding.weight)
            normalised(self.embedding, spectral)

    def forward(self, pooled: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits ``(N,)`` of ``pooled`` ``(N, width)``, in the parameters' dtype."""
        weight = self.linear.weight
        if self.embedding is not None:
            weight = weight + self.embedding(require_labels(labels, self.num_classes))
        # Written out because autocast would round a matrix product, and so the logits, to bfloat16.
        logits: Tensor = (pooled.to(weight.dtype) * weight).sum(1) + self.linear.bias
        return logits


class ConditionalBatchNorm(nn.Module):
    """BatchNorm whose scale and shift belong to the sample's class; plain BatchNorm without classes.

    Reference: de Vries et al., 2017, arXiv:1707.00683, as used by Miyato and Koyama, 2018, arXiv:1802.05637.

    Args:
        channels: C of the input ``(N, C, H, W)``.
        num_classes: 0 for plain BatchNorm.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm = nn.BatchNorm2d(channels, affine=not num_classes)
        self.affine: nn.Embedding | None = None
        if num_classes:
            self.affine = nn.Embedding(num_classes, 2 * channels)
            with torch.no_grad():
                self.affine.weight[:, :channels].fill_(1.0)
                self.affine.weight[:, channels:].fill_(0.0)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Normalise ``x`` ``(N, C, H, W)`` over the batch; ``labels`` ``(N,)`` when conditional."""
        h: Tensor = self.norm(x)
        if self.affine is None:
            return h
        rows = self.affine(require_labels(labels, self.num_classes)).to(h.dtype)
        scale, shift = rows[:, :, None, None].chunk(2, dim=1)
        out: Tensor = h * scale + shift
        return out
