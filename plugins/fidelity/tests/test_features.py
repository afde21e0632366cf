"""Extraction in order and beside its source; the reference's cache: kept, verified, rebuilt."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancore.api import DataError, DivergedError
from gancore.data.dataset import MemoryDataset
from gancore_fidelity.backbones import Backbone, Features, Settings
from gancore_fidelity.features import ahead, chosen_rows, extract, reference, to_uint8
from gancore_fidelity.storage import Storage


class Means(Backbone):
    """Two features of an image, and a count of the images it has seen."""

    name: ClassVar[str] = "classifier"
    model, dimension, has_logits, sha256 = "means", 2, False, "0" * 64
    input_size, resize = 16, "none"

    def __init__(self) -> None:
        super().__init__(nn.Identity(), Settings())
        self.seen = 0

    def forward(self, images: Tensor) -> Features:
        self.seen += len(images)
        flat = images.float().flatten(1)
        return Features(torch.stack([flat.mean(1), flat.std(1)], 1))


def images(count: int = 30) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)


def test_features_come_in_order_whatever_the_batch() -> None:
    backbone, data = Means(), torch.from_numpy(images())
    expected = torch.stack([torch.stack([image.float().mean(), image.float().std()]) for image in data])
    for size in (1, 7, 30):
        found = extract(backbone, iter(data.split(size)))
        assert torch.allclose(found.vectors, expected, rtol=1e-6)
        assert found.logits is None
    with pytest.raises(DataError, match="no image"):
        extract(backbone, iter(()))


def test_the_source_runs_ahead_in_another_thread_by_two() -> None:
    made: list[int] = []
    threads = set()

    def source() -> Iterator[int]:
        for index in range(6):
            threads.add(threading.current_thread())
            made.append(index)
            yield index

    items = ahead(source())
    assert next(items) == 0
    rest = list(items)
    assert rest == [1, 2, 3, 4, 5]
    assert made == [0, 1, 2, 3, 4, 5]
    assert threading.current_thread() not in threads
    assert len(threads) == 1


def test_nobody_waits_for_who_stops_early() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for index in range(1000):
            made.append(index)
            yield index

    items = ahead(source())
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 4


def test_an_error_of_the_source_arrives_after_what_came_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise DataError("file 2 is gone")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(DataError, match="file 2 is gone"):
        next(items)


def test_eight_bits_round_as_pictures_are_saved() -> None:
    values = torch.tensor([-2.0, -1.0, -0.999, 0.0, 0.9999, 1.0, 3.0]).reshape(1, 1, 1, 7)
    expected = [round(float((min(max(v, -1), 1) + 1) * 127.5)) for v in values.flatten().tolist()]
    assert to_uint8(values, (1, 1, 7), "samples").flatten().tolist() == expected


def test_every_8_bit_value_survives_the_way_to_floats_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1, (1, 16, 16), "samples"), every)


def test_samples_of_another_size_or_mode_are_refused() -> None:
    with pytest.raises(DataError, match="samples are 3x16x16, the reference is 1x16x16"):
        to_uint8(torch.zeros(2, 3, 16, 16), (1, 16, 16), "samples")
    with pytest.raises(DivergedError, match="not finite"):
        to_uint8(torch.full((1, 1, 16, 16), torch.nan), (1, 16, 16), "samples")


def test_rows_are_drawn_once_and_ascend() -> None:
    rows = chosen_rows(100, 30, seed=0)
    assert len(set(rows.tolist())) == 30
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, chosen_rows(100, 30, seed=0))
    assert not np.array_equal(rows, chosen_rows(100, 30, seed=1))
    assert np.array_equal(chosen_rows(10, 30, seed=0), np.arange(10))


def look(backbone: Means, data: MemoryDataset, folder: Path, count: int = 20) -> tuple[object, list[str]]:
    notes: list[str] = []
    rows = chosen_rows(len(data), count, seed=0)
    return reference(backbone, data, rows, 8, Storage(folder), notes.append), notes


@pytest.mark.parametrize("count", [20, 2], ids=["covariance", "rows"])
def test_a_reference_is_extracted_once(tmp_path: Path, count: int) -> None:
    backbone, data = Means(), MemoryDataset(images())
    first, notes = look(backbone, data, tmp_path, count)
    assert backbone.seen == count
    again, more = look(Means(), data, tmp_path, count)
    assert not notes + more
    assert torch.equal(again.features.vectors, first.features.vectors)
    assert torch.equal(again.statistics.mean, first.statistics.mean)
    assert torch.equal(again.statistics.dense(), first.statistics.dense())
    expected = np.cov(first.features.vectors.double().numpy().T)
    assert np.allclose(again.statistics.dense().numpy(), expected, rtol=1e-10)


def test_what_would_change_the_features_makes_a_new_entry(tmp_path: Path) -> None:
    data = MemoryDataset(images())
    look(Means(), data, tmp_path)
    other = Means()
    other.sha256 = "1" * 64
    look(other, data, tmp_path)
    look(Means(), MemoryDataset(images(29)), tmp_path)
    look(Means(), data, tmp_path, count=10)
    reduced = Means()
    reduced.settings = Settings(precision="bf16")
    look(reduced, data, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_entry_is_made_again_with_a_note(tmp_path: Path) -> None:
    data = MemoryDataset(images())
    first, _ = look(Means(), data, tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)
    backbone = Means()
    again, notes = look(backbone, data, tmp_path)
    assert backbone.seen == 20
    assert "checksum" in notes[0]
    assert torch.equal(again.features.vectors, first.features.vectors)
    assert look(Means(), data, tmp_path)[1] == []


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found, notes = look(Means(), MemoryDataset(images()), tmp_path / "file")
    assert len(found.features.vectors) == 20
    assert any("could not be kept" in note for note in notes)


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_or_one_image_reference_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=rf"has {count} images; expected at least 2"):
        look(Means(), MemoryDataset(images(count)), tmp_path)
