"""Inception and DINOv2 through their real loading code, on random weights in the published form."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as public

from gancore.api import ConfigError, DataError
from gancore_fidelity import weights
from gancore_fidelity.backbones import Settings, open_backbone
from gancore_fidelity.backbones.dinov2 import DinoV2
from gancore_fidelity.backbones.inception import Inception
from gancore_fidelity.options import FidelityOptions
from gancore_fidelity.storage import Storage


def published(content: bytes, like: weights.Weights) -> weights.Weights:
    """As if this content were the published one."""
    return dataclasses.replace(like, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def randomised(network: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=draw)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=draw).mul_(0.1)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def reference_network() -> nn.Module:
    """torch-fidelity's extractor with random weights."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(public, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(public.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = public.FeatureExtractorInceptionV3("any", ["2048", "logits_unbiased"])
    return randomised(network)


@pytest.fixture(scope="module")
def inception_file(reference_network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / weights.INCEPTION.name
    torch.save(reference_network.state_dict(), path)
    return path


def images(count: int = 2, channels: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=draw)


@pytest.mark.slow
def test_inception_is_torch_fidelity_s(reference_network: nn.Module, inception_file: Path) -> None:
    before = torch.get_rng_state(), os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    content = inception_file.read_bytes()
    backbone = Inception(inception_file, published=published(content, weights.INCEPTION))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before[1]
    found = backbone.features(images())
    vectors, logits = reference_network(images())
    assert found.logits is not None
    assert found.vectors.shape == (2, backbone.dimension)
    scale = vectors.abs().mean()
    assert (found.vectors - vectors).abs().max() < 1e-4 * scale  # another memory format, other roundings
    assert (found.logits - logits).abs().max() < 1e-4 * logits.abs().mean()
    assert backbone.protocol()["backbone_sha256"] == hashlib.sha256(content).hexdigest()
    grey = backbone.features(images(1, channels=1)).vectors
    assert torch.allclose(grey, backbone.features(images(1, channels=1).expand(-1, 3, -1, -1)).vectors)


@pytest.mark.slow
def test_bf16_is_near_float32_and_says_so(inception_file: Path) -> None:
    known = published(inception_file.read_bytes(), weights.INCEPTION)
    exact = Inception(inception_file, Settings(), known)
    reduced = Inception(inception_file, Settings(precision="bf16"), known)
    first, second = exact.features(images()).vectors, reduced.features(images()).vectors
    error = float((first - second).norm() / first.norm())
    assert 1e-4 < error < 0.05
    assert second.dtype == torch.float32
    assert reduced.protocol()["backbone_precision"] == "bf16"


@pytest.mark.parametrize("how", ["other", "cut off", "one byte"])
def test_a_wrong_file_is_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    content = b"PK weights" * 1000
    known = published(content, weights.INCEPTION)
    path = tmp_path / "w.pth"
    path.write_bytes({"other": b"x" * 10_000, "cut off": content[:-100], "one byte": content[:-1] + b"!"}[how])

    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(torch, "load", parsed)
    with pytest.raises(DataError, match="It was not opened"):
        Inception(path, published=known)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing_even_with_the_right_hash(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for name, content in {"raw": pickle.dumps(Trap(sprung)), "saved": saved({"weight": Trap(sprung)})}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match="do not fit Inception-v3"):
            Inception(path, published=published(content, weights.INCEPTION))
        assert not sprung.exists()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.slow
def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    content = saved({"Conv2d_1a_3x3.conv.weight": torch.zeros(1, 3, 3, 3)})
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match="do not fit Inception-v3: .*Conv2d"):
        Inception(path, published=published(content, weights.INCEPTION))


@pytest.mark.slow
def test_dinov2_is_timm_s(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224)
    native = torch.zeros(1, 37 * 37 + 1, 384)
    content = save({**randomised(network).state_dict(), "pos_embed": native})
    path = tmp_path / weights.DINOV2.name
    path.write_bytes(content)
    known = published(content, weights.DINOV2)
    backbone = DinoV2(path, published=known)
    found = backbone.features(images())
    assert found.logits is None
    network.pos_embed.zero_()
    pixels = torch.nn.functional.interpolate(
        images().float() / 255, (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    expected = network((pixels - mean) / std)
    assert torch.allclose(found.vectors, expected, rtol=1e-3, atol=1e-4)
    path.write_bytes(save({"cls_token": torch.zeros(1)}))
    known = published(path.read_bytes(), weights.DINOV2)
    with pytest.raises(DataError, match="do not fit DINOv2"):
        DinoV2(path, published=known)


def test_without_timm_the_message_says_what_to_install(
    bars: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    samples = bars.samples(bars.pictures(4, 1)[0], bars.dataset(60))
    with pytest.raises(ConfigError, match=r"pip install 'gancore-fidelity\[dinov2\]'"):
        open_backbone(FidelityOptions(backbone="dinov2"), samples, Storage(tmp_path))


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_without_download_the_message_says_what_to_put_where(
    bars: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    if name == "dinov2":
        pytest.importorskip("timm", reason="needs timm")
    samples = bars.samples(bars.pictures(4, 1)[0], bars.dataset(60))
    options = FidelityOptions(backbone=name, download=False)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"is not in {tmp_path}, and fidelity.download is off; .*https://"):
        open_backbone(options, samples, Storage(tmp_path))


def test_a_backbone_that_is_named_is_fetched(
    bars: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(published: weights.Weights, storage: Storage) -> Path:
        asked.append(published.name)
        raise DataError("no network")

    monkeypatch.setattr(weights, "fetch", fetch)
    samples = bars.samples(bars.pictures(4, 1)[0], bars.dataset(60))
    with pytest.raises(DataError, match="no network"):
        open_backbone(FidelityOptions(backbone="inception"), samples, Storage(tmp_path))
    assert asked == [weights.INCEPTION.name]


def test_auto_takes_inception_where_its_weights_are(
    bars: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / weights.INCEPTION.name).write_bytes(b"")
    opened = []
    monkeypatch.setattr(
        "gancore_fidelity.backbones.inception.Inception", lambda path, settings: opened.append((path, settings))
    )
    samples = bars.samples(bars.pictures(4, 1)[0], bars.dataset(60))
    open_backbone(FidelityOptions(precision="bf16"), samples, Storage(tmp_path))
    assert opened == [(tmp_path / weights.INCEPTION.name, Settings(samples.device, "bf16"))]


def test_auto_without_weights_and_labels_says_how_to_get_either(bars: SimpleNamespace, tmp_path: Path) -> None:
    samples = bars.samples(bars.pictures(4, 1)[0], bars.dataset(60, labelled=False))
    assert open_backbone(FidelityOptions(), samples, Storage(tmp_path)) is None
    (note,) = samples.notes
    assert "no labels to train a classifier on" in note
    assert weights.INCEPTION.url in note
    assert str(tmp_path) in note
