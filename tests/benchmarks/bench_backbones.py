"""Images a second of the backbones of the plugin ``fidelity`` on one thread, bf16 against float32; wall clock.

Weights are random: what a network costs does not depend on them. Images are 8-bit, 32x32, resized by the
backbone; batches of 64, as an evaluation has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
import torch_fidelity.feature_extractor_inceptionv3 as public
from safetensors.torch import save
from timing import machine, paired

from gancore_fidelity import weights
from gancore_fidelity.backbones.base import Backbone, Settings
from gancore_fidelity.backbones.dinov2 import DinoV2
from gancore_fidelity.backbones.inception import Inception
from gancore_fidelity.classifier import Classifier, Network, Trained

BATCH, SIDE = 64, 32
HOW: dict[str, Any] = {"warm_up": 1, "clock": time.perf_counter}
Build = Callable[[Settings], Backbone]


def inception(folder: Path) -> Build:
    """Inception-v3 with the weights that torch begins with."""
    extractor = public.FeatureExtractorInceptionV3
    with (
        mock.patch.object(public, "load_state_dict_from_url", return_value={}),
        mock.patch.object(extractor, "load_state_dict", return_value=None),
    ):
        network = extractor("any", ["2048", "logits_unbiased"])
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    path, published = _published(folder, buffer.getvalue(), weights.INCEPTION)
    return lambda settings: Inception(path, settings, published)


def dinov2(folder: Path) -> Build:
    """DINOv2's ViT-S/14 with the weights that timm begins with."""
    network = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, dynamic_img_size=True
    )
    path, published = _published(folder, save(network.state_dict()), weights.DINOV2)
    return lambda settings: DinoV2(path, settings, published)


def _published(folder: Path, content: bytes, like: weights.Weights) -> tuple[Path, weights.Weights]:
    path = folder / like.name
    path.write_bytes(content)
    return path, dataclasses.replace(like, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(machine())
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for make in (inception, dinov2):
            build = make(Path(folder))
            exact, half = build(Settings()), build(Settings(precision="bf16"))
            pair = paired(partial(half.features, images), partial(exact.features, images), **HOW, rounds=rounds)
            rates = [BATCH / statistics.median(times) for times in (pair.baseline, pair.ours)]
            print(
                f"{exact.name}: float32 {rates[0]:.1f} images/s, bf16 {rates[1]:.1f}; {pair.text()}", flush=True
            )
    tensors = {name: value.clone() for name, value in Network(3, SIDE, 10).state_dict().items()}
    own = Classifier(Trained(tensors, 3, SIDE, 10, accuracy=1.0, chance=0.1))
    pair = paired(partial(own.features, images), lambda: None, **HOW, rounds=rounds)
    print(f"{own.name}: float32 {BATCH / statistics.median(pair.ours):,.0f} images/s")


if __name__ == "__main__":
    main()
