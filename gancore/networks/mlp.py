"""Fully connected networks for points in the plane, the smallest pair that a method can be tried on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gancore.networks.layers import LEAKY_SLOPE, ProjectionHead, normalised, uniform_by_fan_in_
from gancore.networks.options import MLPOptions
from gancore.networks.protocols import Discriminator, Generator, require_labels
from gancore.networks.spec import TapSpec


class MLPGenerator(Generator):
    """``depth`` hidden layers with ReLU, then a linear output without bound; the class is embedded."""

    def __init__(self, options: MLPOptions, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(latent_dim=options.latent_dim, num_classes=num_classes)
        self.embedding = nn.Embedding(num_classes, options.label_width) if num_classes else None
        width = options.latent_dim + (options.label_width if num_classes else 0)
        layers: list[nn.Module] = []
        for _ in range(options.depth):
            layers += [nn.Linear(width, options.width), nn.ReLU()]
            width = options.width
        self.body = nn.Sequential(*layers)
        self.to_point = nn.Linear(width, shape[0])

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Points ``(N, 2)`` from ``latents`` ``(N, latent_dim)`` and ``labels`` ``(N,)``."""
        if self.embedding is not None:
            latents = torch.cat([latents, self.embedding(require_labels(labels, self.num_classes))], dim=1)
        points: Tensor = self.to_point(self.body(latents)).to(self.to_point.weight.dtype)
        return points


class MLPDiscriminator(Discriminator):
    """``depth`` hidden layers with LeakyReLU 0.2, then a linear layer, with projection when conditional.

    Taps: ``trunk`` and ``pooled`` are the same vector, the last hidden layer ``(width,)``.
    """

    def __init__(self, options: MLPOptions, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(
            taps={
                "trunk": TapSpec((options.width,), "last hidden layer, after the activation"),
                "pooled": TapSpec((options.width,), "the same vector: what the linear layer reads"),
            },
            num_classes=num_classes,
        )
        spectral = options.d_norm == "spectral"
        width = shape[0]
        layers: list[nn.Module] = []
        for _ in range(options.depth):
            layers += [normalised(nn.Linear(width, options.width), spectral), nn.LeakyReLU(LEAKY_SLOPE)]
            width = options.width
        self.body = nn.Sequential(*layers)
        self.logit = ProjectionHead(width, num_classes, spectral=spectral, initialise=uniform_by_fan_in_)

    def features(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """``trunk`` and ``pooled`` of points ``(N, 2)``; labels are not read."""
        trunk = self.body(images)
        return {"trunk": trunk, "pooled": trunk}

    def head(self, features: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """Logits ``(N,)`` from ``pooled``, or from ``trunk`` when only that is given."""
        logits: Tensor = self.logit(features[self.deepest_tap(features)], labels)
        return logits


def build(options: MLPOptions, shape: tuple[int, ...], num_classes: int) -> tuple[MLPGenerator, MLPDiscriminator]:
    """G and D for points of ``shape`` ``(D,)``; ``num_classes`` 0 for unconditional ones."""
    return MLPGenerator(options, shape, num_classes), MLPDiscriminator(options, shape, num_classes)
