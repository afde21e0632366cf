"""Scores of points in the plane against loops, on the built-in sets and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import ConfigError, DataError
from gancore.data import DataOptions, MemoryDataset, open_dataset
from gancore_fidelity.points import Modes, assign, mode_scores, modes_of

SETS = {"gaussians": 9, "circles": 9, "circles:concentric": 3}


def of(name: str) -> tuple[Modes, Tensor]:
    dataset = open_dataset(DataOptions(source=name))
    return modes_of(dataset), torch.from_numpy(dataset.read(np.arange(20_000)))


def slow(generated: Tensor, data: Tensor, modes: Modes) -> tuple[int, float, float]:
    """Covered modes, share of high quality and reverse KL, point by point."""
    centers, radii = modes.centers.tolist(), modes.radii.tolist()

    def nearest(point: list[float]) -> tuple[float, int]:
        distances = [
            abs(math.dist(point, center) - radius) for center, radius in zip(centers, radii, strict=True)
        ]
        return min(distances), distances.index(min(distances))

    counts, expected, there, high = [0] * len(centers), [0] * len(centers), [0] * len(centers), 0
    for point in generated.double().tolist():
        distance, mode = nearest(point)
        counts[mode] += 1
        if distance <= 3 * modes.std:
            high += 1
            there[mode] += 1
    for point in data.double().tolist():
        expected[nearest(point)[1]] += 1
    shares = [(g / len(generated), d / len(data)) for g, d in zip(counts, expected, strict=True)]
    covered = sum(found >= 0.01 * len(generated) for found in there)
    return covered, high / len(generated), sum(g * math.log(g / d) for g, d in shares if g)


@pytest.mark.parametrize("name", SETS)
def test_scores_equal_the_loop(name: str) -> None:
    modes, data = of(name)
    generator = torch.Generator().manual_seed(1)
    generated = torch.cat((data[:300:3], 1.5 * torch.randn(200, 2, generator=generator)))
    found = mode_scores(generated, data[:2000], modes)
    covered, high, divergence = slow(generated, data[:2000], modes)
    assert (found.covered, found.modes) == (covered, SETS[name])
    assert found.high_quality == high
    assert found.reverse_kl == pytest.approx(divergence, rel=1e-12)
    assert found.counts.sum() == len(generated)


@pytest.mark.parametrize(
    ("name", "share"), [("gaussians", 0.98889), ("circles", 0.9973), ("circles:concentric", 0.9973)]
)
def test_the_data_itself_scores_as_its_density_says(name: str, share: float) -> None:
    modes, data = of(name)
    found = mode_scores(data[:10_000], data[10_000:], modes)
    assert found.covered == SETS[name]
    assert found.high_quality == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 10_000))
    assert 0 <= found.reverse_kl < 1e-4


@pytest.mark.parametrize("name", SETS)
def test_points_belong_to_the_mode_that_they_were_drawn_from(name: str) -> None:
    modes, data = of(name)
    labels = torch.from_numpy(open_dataset(DataOptions(source=name, conditional=True)).labels[:20_000])
    assert torch.equal(assign(data, modes, "")[0], labels)


def test_a_collapsed_generator_covers_one_mode() -> None:
    modes, data = of("gaussians")
    found = mode_scores(torch.zeros(50, 2), data, modes)
    assert (found.covered, found.high_quality) == (1, 1.0)
    assert found.reverse_kl == pytest.approx(math.log(9), abs=1e-3)


def test_a_mode_with_poor_points_alone_is_not_covered() -> None:
    """The centre of a ring is far from the ring."""
    modes, data = of("circles")
    found = mode_scores(modes.centers.float(), data, modes)
    assert (found.covered, found.high_quality) == (0, 0.0)
    assert found.counts.tolist() == [1] * 9
    assert found.reverse_kl == pytest.approx(0, abs=1e-3)


def test_many_points_are_assigned_in_parts() -> None:
    modes, data = of("gaussians")
    many = data.repeat(5, 1)
    assert torch.equal(assign(many, modes, "")[0], assign(data, modes, "")[0].repeat(5))


def test_a_mode_without_data_is_an_error_and_not_infinity() -> None:
    modes, data = of("gaussians")
    there = data[assign(data, modes, "")[0] != 4]
    with pytest.raises(DataError, match=r"mode 4: 3 generated points.*reverse_kl is infinite"):
        mode_scores(torch.zeros(3, 2), there, modes)
    assert mode_scores(torch.ones(3, 2), there, modes).reverse_kl > 0


def test_a_set_that_does_not_say_its_modes_is_refused_by_name() -> None:
    other = MemoryDataset(np.zeros((5, 2), np.float32), name="my-points")
    with pytest.raises(ConfigError, match=r"my-points.*need the modes.*expected gaussians, circles"):
        modes_of(other)


def test_points_that_cannot_be_scored_are_refused() -> None:
    modes, data = of("gaussians")
    bad = data[:10].clone()
    bad[[2, 5]] = math.nan
    with pytest.raises(DataError, match="generated: 2 of 10 are NaN"):
        mode_scores(bad, data, modes)
    with pytest.raises(DataError, match="of the data: 0 of 0"):
        mode_scores(data, data[:0], modes)
    with pytest.raises(ValueError, match=r"\(10, 3\)"):
        mode_scores(torch.zeros(10, 3), data, modes)
    with pytest.raises(ValueError, match="expected \\(M, 2\\)"):
        Modes(torch.zeros(3, 2), torch.zeros(2), 0.1)
    with pytest.raises(ValueError, match="above 0"):
        Modes(torch.zeros(3, 2), torch.zeros(3), 0.0)


def test_a_trail_covers_no_mode_unless_one_point_is_enough() -> None:
    modes, data = of("gaussians")
    at, trail = modes.centers[:1].float().expand(995, 2), modes.centers[1:2].float().expand(5, 2)
    points = torch.cat((at, trail))
    assert mode_scores(points, data, modes).covered == 1
    assert mode_scores(points, data, modes, least_share=0.005).covered == 2
    assert mode_scores(points, data, modes, least_share=0).covered == 2
    assert mode_scores(at, data, modes, least_share=0).covered == 1


@pytest.mark.parametrize("name", ["circles", "circles:concentric"])
def test_scores_of_rings_equal_the_loop(name: str) -> None:
    modes, data = of(name)
    generator = torch.Generator().manual_seed(1)
    generated = torch.cat((data[:120], 1.5 * torch.randn(200, 2, generator=generator)))
    found = mode_scores(generated, data[:2000], modes)
    centers, radii = modes.centers.tolist(), modes.radii.tolist()
    errors, arcs = [], set()
    for x, y in generated.double().tolist():
        apart = [abs(math.dist((x, y), c) - r) for c, r in zip(centers, radii, strict=True)]
        mode = apart.index(min(apart))
        errors.append(apart[mode])
        if apart[mode] <= 3 * modes.std:
            degrees = math.degrees(math.atan2(y - centers[mode][1], x - centers[mode][0])) % 360
            arcs.add((mode, int(degrees // 10)))
    assert found.radial_error == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    assert found.angular_coverage == pytest.approx(len(arcs) / (36 * len(centers)))
    whole = mode_scores(data, data, modes)
    assert whole.angular_coverage == 1
    assert whole.radial_error == pytest.approx(modes.std * math.sqrt(2 / math.pi), rel=0.05)


def test_scores_of_rings_are_none_of_gaussians() -> None:
    modes, data = of("gaussians")
    found = mode_scores(data[:100], data, modes)
    assert found.radial_error is None
    assert found.angular_coverage is None


def test_an_arc_ends_where_the_next_begins() -> None:
    modes = Modes(torch.zeros(1, 2), torch.ones(1), 0.1)
    angles = torch.tensor([0.0, 9.99, 10.0, 359.99, -1e-12]).double().deg2rad()
    points = torch.stack((angles.cos(), angles.sin()), 1)
    assert mode_scores(points, points, modes).angular_coverage == 3 / 36
