from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from gancore.data import DataOptions, open_dataset
from gancore.data.torchvision_sets import SETS, TorchvisionSource, default_root
from gancore.errors import DataError


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path):
    """A set of 12 pictures in the files that torchvision keeps MNIST in."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    labels = (np.arange(12) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    return tmp_path


def opened(name, root, **options):
    return open_dataset(DataOptions(source=f"torchvision:{name}", root=str(root), download=False, **options))


def test_a_set_on_disk(mnist):
    dataset = opened("MNIST", mnist, conditional=True)
    assert dataset.name == "torchvision:MNIST"
    assert dataset.shape == (1, 32, 32)
    assert len(dataset) == 12
    assert dataset.labels.tolist() == [*range(10), 0, 1]
    assert dataset.class_names[3] == "3 - three"
    assert opened("MNIST", mnist).labels is None


def test_it_can_be_read_on_demand(mnist):
    memory, lazy = opened("MNIST", mnist), opened("MNIST", mnist, memory_gib=0.0)
    assert lazy.describe()["stored"] == "on demand"
    assert lazy.digest == memory.digest
    assert (lazy.read(np.arange(12)) == memory.read(np.arange(12))).all()
    lazy.close()


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(
        DataError, match=re.escape(f"torchvision:CIFAR10 is not complete in {tmp_path}")
    ) as caught:
        opened("CIFAR10", tmp_path)
    assert "downloading is off" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_fails(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", offline)
    options = DataOptions(source="torchvision:CIFAR10", root=str(tmp_path))
    with pytest.raises(DataError, match="the download failed: network is unreachable; connect to the network"):
        open_dataset(options)


def test_an_unknown_set_offers_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"unknown torchvision set 'CIFAR11' \(did you mean 'CIFAR10'\?\)"):
        opened("CIFAR11", tmp_path)


def test_every_listed_set_exists():
    from torchvision import datasets

    assert [name for name in SETS if not hasattr(datasets, name)] == []


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("targets", [1, 0, 1], [1, 0, 1]),
        ("labels", np.array([1, 0, 1]), [1, 0, 1]),
        ("_labels", [1, 0, 1], [1, 0, 1]),
        ("y", [1, 0, 1], [1, 0, 1]),
        ("_samples", [("a", 1), ("b", 0), ("c", 1)], [1, 0, 1]),
        ("targets", [-1, -1, -1], None),
        ("nothing", 0, None),
    ],
)
def test_labels_wherever_a_set_keeps_them(attribute, value, expected, tmp_path, monkeypatch):
    class Stub:
        def __init__(self, **_):
            setattr(self, attribute, value)

        def __len__(self):
            return 3

    monkeypatch.setattr("torchvision.datasets.SVHN", Stub)
    source = TorchvisionSource(DataOptions(source="torchvision:SVHN", root=str(tmp_path)))
    if expected is None:
        assert source.classes(False).indices.tolist() == [0, 0, 0]
        with pytest.raises(DataError, match="no labels that can be used"):
            source.classes(True)
    else:
        assert source.classes(True).indices.tolist() == expected
        assert source.classes(True).names == ("0", "1")


def test_the_default_folder_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "gancore" / "data"
