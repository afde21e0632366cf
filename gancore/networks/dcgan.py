"""DCGAN: transposed convolutions against strided ones.

Reference: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", 2015, arXiv:1511.06434. D's spectral normalisation is that of
arXiv:1802.05957, its conditioning the projection of arXiv:1802.05637.

Deviation: widths are 64 at half the image size with a bound of 512 (the paper: 128 and 1024 at 64 px), D is
spectrally normalised by default (the paper: BatchNorm), and G reads the class as an embedding next to z.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from gancore.networks.convolution import Conv2d, ConvTranspose2d, flattened, laid_out_as
from gancore.networks.layers import LEAKY_SLOPE, ProjectionHead, halvings, normalised
from gancore.networks.options import DCGANOptions
from gancore.networks.protocols import Discriminator, Generator, require_labels
from gancore.networks.spec import TapSpec

START = 4
WEIGHT_STD = 0.02


class DCGANGenerator(Generator):
    """z -> 4x4 -> a 4x4 stride-2 transposed convolution per doubling -> tanh; BatchNorm, ReLU between."""

    def __init__(self, options: DCGANOptions, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(latent_dim=options.latent_dim, num_classes=num_classes, coupling="batch")
        channels, size = shape[0], shape[1]
        widths = _widths(options.g_width, options.max_width, size)[::-1]
        self.embedding = nn.Embedding(num_classes, options.label_width) if num_classes else None
        input_dim = options.latent_dim + (options.label_width if num_classes else 0)
        self.start_width = widths[0]
        self.project = nn.Linear(input_dim, widths[0] * START * START, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [
                ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.to_image = ConvTranspose2d(widths[-1], channels, 4, 2, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=WEIGHT_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] from ``latents`` ``(N, latent_dim)`` and ``labels`` ``(N,)``."""
        if self.embedding is not None:
            latents = torch.cat([latents, self.embedding(require_labels(labels, self.num_classes))], dim=1)
        h = self.project(latents).unflatten(1, (self.start_width, START, START))
        h = self.body(laid_out_as(h, self.to_image.weight))
        return torch.tanh(self.to_image(h).to(self.to_image.weight.dtype))


class DCGANDiscriminator(Discriminator):
    """One 4x4 stride-2 convolution per halving down to 4x4, LeakyReLU 0.2, then a linear layer.

    Taps: ``trunk`` ``(C, 4, 4)`` after the last activation; ``pooled`` ``(16 C,)``, the same values
    flattened.
    """

    def __init__(self, options: DCGANOptions, shape: tuple[int, ...], num_classes: int) -> None:
        channels, size = shape[0], shape[1]
        widths = _widths(options.d_width, options.max_width, size)
        pooled = widths[-1] * START * START
        super().__init__(
            taps={
                "trunk": TapSpec((widths[-1], START, START), "feature map after the last activation"),
                "pooled": TapSpec((pooled,), "trunk, flattened: what the linear layer reads"),
            },
            num_classes=num_classes,
            coupling="batch" if options.d_norm == "batch" else "none",
        )
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            norm = _feature_norm(options.d_norm, after) if index else None
            # A normalisation layer that follows subtracts any bias again.
            conv = Conv2d(before, after, 4, 2, 1, bias=norm is None)
            nn.init.normal_(conv.weight, std=WEIGHT_STD)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers.append(normalised(conv, options.d_norm == "spectral"))
            if norm is not None:
                layers.append(norm)
            layers.append(nn.LeakyReLU(LEAKY_SLOPE))
        self.body = nn.Sequential(*layers)
        self.logit = ProjectionHead(
            pooled,
            num_classes,
            spectral=options.d_norm == "spectral",
            initialise=lambda weight: nn.init.normal_(weight, std=WEIGHT_STD),
        )

    def features(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """``trunk`` and ``pooled`` of ``images`` ``(N, C, H, W)`` in [-1, 1]; labels are not read."""
        trunk = self.body(images)
        return {"trunk": trunk, "pooled": flattened(trunk)}

    def head(self, features: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """Logits ``(N,)`` from ``pooled``, or from ``trunk`` when only that is given."""
        logits: Tensor = self.logit(features[self.deepest_tap(features)].flatten(1), labels)
        return logits


def build(
    options: DCGANOptions, shape: tuple[int, ...], num_classes: int
) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """G and D for images of ``shape`` ``(C, size, size)``; ``num_classes`` 0 for unconditional ones.

    Raises:
        ConfigError: the size is not a power of two of at least 8.
    """
    return DCGANGenerator(options, shape, num_classes), DCGANDiscriminator(options, shape, num_classes)


def _widths(width: int, bound: int, size: int) -> list[int]:
    """Channels at size/2, size/4, ..., 4."""
    return [min(bound, width << step) for step in range(halvings(size, START))]


def _feature_norm(name: str, channels: int) -> nn.Module | None:
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return None
