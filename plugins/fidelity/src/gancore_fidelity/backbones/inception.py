"""Inception-v3 of 2015-12-05 with torch-fidelity's network: what FID, KID and IS are usually measured with."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from gancore.api import DataError
from gancore_fidelity import weights
from gancore_fidelity.backbones.base import Backbone, Features, Settings, as_rgb, own_randomness

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class Inception(Backbone):
    """2,048 features after the last average pooling; 1,008 logits without their bias, as the score is defined."""

    name: ClassVar[str] = "inception"
    model = "inception-v3 2015-12-05"
    dimension = 2048
    has_logits = True
    input_size = 299
    resize = "bilinear of TensorFlow 1, not antialiased"

    def __init__(
        self, path: Path, settings: Settings | None = None, published: weights.Weights = weights.INCEPTION
    ) -> None:
        """Read and verify the weights.

        Raises:
            DataError: the file is not the published one, or does not fit the network.
        """
        self.sha256 = published.sha256
        super().__init__(_network(weights.read(published, path), path), settings or Settings())

    def forward(self, images: Tensor) -> Features:
        vectors, logits = self.network(as_rgb(images))
        return Features(vectors, logits)


def _network(content: bytes, path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        with _tensors_only(), own_randomness():
            network: nn.Module = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=io.BytesIO(content),
            )
    except Exception as error:  # whatever an unpickler raises on another content
        why = " ".join(str(error).split())[:300]
        raise DataError(f"the weights '{path}' do not fit Inception-v3: {why}") from error
    return network


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """The extractor loads by itself and would unpickle anything; torch's own switch allows tensors alone."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
