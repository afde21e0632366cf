"""What every backbone is: a fixed network from 8-bit images to features, known by the hash of its weights."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bf16"]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Features:
    """``vectors``: float32 (N, D) on the CPU. ``logits``: float32 (N, classes), or None where there are none."""

    vectors: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Settings:
    """Where and how a backbone computes."""

    device: torch.device = CPU
    precision: Precision = "float32"


class Backbone(ABC):
    """Images to features, row by row: which images share a batch changes them by rounding alone.

    Attributes:
        name: ``"inception"``, ``"dinov2"`` or ``"classifier"``.
        model: what exactly it is, for the protocol.
        dimension: D.
        has_logits: whether it predicts classes, which the Inception score needs.
        sha256: of its weights.
        input_size: side in pixels that images are resized to.
        resize: the filter, and whether it is antialiased.
    """

    name: ClassVar[str]
    model: str
    dimension: int
    has_logits: bool
    sha256: str
    input_size: int
    resize: str

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.settings = settings
        # Channels last is 1.6 times faster for convolutions on a CPU, with the same numbers up to rounding.
        network.to(settings.device).to(memory_format=torch.channels_last)
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def features(self, images: Tensor) -> Features:
        """Features of uint8 images (N, 1 or 3, H, W)."""
        with exact(self.settings):
            found = self.forward(images.to(self.settings.device))
        logits = None if found.logits is None else found.logits.float().cpu()
        return Features(found.vectors.float().cpu(), logits)

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Features of images on the device, in whatever type they come out."""

    def protocol(self) -> dict[str, str | int]:
        """What a reader needs to compare scores that were measured with it."""
        return {
            "backbone": self.name,
            "backbone_model": self.model,
            "backbone_sha256": self.sha256,
            "backbone_input": self.input_size,
            "backbone_resize": self.resize,
            "backbone_precision": self.settings.precision,
        }


@contextlib.contextmanager
def exact(settings: Settings) -> Iterator[None]:
    """float32 that is float32 whatever the run has set, or bf16 by autocast."""
    cudnn = torch.backends.cudnn
    with (
        cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        _matmul_precision("highest"),
        torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.precision == "bf16"),
    ):
        yield


@contextlib.contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def own_randomness() -> Iterator[None]:
    """Initial weights are drawn, and replaced at once: the process's generator does not move by it."""
    with torch.random.fork_rng(devices=[]):
        yield


def as_rgb(images: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) as (N, 3, H, W)."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
