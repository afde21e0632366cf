"""SNGAN: residual networks with spectral normalisation in D.

Reference: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018,
arXiv:1802.05957, appendix B.4; Miyato and Koyama, "cGANs with Projection Discriminator", 2018,
arXiv:1802.05637.

Channels, with the default widths (G 256, D 128). 32 px is the paper's CIFAR-10 table, 128 px its ImageNet
table, 64 px has D of the STL-10 table; 16 px follows the 32 px one with a block less.

====  ==========================================  ====================================================
size  G: 4x4, then after each doubling            D: after each halving, then blocks without (=)
====  ==========================================  ====================================================
16    256, 256 256                                128, 128= 128=
32    256, 256 256 256                            128 128, 128= 128=
64    1024, 512 256 128 64                        64 128 256 512, 1024=
128   1024, 1024 512 256 128 64                   64 128 256 512 1024, 1024=
====  ==========================================  ====================================================

Deviation: G's convolutions before a BatchNorm have no bias, since it would be subtracted again. Shortcuts
apply their 1x1 convolution on the smaller side of a resampling, which computes the same with a quarter of
the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gancore.networks.convolution import Conv2d, conv_and_pool, laid_out_as, upsample_and_conv
from gancore.networks.layers import ConditionalBatchNorm, ProjectionHead, halvings, normalised
from gancore.networks.options import SNGANOptions
from gancore.networks.protocols import Discriminator, Generator
from gancore.networks.spec import TapSpec

START = 4
SMALL = 32


class UpBlock(nn.Module):
    """BN-ReLU-upsample-conv-BN-ReLU-conv, plus the upsampled 1x1 convolution of the input."""

    def __init__(self, before: int, after: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(before, num_classes)
        self.conv1 = _conv(before, after, 3, bias=False)
        self.norm2 = ConditionalBatchNorm(after, num_classes)
        self.conv2 = _conv(after, after, 3, bias=False)
        self.shortcut = _conv(before, after, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """``(N, before, h, w)`` to ``(N, after, 2 h, 2 w)``."""
        h = upsample_and_conv(functional.relu(self.norm1(x, labels)), self.conv1.weight)
        h = self.conv2(functional.relu(self.norm2(h, labels)))
        out: Tensor = h + _upsample(self.shortcut(x))
        return out


class DownBlock(nn.Module):
    """ReLU-conv-ReLU-conv and average pooling, plus a shortcut.

    Args:
        before, after: channels.
        down: halve the resolution.
        first: leave out the first ReLU, since the input is an image.
        spectral: normalise every convolution.
    """

    def __init__(self, before: int, after: int, *, down: bool, first: bool = False, spectral: bool) -> None:
        super().__init__()
        self.down = down
        self.first = first
        self.conv1 = normalised(_conv(before, after, 3), spectral)
        self.conv2 = normalised(_conv(after, after, 3), spectral)
        learnable = down or before != after
        self.shortcut = normalised(_conv(before, after, 1), spectral) if learnable else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, before, h, w)`` to ``(N, after, h/2, w/2)``, or to ``(N, after, h, w)`` without ``down``."""
        h = functional.relu(self.conv1(x if self.first else functional.relu(x)))
        if self.down:
            h = conv_and_pool(h, self.conv2.weight, self.conv2.bias)
            x = functional.avg_pool2d(x, 2)
        else:
            h = self.conv2(h)
        out: Tensor = h + self.shortcut(x)
        return out


class SNGANGenerator(Generator):
    """z -> 4x4 -> upsampling blocks -> BN, ReLU, convolution, tanh; the class sets BN's affine map."""

    def __init__(self, options: SNGANOptions, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(latent_dim=options.latent_dim, num_classes=num_classes, coupling="batch")
        channels, size = shape[0], shape[1]
        widths = _g_widths(options.g_width, size)
        self.start_width = widths[0]
        self.project = nn.Linear(options.latent_dim, widths[0] * START * START)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.blocks = nn.ModuleList(UpBlock(before, after, num_classes) for before, after in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = _conv(widths[-1], channels, 3)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] from ``latents`` ``(N, latent_dim)`` and ``labels`` ``(N,)``."""
        h = self.project(latents).unflatten(1, (self.start_width, START, START))
        h = laid_out_as(h, self.to_image.weight)
        for block in self.blocks:
            h = block(h, labels)
        image = self.to_image(functional.relu(self.norm(h)))
        return torch.tanh(image.to(self.to_image.weight.dtype))


class SNGANDiscriminator(Discriminator):
    """Residual blocks, ReLU, sum over positions, linear layer and projection.

    Taps: ``trunk`` ``(C, h, w)``, the last block's output after ReLU; ``pooled`` ``(C,)``, its sum over
    positions.
    """

    def __init__(self, options: SNGANOptions, shape: tuple[int, ...], num_classes: int) -> None:
        channels, size = shape[0], shape[1]
        plan, side = _d_plan(options.d_width, size)
        width = plan[-1][0]
        super().__init__(
            taps={
                "trunk": TapSpec((width, side, side), "output of the last block, after ReLU"),
                "pooled": TapSpec((width,), "trunk, summed over positions: what the linear layer reads"),
            },
            num_classes=num_classes,
        )
        spectral = options.d_norm == "spectral"
        blocks: list[nn.Module] = []
        before = channels
        for index, (after, down) in enumerate(plan):
            blocks.append(DownBlock(before, after, down=down, first=index == 0, spectral=spectral))
            before = after
        self.body = nn.Sequential(*blocks, nn.ReLU())
        self.logit = ProjectionHead(width, num_classes, spectral=spectral, initialise=nn.init.xavier_uniform_)

    def features(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """``trunk`` and ``pooled`` of ``images`` ``(N, C, H, W)`` in [-1, 1]; labels are not read."""
        trunk = self.body(images)
        return {"trunk": trunk, "pooled": trunk.sum((2, 3))}

    def head(self, features: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """Logits ``(N,)`` from ``pooled``, or from ``trunk`` when only that is given."""
        tap = self.deepest_tap(features)
        pooled = features[tap].sum((2, 3)) if tap == "trunk" else features[tap]
        logits: Tensor = self.logit(pooled, labels)
        return logits


def build(
    options: SNGANOptions, shape: tuple[int, ...], num_classes: int
) -> tuple[SNGANGenerator, SNGANDiscriminator]:
    """G and D for images of ``shape`` ``(C, size, size)``; ``num_classes`` 0 for unconditional ones.

    Raises:
        ConfigError: the size is not a power of two of at least 16.
    """
    return SNGANGenerator(options, shape, num_classes), SNGANDiscriminator(options, shape, num_classes)


def _g_widths(width: int, size: int) -> list[int]:
    """Channels at 4, 8, ..., size: constant up to 32 px, above halving to width / 4, at most 4 width."""
    count = halvings(size, START)
    if size <= SMALL:
        return [width] * (count + 1)
    return [min(4 * width, width // 4 << (count - step)) for step in range(count + 1)]


def _d_plan(width: int, size: int) -> tuple[list[tuple[int, bool]], int]:
    """``(channels, down)`` of each block, and the side of the last feature map."""
    if size <= SMALL:
        return [(width, True)] * halvings(size, 2 * START) + [(width, False)] * 2, 2 * START
    bound = 8 * width
    down = [min(bound, width // 2 << step) for step in range(halvings(size, START))]
    return [*((after, True) for after in down), (min(bound, 2 * down[-1]), False)], START


def _conv(before: int, after: int, kernel: int, bias: bool = True) -> Conv2d:
    conv = Conv2d(before, after, kernel, padding=kernel // 2, bias=bias)
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _upsample(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
