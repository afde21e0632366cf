from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from gancore.data import DataOptions, LazyDataset, Loader, MemoryDataset, open_dataset
from gancore.data.sampler import flips, indices
from gancore.errors import ConfigError, DataError


def everything(dataset):
    return dataset.read(np.arange(len(dataset)))


@pytest.fixture
def toy():
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (10, 3, 16, 16), dtype=np.uint8)
    return MemoryDataset(array, labels=np.arange(10) % 3)


@pytest.fixture(params=["folder", "zip"])
def pair(request, encode, write_folder, write_zip):
    """The same 11 files in memory and on demand, large enough to be decoded by threads."""
    files = {f"{n % 2}/{n:02d}.png": encode(n, (150, 130 + n)) for n in range(11)}
    path = (write_folder if request.param == "folder" else write_zip)(files)
    options = {"source": str(path), "conditional": True, "image_size": 32}
    memory, lazy = open_dataset(DataOptions(**options)), open_dataset(DataOptions(**options, memory_gib=0.0))
    yield memory, lazy
    lazy.close()


def test_lazy_equals_memory(pair):
    memory, lazy = pair
    assert isinstance(memory, MemoryDataset)
    assert isinstance(lazy, LazyDataset)
    assert lazy.digest == memory.digest
    assert (lazy.labels == memory.labels).all()
    order = np.array([3, 3, 10, 0, 7])
    assert (lazy.read(order) == memory.read(order)).all()
    assert lazy.notes[-1] == "larger than 0 GiB when decoded: images are read on demand"
    assert lazy.describe()["stored"] == "on demand"


def test_prefetching_changes_nothing(pair):
    memory, lazy = pair
    ahead, plain = (Loader(dataset, 5, "cpu", True) for dataset in (lazy, memory))
    steps = [
        ("d", 0, 4),
        ("g", 0, 4),
        ("d", 4, 4),
        ("d", 8, 4),
        ("g", 4, 4),
        ("d", 3, 5),
        ("d", 8, 4),
        ("d", 0, 30),
    ]
    for step in steps:
        images, labels = ahead.batch(*step)
        expected, expected_labels = plain.batch(*step)
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)
    ahead.close()
    assert torch.equal(ahead.batch("d", 0, 4)[0], plain.batch("d", 0, 4)[0])
    ahead.close()


def test_nothing_grows_with_the_steps(pair):
    _, lazy = pair
    loader = Loader(lazy, 5, "cpu", False)
    for step in range(30):
        loader.batch("dg"[step % 2], step * 3, 3)
    assert len(loader._ahead) <= 4
    loader.close()
    lazy.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gancore")]


def test_a_forked_process_reads_with_handles_of_its_own(pair):
    memory, lazy = pair
    lazy.read(np.arange(3))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child():
        results.put(everything(lazy))

    process = context.Process(target=child)
    process.start()
    here = everything(lazy)
    there = results.get()
    process.join(20)
    assert (here == everything(memory)).all()
    assert (there == here).all()


def test_a_file_that_vanished_is_named(encode, write_folder):
    folder = write_folder({f"{n}.png": encode(n) for n in range(3)})
    dataset = open_dataset(DataOptions(source=str(folder), memory_gib=0.0))
    (folder / "1.png").unlink()
    with pytest.raises(DataError, match=r"1.png of pictures was readable at the start .* no such file"):
        everything(dataset)
    dataset.close()


def test_batches_follow_the_sampler_and_are_scaled(toy):
    loader = Loader(toy, 7, "cpu")
    images, labels = loader.batch("d", 8, 6)
    chosen = indices(7, "d", 8, 6, 10)
    assert images.shape == (6, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    expected = toy.read(chosen).astype(np.float64) / 127.5 - 1
    assert np.abs(images.numpy() - expected).max() < 1e-6
    assert labels.tolist() == (chosen % 3).tolist()
    assert labels.dtype == torch.int64


def test_black_and_white_are_exactly_one_from_zero():
    ends = MemoryDataset(np.stack([np.zeros((1, 16, 16), np.uint8), np.full((1, 16, 16), 255, np.uint8)]))
    images, labels = Loader(ends, 0, "cpu").batch("d", 0, 2)
    assert sorted(images.flatten(1).mean(1).tolist()) == [-1.0, 1.0]
    assert labels is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(toy, dtype):
    images = Loader(toy, 7, "cpu", dtype=dtype).batch("d", 0, 4)[0]
    assert images.dtype == dtype
    reference = Loader(toy, 7, "cpu").batch("d", 0, 4)[0]
    assert (images.double() - reference.double()).abs().max() < (0.01 if dtype == torch.bfloat16 else 1e-6)


def test_mirroring_flips_some_and_leaves_the_set_alone(toy):
    before = everything(toy)
    plain, mirrored = (Loader(toy, 7, "cpu", mirror).batch("d", 3, 40)[0] for mirror in (False, True))
    flipped = torch.from_numpy(flips(7, "d", 3, 40))
    assert 0 < flipped.sum() < 40
    assert torch.equal(mirrored[flipped], plain[flipped].flip(-1))
    assert torch.equal(mirrored[~flipped], plain[~flipped])
    assert (everything(toy) == before).all()


def test_points():
    points = MemoryDataset(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), name="cloud")
    batch, labels = Loader(points, 1, "cpu").batch("d", 0, 50)
    assert batch.shape == (50, 2)
    assert labels is None
    assert sorted(batch[:, 0].tolist()) == sorted(everything(points)[:, 0].tolist())
    with pytest.raises(ConfigError, match="mirror flips images, but cloud is a set of points"):
        Loader(points, 1, "cpu", True)


def test_random_labels_have_the_frequencies_of_the_set():
    labels = np.array([0] * 90 + [2] * 10)
    dataset = MemoryDataset(np.zeros((100, 1, 16, 16), np.uint8), labels=labels, class_names=("a", "b", "c"))
    loader = Loader(dataset, 0, "cpu")
    drawn = loader.random_labels(np.random.default_rng(0), 5000)
    assert drawn.dtype == np.int64
    assert np.bincount(drawn) / 5000 == pytest.approx([0.9, 0, 0.1], abs=0.02)
    unlabelled = MemoryDataset(np.zeros((4, 1, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="opened without labels"):
        Loader(unlabelled, 0, "cpu").random_labels(np.random.default_rng(0), 5)


@pytest.mark.parametrize(
    ("array", "labels", "message"),
    [
        (np.zeros((4, 16, 16), np.uint8), None, r"expected uint8 \(N, 1 or 3, H, W\)"),
        (np.zeros((4, 3, 16, 16), np.float32), None, "array of float32"),
        (np.zeros((4, 2), np.float32), [0, 1], r"labels have shape \(2,\), expected \(4,\)"),
        (np.zeros((4, 2), np.float32), [0, 1, -1, 0], "label -1 found"),
    ],
)
def test_arrays_that_are_no_set(array, labels, message):
    with pytest.raises(DataError, match=message):
        MemoryDataset(array, labels=None if labels is None else np.array(labels))


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_of_the_cpu(toy):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for step in (("d", 0, 4), ("g", 7, 9)):
        images, labels = Loader(toy, 7, "cuda", True).batch(*step)
        expected, expected_labels = Loader(toy, 7, "cpu", True).batch(*step)
        assert torch.equal(images.cpu(), expected)
        assert torch.equal(labels.cpu(), expected_labels)
