"""The geometry against a slow one that pads, inserts zeros and convolves, as the paper describes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gancore.ops import using
from gancore.testing import build_ops
from gancore_ada import functional
from gancore_ada.library import LIBRARY

TAPS = np.array(functional.SYM6) / math.sqrt(2)  # sums to 1

ALL = {op: 1.0 for op in functional.GEOMETRY}
PIPES = {
    "blit": {op: 1.0 for op in functional.BLIT},
    "geom": {op: 1.0 for op in functional.GEOMETRY if op not in functional.BLIT},
    "bg": ALL,
}


def translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=float)


def scaling(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def resample(images: np.ndarray, inverse: np.ndarray, margins: str) -> np.ndarray:
    """Pad, up, look up, down, in float64. ``margins``: ``"batch"``, as its corners need; ``"full"``, size - 1."""
    batch, _, height, width = images.shape
    left, top, right, bottom = (
        padding(inverse, height, width) if margins == "batch" else [width - 1, height - 1, width - 1, height - 1]
    )
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    for along in (2, 3):
        spaced = np.zeros([n * 2 if i == along else n for i, n in enumerate(padded.shape)])
        spaced[(slice(None),) * along + (slice(None, None, 2),)] = padded
        count = spaced.shape[along]
        spaced = np.pad(spaced, [(6, 5) if i == along else (0, 0) for i in range(4)])
        # out[n] = sum over k of 2 f[k] x[n + 5 - k], and x starts at 6
        padded = sum(
            2 * tap * np.take(spaced, range(11 - k, 11 - k + count), along) for k, tap in enumerate(TAPS)
        )
    out_height, out_width = 2 * (height + 6), 2 * (width + 6)
    sampled = np.zeros((*images.shape[:2], out_height, out_width))
    for index in range(batch):
        matrix = translation((left - right) / 2, (top - bottom) / 2) @ inverse[index]
        matrix = scaling(2, 2) @ matrix @ scaling(0.5, 0.5)
        matrix = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
        columns, rows = np.meshgrid(np.arange(out_width), np.arange(out_height))
        points = np.stack([columns + 0.5 - out_width / 2, rows + 0.5 - out_height / 2, np.ones_like(rows)])
        x, y, _ = np.tensordot(matrix, points, 1)
        sampled[index] = interpolate(padded[index], x + padded.shape[3] / 2 - 0.5, y + padded.shape[2] / 2 - 0.5)
    for along, size in ((2, height), (3, width)):
        picked = [
            sum(tap * np.take(sampled, 2 * n + k + 1, along) for k, tap in enumerate(TAPS)) for n in range(size)
        ]
        sampled = np.stack(picked, along)
    return sampled


def padding(inverse: np.ndarray, height: int, width: int) -> list[int]:
    """Left, top, right, bottom: as far as the corners of any image reach, and 6 pixels more."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = np.array([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]]).T
    reached = (inverse @ corners)[:, :2]
    limits = [width - 1, height - 1] * 2
    need = [*(-reached).max((0, 2)), *reached.max((0, 2))]
    return [math.ceil(min(max(n + 6 - half, 0), m)) for n, half, m in zip(need, (x, y) * 2, limits, strict=True)]


def interpolate(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    total = np.zeros((image.shape[0], *x.shape))
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = np.floor(x).astype(int) + dx, np.floor(y).astype(int) + dy
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            inside = (column >= 0) & (column < image.shape[2]) & (row >= 0) & (row < image.shape[1])
            column, row = column.clip(0, image.shape[2] - 1), row.clip(0, image.shape[1] - 1)
            total += np.where(inside, weight * image[:, row, column], 0)
    return total


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def drawn(shape: tuple[int, ...], p: float, ops: dict[str, float], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    parameters = functional.sample(shape, p, ops, generator=generator, dtype=torch.float64)
    return functional.compose(parameters, shape)["geometry"]


CASES = [
    (pipe, size, p, seed)
    for seed, (size, p) in enumerate([((16, 16), 0.6), ((32, 32), 1.0), ((24, 40), 0.8), ((17, 9), 0.5)])
    for pipe in PIPES
]


@pytest.mark.parametrize("path", ["reference", "fused"])
@pytest.mark.parametrize(("pipe", "size", "p", "seed"), CASES)
def test_equal_to_padding_and_convolving(pipe, size, p, seed, path) -> None:
    """With all of the reflection, to rounding, wherever the matrices look."""
    images = noise(4, 1, *size, seed=seed)
    inverse = drawn((4, 1, *size), p, PIPES[pipe], seed)
    inverse[0] = inverse[0] @ torch.tensor(scaling(2.7, 3.1) @ translation(size[1], -9.5))  # past the reflection
    if path == "fused":
        build_ops(LIBRARY)
    with using("require" if path == "fused" else "off"):
        found = functional.apply(images, {"geometry": inverse}).numpy()
    np.testing.assert_allclose(found, resample(images.numpy(), inverse.numpy(), "full"), atol=1e-10)


def differences(pipe: str, size: tuple[int, int], p: float, seeds) -> list[tuple[float, float]]:
    """Largest difference from the form that pads as a batch needs, at the border and inside it."""
    found = []
    for seed in seeds:
        images = noise(4, 1, *size, seed=seed)
        inverse = drawn((4, 1, *size), p, PIPES[pipe], seed)
        difference = functional.apply_geometry(images, inverse).numpy()
        difference = abs(difference - resample(images.numpy(), inverse.numpy(), "batch"))
        found.append((difference.max(), difference[:, :, 1:-1, 1:-1].max()))
    return found


def test_equal_to_the_padding_that_a_batch_needs() -> None:
    """6 pixels more than the corners need is enough, but for the tail of the filter at the outermost pixel."""
    for pipe, size, p, seed in CASES:
        for border, inside in differences(pipe, size, p, [seed, seed + 100]):
            assert border < (1e-12 if pipe == "blit" else 1e-3)
            assert inside < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("pipe", PIPES)
def test_equal_to_the_padding_that_a_batch_needs_over_many_batches(pipe: str) -> None:
    pairs = [
        pair
        for p in (0.2, 0.6, 1.0)
        for size in ((16, 16), (32, 32), (64, 64), (24, 40), (33, 18))
        for pair in differences(pipe, size, p, range(20))
    ]
    borders, insides = zip(*pairs, strict=True)
    assert max(borders) < (1e-12 if pipe == "blit" else 5e-4)
    assert np.quantile(borders, 0.9) < 1e-5
    assert max(insides) < 1e-5


@pytest.mark.parametrize("q", [0.05, 0.3, 0.5, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("size", [(32, 32), (16, 24)])
def test_percentiles_equal_the_padding_that_a_batch_needs(q: float, size: tuple[int, int]) -> None:
    shape = (2, 1, *size)
    images = noise(*shape)
    parameters = functional.sample(shape, 0.0, ALL, percentile=q, dtype=torch.float64)
    inverse = functional.compose(parameters, shape)["geometry"]
    found = functional.apply_geometry(images, inverse).numpy()
    np.testing.assert_allclose(found, resample(images.numpy(), inverse.numpy(), "batch"), atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 28), (128, 128)])
def test_the_identity_and_whole_shifts_are_exact_up_to_rounding(size: tuple[int, int]) -> None:
    images = noise(2, 3, *size).float()
    for x, y in ((0, 0), (4, -3), (-7, 5)):
        inverse = torch.tensor(translation(x, y)).float().expand(2, 3, 3)
        found = functional.apply_geometry(images, inverse)
        rows = reflected(np.arange(size[0]) + y, size[0])
        columns = reflected(np.arange(size[1]) + x, size[1])
        assert (found - images[:, :, rows][..., columns]).abs().max() < 3e-6


def reflected(index: np.ndarray, size: int) -> np.ndarray:
    return size - 1 - abs(size - 1 - abs(index))


def test_a_flip_by_wavelets_is_not_the_exact_flip() -> None:
    """sym6 is nearly symmetric, not quite."""
    images = noise(2, 3, 32, 32).float()
    inverse = torch.tensor(scaling(-1, 1)).float().expand(2, 3, 3)
    difference = (functional.apply_geometry(images, inverse) - images.flip(3)).abs()
    assert 0.05 < difference.max() < 1
    assert functional.apply_geometry(images.flip(3), inverse).sub(images).abs().max() > 0.05


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (12, 7)])
def test_exact_blits_move_pixels(size: tuple[int, int]) -> None:
    """Every combination, against index arithmetic from the output pixel back to the input pixel."""
    height, width = size
    images = noise(1, 3, *size)
    quarters = range(4) if (height - width) % 2 == 0 else range(1)
    for flip in (0, 1):
        for quarter in quarters:
            for x, y in ((0, 0), (2, -1), (-1, 2)):
                parameters = {"xflip": torch.tensor([float(flip)]), "xint": torch.tensor([[float(x), float(y)]])}
                if len(quarters) > 1:
                    parameters["rotate90"] = torch.tensor([float(quarter)])
                draw = functional.compose(parameters, images.shape, blit="exact")
                assert set(draw) == {"blit"}
                found = functional.apply(images, draw)
                expected = np.zeros(images.shape)
                for i in range(height):
                    for j in range(width):
                        u, v = j - (width - 1) / 2 - x, i - (height - 1) / 2 - y
                        for _ in range(quarter):
                            u, v = -v, u
                        column = round((1 - 2 * flip) * u + (width - 1) / 2)
                        row = round(v + (height - 1) / 2)
                        if 1 - width <= column <= 2 * width - 2 and 1 - height <= row <= 2 * height - 2:
                            row, column = reflected(np.array(row), height), reflected(np.array(column), width)
                            expected[:, :, i, j] = images[:, :, int(row), int(column)]
                np.testing.assert_array_equal(found.numpy(), expected)


def test_exact_quarter_turns_are_torch_rot90_and_flips_torch_flip() -> None:
    images = noise(4, 3, 8, 8)
    parameters = {"rotate90": torch.arange(4.0)}
    found = functional.apply(images, functional.compose(parameters, images.shape, blit="exact"))
    for turns in range(4):
        assert torch.equal(found[turns], images[turns].rot90(turns, (1, 2)))
    flipped = functional.compose({"xflip": torch.tensor([0.0, 1, 1, 0])}, images.shape, blit="exact")
    assert torch.equal(functional.apply(images, flipped)[1:3], images[1:3].flip(3))


def test_exact_and_wavelet_blits_are_near_each_other() -> None:
    """On a smooth image; both turn and move the same way, non-square images included."""
    for size in ((16, 16), (16, 24)):
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in size), indexing="ij")
        images = (x + 0.3 * y + 0.2 * (2 * x * y).sin())[None, None].repeat(8, 1, 1, 1)
        generator = torch.Generator().manual_seed(1)
        parameters = functional.sample(images.shape, 1.0, PIPES["blit"], generator=generator)
        pair = [functional.compose(parameters, images.shape, blit=how) for how in ("wavelet", "exact")]
        wavelet, exact = (functional.apply(images, draw) for draw in pair)
        assert (wavelet - exact).abs().max() < 0.1
        assert (exact - images).abs().max() > 0.5


def test_exact_quarter_turns_that_put_pixels_between_pixels_are_refused() -> None:
    parameters = {"rotate90": torch.ones(2)}
    with pytest.raises(ValueError, match="quarter turn of 16 x 25 .*rotate90 = 0"):
        functional.compose(parameters, (2, 3, 16, 25), blit="exact")
    functional.compose(parameters, (2, 3, 16, 25))
    functional.compose({"xflip": torch.ones(2)}, (2, 3, 16, 25), blit="exact")


def test_pieces_of_a_batch_are_the_batch() -> None:
    """On a CPU large batches are resampled some images at a time."""
    images = noise(40, 3, 32, 32).float()
    inverse = drawn(images.shape, 0.9, ALL, 3).float()
    whole = functional.apply_geometry(images, inverse)
    single = torch.cat([functional.apply_geometry(images[i : i + 1], inverse[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-5)


def test_autocast_does_not_reach_the_pipeline() -> None:
    images = noise(2, 3, 16, 16).float()
    ops = {op: 1.0 for op in functional.OPS}
    expected = functional.augment(images, 0.8, ops, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = functional.augment(images, 0.8, ops, generator=torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_constants_made_without_gradients_serve_with_them() -> None:
    with torch.inference_mode():
        functional.augment(torch.zeros(1, 1, 11, 13), 1.0, {"scale": 1.0, "imgfilter": 1.0})
    images = torch.zeros(1, 1, 11, 13, requires_grad=True)
    functional.augment(images, 1.0, {"scale": 1.0, "imgfilter": 1.0}).sum().backward()
    assert images.grad is not None
