from __future__ import annotations

import numpy as np
import pytest

from gancore.data import DataOptions, open_dataset
from gancore.errors import ConfigError


def everything(dataset):
    return dataset.read(np.arange(len(dataset)))


def test_digits():
    dataset = open_dataset(DataOptions())
    assert (dataset.name, dataset.kind, len(dataset), dataset.shape) == ("digits", "image", 1797, (1, 16, 16))
    pixels = everything(dataset)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert dataset.labels is None
    assert dataset.class_names == ()


def test_digits_with_labels_at_another_size():
    options = DataOptions(conditional=True, image_size=32, channels="rgb", fraction=0.1)
    dataset = open_dataset(options)
    assert dataset.shape == (3, 32, 32)
    assert dataset.class_names == tuple("0123456789")
    counts = np.bincount(dataset.labels)
    assert counts.tolist() == [17, 18, 17, 18, 18, 18, 18, 17, 17, 18]
    assert any("first 0.1 of every class: 176 of 1,797" in note for note in dataset.notes)


@pytest.mark.parametrize(("source", "modes"), [("gaussians", 9), ("circles", 9), ("circles:concentric", 3)])
def test_point_sets_never_change(source, modes):
    dataset = open_dataset(DataOptions(source=source, conditional=True))
    again = open_dataset(DataOptions(source=source, conditional=True))
    assert dataset.digest == again.digest
    assert (everything(dataset) == everything(again)).all()
    assert (dataset.kind, dataset.shape, len(dataset)) == ("points", (2,), 100_000)
    assert everything(dataset).dtype == np.float32
    assert dataset.centers.shape == (modes, 2)
    assert len(dataset.class_names) == modes
    assert np.ptp(np.bincount(dataset.labels)) <= 1
    assert open_dataset(DataOptions(source=source)).labels is None


def test_gaussians_have_the_stated_density():
    dataset = open_dataset(DataOptions(source="gaussians", conditional=True))
    apart = everything(dataset) - dataset.centers[dataset.labels]
    assert {tuple(center) for center in dataset.centers.tolist()} == {
        (x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)
    }
    assert apart.std(axis=0) == pytest.approx([0.05, 0.05], rel=0.01)
    assert abs(apart.mean()) < 1e-3


@pytest.mark.parametrize("source", ["circles", "circles:concentric"])
def test_circles_have_the_stated_density(source):
    dataset = open_dataset(DataOptions(source=source, conditional=True))
    apart = everything(dataset) - dataset.centers[dataset.labels]
    radius = np.hypot(*apart.T) - dataset.radii[dataset.labels]
    assert abs(radius.mean()) < 1e-3
    assert radius.std() == pytest.approx(0.02, rel=0.01)
    angle, _ = np.histogram(np.arctan2(*apart.T), bins=36, range=(-np.pi, np.pi))
    assert angle.min() > 0.9 * angle.mean()
    expected = [0.3, 0.6, 0.9] if source == "circles:concentric" else [0.3] * 9
    assert dataset.radii == pytest.approx(expected)


def test_points_are_not_mirrored_and_have_no_size():
    with pytest.raises(ConfigError, match="mirror flips images, but gaussians is a set of points"):
        open_dataset(DataOptions(source="gaussians", mirror=True))
    plain = open_dataset(DataOptions(source="circles"))
    assert open_dataset(DataOptions(source="circles", image_size=48, fit="pad")).digest == plain.digest
