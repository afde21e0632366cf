"""Neighbours, authenticity and D's gap against slow code; what copies and fresh draws give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gancore.api import DataError
from gancore_fidelity import memorisation
from gancore_fidelity.memorisation import Neighbours, authenticity, gap, nearest, nearest_other, rank_auc


def drawn(count: int, width: int = 5, seed: int = 0, far: float = 0.0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + far


def slow_nearest(rows: np.ndarray, others: np.ndarray, same: bool) -> tuple[list[int], list[float]]:
    indices, distances = [], []
    for i, row in enumerate(rows):
        best, where = np.inf, -1
        for j, other in enumerate(others):
            if same and i == j:
                continue
            distance = np.sqrt(((row - other) ** 2).sum())
            if distance < best:
                best, where = distance, j
        indices.append(where)
        distances.append(best)
    return indices, distances


@pytest.mark.parametrize("far", [0.0, 300.0], ids=["around 0", "far from 0"])
@pytest.mark.parametrize("block", [7, 1024])
def test_neighbours_are_those_of_loops(monkeypatch: pytest.MonkeyPatch, block: int, far: float) -> None:
    monkeypatch.setattr(memorisation, "_BLOCK", block)
    rows, others = drawn(40, seed=1, far=far), drawn(53, seed=2, far=far)
    found = nearest(rows, others)
    indices, distances = slow_nearest(rows.double().numpy(), others.double().numpy(), same=False)
    assert found.indices.tolist() == indices
    assert np.allclose(found.distances, distances, rtol=1e-5)
    found = nearest_other(others)
    indices, distances = slow_nearest(others.double().numpy(), others.double().numpy(), same=True)
    assert found.indices.tolist() == indices
    assert np.allclose(found.distances, distances, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_have_the_neighbours_of_their_values(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, others = (1e3 * torch.randn(count, 16, generator=draw).to(dtype) for count in (30, 50))
    for found, expected in (
        (nearest(rows, others), nearest(rows.float(), others.float())),
        (nearest_other(rows), nearest_other(rows.float())),
    ):
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_rows_have_neighbours_too(count: int) -> None:
    rows = drawn(count)
    indices, _ = slow_nearest(rows.double().numpy(), rows.double().numpy(), same=True)
    assert nearest_other(rows).indices.tolist() == indices
    with pytest.raises(DataError, match="1 reference image has no neighbour"):
        nearest_other(rows[:1])


def test_a_copy_is_at_distance_0_even_far_from_the_origin() -> None:
    others = drawn(3000, 64, far=50.0)
    chosen = torch.tensor([0, 17, 2999])
    found = nearest(others[chosen], others)
    assert found.indices.tolist() == chosen.tolist()
    assert found.distances.tolist() == [0.0, 0.0, 0.0]


def test_a_second_copy_in_the_reference_is_another_row() -> None:
    rows = torch.cat([drawn(6), drawn(6)[2:3]])
    found = nearest_other(rows)
    assert found.indices[2] == 6
    assert found.indices[6] == 2
    assert found.distances[2] == found.distances[6] == 0


def test_authenticity_is_that_of_loops() -> None:
    reference, generated = drawn(60, seed=3), drawn(45, seed=4)
    real, fake = reference.double().numpy(), generated.double().numpy()
    fresh = 0
    for sample in fake:
        to_real = [np.linalg.norm(sample - row) for row in real]
        x = int(np.argmin(to_real))
        apart = min(np.linalg.norm(real[x] - row) for i, row in enumerate(real) if i != x)
        fresh += to_real[x] > apart
    assert authenticity(nearest(generated, reference), nearest_other(reference)) == fresh / len(fake)


def test_copies_have_authenticity_0_and_fresh_draws_about_one_half() -> None:
    reference = drawn(1500, 8, seed=5)
    others = nearest_other(reference)
    assert authenticity(nearest(reference[:500], reference), others) == 0
    nearly = reference[:500] + 1e-3 * drawn(500, 8, seed=6)
    assert authenticity(nearest(nearly, reference), others) == 0
    fresh = authenticity(nearest(drawn(1500, 8, seed=7), reference), others)
    assert 0.4 < fresh < 0.6
    assert authenticity(nearest(drawn(200, 8, far=30.0), reference), others) == 1


def test_a_sample_as_near_as_the_next_training_image_is_a_copy() -> None:
    samples = Neighbours(torch.tensor([0]), torch.tensor([1.0]))
    assert authenticity(samples, Neighbours(torch.tensor([1]), torch.tensor([1.0]))) == 0


@pytest.mark.parametrize("ties", [False, True])
def test_the_auc_is_a_share_of_pairs(ties: bool) -> None:
    random = np.random.Generator(np.random.PCG64(8))
    first, second = random.normal(0.3, 1, 37), random.normal(0, 1, 51)
    if ties:
        first, second = first.round(), second.round()
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
    assert rank_auc(first, second) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_the_gap_of_a_d_that_knows_its_training_data() -> None:
    random = np.random.Generator(np.random.PCG64(9))
    seen, unseen = random.normal(2, 1, 4000), random.normal(0, 1, 4000)
    found = gap(seen, unseen)
    assert found.difference == pytest.approx(seen.mean() - unseen.mean())
    assert found.auc == pytest.approx(0.921, abs=0.02)  # Phi(2 / sqrt(2))
    assert gap(unseen, unseen).difference == 0
    assert gap(unseen, unseen).auc == pytest.approx(0.5)


def test_pixels_of_large_images_are_compared_small() -> None:
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert memorisation.pixels(images).shape == (3, 3 * 32 * 32)
    small = images[:, :, :16, :16]
    assert torch.equal(memorisation.pixels(small), small.flatten(1).float() / 255)


def test_each_neighbour_is_shown_once_the_nearest_first() -> None:
    indices, distances = torch.tensor([7, 7, 3, 7, 9, 3]), torch.tensor([0.5, 0.4, 0.1, 0.3, 0.9, 0.2])
    assert memorisation.nearest_pairs(indices, distances, 5).tolist() == [2, 3, 4]
    assert memorisation.nearest_pairs(indices, distances, 2).tolist() == [2, 3]


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 32), (3, 128)])
def test_the_sheet_shows_each_sample_left_of_its_neighbour(channels: int, side: int) -> None:
    samples = torch.full((5, channels, side, side), 200, dtype=torch.uint8)
    others = torch.full((5, channels, side, side), 50, dtype=torch.uint8)
    sheet = memorisation.neighbour_sheet(samples, others, torch.arange(5.0))
    pixels = np.asarray(sheet.convert("L"))
    assert sheet.width <= 1000
    tile = side * max(1, 64 // side)
    assert (pixels[10 : 10 + tile, 10 : 10 + tile - 1] == 200).all()
    assert (pixels[10 : 10 + tile, 10 + tile + 2 : 10 + 2 * tile] == 50).all()
    assert (pixels == 200).sum() > 4.5 * tile * tile
