"""The classifier: the same weights each time, known by hash, kept, and a yardstick that sees what it should."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gancore.api import DataError
from gancore_fidelity import classifier, frechet
from gancore_fidelity.backbones import Settings
from gancore_fidelity.classifier import Classifier, Network, open_classifier, train
from gancore_fidelity.storage import Storage, tensor_digest


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that takes a second."""
    monkeypatch.setattr(classifier, "RECIPE", {**classifier.RECIPE, "most_steps": 12, "batch": 32})


def opened(bars: SimpleNamespace, folder: Path, data: object) -> tuple[Classifier, list[str]]:
    samples = bars.samples(bars.pictures(4, 1)[0], data)
    return open_classifier(samples, Storage(folder), Settings()), samples.notes


def test_the_weights_depend_on_data_and_recipe_alone(bars: SimpleNamespace, short: None) -> None:
    data = bars.dataset(200)
    first = train(data.read, data.labels, 3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(123)
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            again = train(data.read, data.labels, 3)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert tensor_digest(first.weights) == tensor_digest(again.weights)
    other = bars.dataset(200, seed=5)
    assert tensor_digest(train(other.read, other.labels, 3).weights) != tensor_digest(first.weights)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_trained_once_and_known_by_its_hash(bars: SimpleNamespace, short: None, tmp_path: Path) -> None:
    first, _ = opened(bars, tmp_path, bars.dataset(200))
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    again, notes = opened(bars, tmp_path, bars.dataset(200))
    assert path.stat().st_mtime_ns == written
    assert again.sha256 == first.sha256
    assert again.protocol() == first.protocol()
    images = torch.from_numpy(bars.pictures(20, 3)[0])
    assert torch.equal(again.features(images).vectors, first.features(images).vectors)
    assert not [note for note in notes if "trained again" in note]
    opened(bars, tmp_path, bars.dataset(201))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_one_is_trained_again(bars: SimpleNamespace, short: None, tmp_path: Path) -> None:
    first, _ = opened(bars, tmp_path, bars.dataset(200))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    again, notes = opened(bars, tmp_path, bars.dataset(200))
    assert again.sha256 == first.sha256
    assert any("trained again" in note and "cut off" in note for note in notes)


def test_a_cache_that_cannot_be_written_costs_time_alone(
    bars: SimpleNamespace, short: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    _, notes = opened(bars, tmp_path / "file", bars.dataset(200))
    assert any("could not be kept" in note for note in notes)


def test_an_unconditional_run_has_the_classifier_of_the_conditional_one(
    bars: SimpleNamespace, short: None, tmp_path: Path
) -> None:
    first, _ = opened(bars, tmp_path, bars.dataset(200))
    data = bars.dataset(200, labelled=False)
    samples = bars.samples(bars.pictures(4, 1)[0], data, open_labelled=lambda: bars.dataset(200))
    assert open_classifier(samples, Storage(tmp_path), Settings()).sha256 == first.sha256


def test_labels_that_say_nothing_are_told(bars: SimpleNamespace, short: None, tmp_path: Path) -> None:
    data = bars.dataset(200)
    data.labels = np.random.Generator(np.random.PCG64(7)).integers(0, 3, 200)
    found, notes = opened(bars, tmp_path, data)
    assert found.accuracy < 0.6
    assert any(f"right on {found.accuracy:.0%}" in note and "poorly" in note for note in notes)


@pytest.mark.parametrize(("count", "labels"), [(40, None), (80, 1)])
def test_too_few_images_or_classes_are_refused(
    bars: SimpleNamespace, tmp_path: Path, count: int, labels: int | None
) -> None:
    data = bars.dataset(count)
    if labels is not None:
        data.labels = np.full(count, labels)
    with pytest.raises(DataError, match=rf"has {count} images of \d classes; a classifier needs at least 50"):
        opened(bars, tmp_path, data)


@pytest.mark.parametrize("side", [16, 28, 32, 64])
def test_all_sides_reach_the_same_depth(side: int) -> None:
    vectors, logits = Network(3, side, 7)(torch.zeros(2, 3, side, side))
    assert vectors.shape == (2, 224)
    assert logits.shape == (2, 7)


def test_larger_images_are_resized_with_antialiasing(bars: SimpleNamespace, short: None) -> None:
    large = np.repeat(np.repeat(bars.pictures(64, 0)[0], 8, axis=2), 8, axis=3)
    labels = bars.pictures(64, 0)[1]
    backbone = Classifier(train(lambda rows: large[rows], labels, 3))
    assert backbone.input_size == 64
    assert "antialiased" in backbone.resize
    stripes = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    stripes[..., ::2] = 255
    grey = torch.full_like(stripes, 128)
    assert torch.allclose(backbone.features(stripes).vectors, backbone.features(grey).vectors, atol=0.2)


def test_its_distance_grows_with_noise_blur_and_missing_classes(bars: SimpleNamespace, cache: Path) -> None:
    backbone, _ = opened(bars, cache, bars.dataset(600))
    assert backbone.accuracy > 0.9

    def of(images: np.ndarray) -> frechet.Statistics:
        return frechet.statistics(backbone.features(torch.from_numpy(images)).vectors)

    reference = of(bars.pictures(600, 0)[0])
    fresh, labels = bars.pictures(600, 1)
    random = np.random.Generator(np.random.PCG64(2))

    def noisy(strength: float) -> np.ndarray:
        return (fresh + random.normal(0, strength, fresh.shape)).clip(0, 255).astype(np.uint8)

    blurred = (fresh // 2 + np.roll(fresh, 1, axis=2) // 4 + np.roll(fresh, 1, axis=3) // 4).astype(np.uint8)
    base = frechet.frechet_distance(of(fresh), reference)
    for worse in ([noisy(20), noisy(60)], [blurred], [fresh[labels < 2], fresh[labels < 1]]):
        distances = [base, *(frechet.frechet_distance(of(images), reference) for images in worse)]
        assert distances == sorted(distances)
        assert distances[1] > 1.2 * distances[0]
