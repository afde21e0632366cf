"""DINOv2 ViT-S/14 with timm's network: features that were learnt without labels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from gancore.api import ConfigError, DataError
from gancore_fidelity import weights
from gancore_fidelity.backbones.base import Backbone, Features, Settings, as_rgb, own_randomness

_ARCHITECTURE = "vit_small_patch14_dinov2"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(Backbone):
    """384 features: the class token after the last normalisation."""

    name: ClassVar[str] = "dinov2"
    model = f"{_ARCHITECTURE}.lvd142m"
    dimension = 384
    has_logits = False
    input_size = 224
    resize = "bicubic, antialiased"

    def __init__(
        self, path: Path, settings: Settings | None = None, published: weights.Weights = weights.DINOV2
    ) -> None:
        """Read and verify the weights.

        Raises:
            ConfigError: timm is not installed. DataError: the file is not the published one, or does not fit.
        """
        self.sha256 = published.sha256
        super().__init__(_network(weights.read(published, path), path), settings or Settings())
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(_MEAN, device=self.settings.device).view(shape)
        self._std = torch.tensor(_STD, device=self.settings.device).view(shape)

    def forward(self, images: Tensor) -> Features:
        side = (self.input_size, self.input_size)
        pixels = as_rgb(images).float() / 255
        resized = F.interpolate(pixels, side, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return Features(self.network((resized - self._mean) / self._std))


def check_installed() -> None:
    """Raise :class:`ConfigError` when timm is missing."""
    try:
        import timm  # noqa: F401
    except ImportError:
        raise ConfigError(
            "backbone dinov2 needs the package timm: pip install 'gancore-fidelity[dinov2]', or choose another "
            "fidelity.backbone"
        ) from None


def _network(content: bytes, path: Path) -> nn.Module:
    check_installed()
    import timm

    # Published for 518 pixels; at 224 the position embedding is resampled in every forward.
    with own_randomness():
        network: nn.Module = timm.create_model(
            _ARCHITECTURE, pretrained=False, num_classes=0, dynamic_img_size=True
        )
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300]
        raise DataError(f"the weights '{path}' do not fit DINOv2 ViT-S/14: {why}") from error
    return network
