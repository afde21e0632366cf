"""T and the terms against slow loops in float64; gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gancore_icr import functional as f

RNG = np.random.default_rng(0)


def bounced(position: int, size: int) -> int:
    """Walk from 0 pixel by pixel and turn round at either border pixel."""
    place, direction = 0, 1 if position >= 0 else -1
    for _ in range(abs(position)):
        if size == 1:
            return 0
        if not 0 <= place + direction < size:
            direction = -direction
        place += direction
    return place


def loop_translate(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """out[c, i, j] = x[c, i - down, j - right], mirrored at the border pixels."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                out[c, i, j] = image[c, bounced(i - down, height), bounced(j - right, width)]
    return out


SHAPES = {"square": (3, 6, 6), "wide": (1, 3, 7), "tall": (2, 8, 2), "one row": (1, 1, 5), "one pixel": (2, 1, 1)}
SHIFTS = [(0, 0), (1, -2), (-3, 4), (5, 6), (-17, 23)]
"""Some larger than every side."""


@pytest.mark.parametrize("shape", SHAPES)
def test_translation_equals_a_walk_that_bounces_at_the_border_pixels(shape: str) -> None:
    images = RNG.normal(size=(len(SHIFTS), *SHAPES[shape]))
    got = f.translate(torch.from_numpy(images), torch.tensor(SHIFTS))
    expected = [loop_translate(x, *shift) for x, shift in zip(images, SHIFTS, strict=True)]
    np.testing.assert_array_equal(got.numpy(), np.stack(expected))


@pytest.mark.parametrize(("down", "right"), [(2, -3), (-4, 1), (4, 6)])
def test_where_padding_reaches_translation_is_the_crop_of_a_reflected_image(down: int, right: int) -> None:
    image = RNG.normal(size=(2, 5, 7))
    padded = np.pad(image, ((0, 0), (4, 4), (6, 6)), mode="reflect")
    got = f.translate(torch.from_numpy(image)[None], torch.tensor([[down, right]]))[0]
    np.testing.assert_array_equal(got.numpy(), padded[:, 4 - down : 9 - down, 6 - right : 13 - right])


def test_content_moves_down_and_right_and_the_border_pixel_is_not_repeated() -> None:
    image = torch.arange(4.0).reshape(1, 1, 1, 4)
    assert f.translate(image, torch.tensor([[0, 2]])).flatten().tolist() == [2, 1, 0, 1]
    assert f.translate(image.mT, torch.tensor([[-1, 0]])).flatten().tolist() == [1, 2, 3, 2]


def test_t_flips_each_image_by_its_own_coin_left_to_right_and_then_moves_it() -> None:
    images = RNG.normal(size=(4, 2, 3, 5))
    flip, shift = [True, False, True, False], [(1, 0), (0, 0), (0, 0), (-1, 2)]
    got = f.change(torch.from_numpy(images), f.Change(torch.tensor(flip), torch.tensor(shift)))
    for i in range(4):
        image = images[i, :, :, ::-1] if flip[i] else images[i]
        np.testing.assert_array_equal(got[i].numpy(), loop_translate(image, *shift[i]))
    assert torch.equal(f.change(torch.from_numpy(images), f.Change(None, None)), torch.from_numpy(images))


@pytest.mark.parametrize(
    ("side", "ratio", "most"),
    [(32, 1 / 8, 4), (20, 1 / 8, 2), (7, 1 / 8, 0), (100, 0.29, 29), (1, 1.0, 1), (30, 0.1, 3)],
)
def test_the_largest_shift_is_rounded_down_but_not_by_the_product(side: int, ratio: float, most: int) -> None:
    assert f.reach(side, ratio) == most


def test_drawn_shifts_are_uniform_over_all_whole_pixels_of_each_side_and_coins_are_fair() -> None:
    count = 20_000
    drawn = f.draw_change(count, 16, 40, torch.Generator().manual_seed(0))
    assert drawn.flip is not None
    assert drawn.shift is not None
    assert drawn.flip.dtype == torch.bool
    assert drawn.flip.double().mean() == pytest.approx(0.5, abs=0.02)
    for column, most in ((0, 2), (1, 5)):
        values, counts = drawn.shift[:, column].unique(return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        expected = count / (2 * most + 1)
        assert ((counts - expected) ** 2 / expected).sum() < 30  # chi^2 of at most 10 degrees: p < 0.001
    assert abs(np.corrcoef(drawn.shift.numpy().T)[0, 1]) < 0.03


def test_what_is_left_out_of_t_is_not_drawn() -> None:
    assert f.draw_change(4, 8, 8, torch.Generator(), flip=False).flip is None
    assert f.draw_change(4, 8, 8, torch.Generator(), ratio=0.0).shift is None


def loop_squared(a: np.ndarray, b: np.ndarray, reduction: str) -> list[float]:
    """||a_i - b_i||^2, number by number."""
    found = []
    for i in range(len(a)):
        squares = [(x - y) ** 2 for x, y in zip(a[i].ravel(), b[i].ravel(), strict=True)]
        found.append(math.fsum(squares) / (len(squares) if reduction == "mean" else 1))
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3, 4)])
def test_consistency_equals_a_loop(shape: tuple[int, ...], reduction: str) -> None:
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    got = f.consistency(torch.from_numpy(a), torch.from_numpy(b), reduction)
    assert float(got) == pytest.approx(math.fsum(loop_squared(a, b, reduction)) / 5, rel=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bound", [0.0, 1.5, 15.0])
def test_spread_equals_a_loop(reduction: str, bound: float) -> None:
    a, b = RNG.normal(size=(6, 2, 2, 2)), RNG.normal(size=(6, 2, 2, 2))
    counted = [min(d, bound) if bound else d for d in loop_squared(a, b, reduction)]
    got = f.spread(torch.from_numpy(a), torch.from_numpy(b), reduction, bound)
    assert float(got) == pytest.approx(-math.fsum(counted) / 6, rel=1e-13)


def test_the_sum_over_a_cifar_image_is_3072_times_the_mean_and_makes_no_difference_for_logits() -> None:
    a, b = (torch.from_numpy(RNG.normal(size=(2, 3, 32, 32))) for _ in range(2))
    assert float(f.spread(a, b, "sum") / f.spread(a, b)) == pytest.approx(3072)
    assert torch.equal(
        f.consistency(a[:, 0, 0, 0], b[:, 0, 0, 0], "sum"), f.consistency(a[:, 0, 0, 0], b[:, 0, 0, 0])
    )


def test_images_in_the_range_of_tanh_spread_to_minus_four_a_pixel() -> None:
    ones = torch.ones(2, 3, 4, 4)
    assert float(f.spread(ones, -ones)) == -4.0


def test_a_sample_beyond_the_bound_has_no_gradient_and_the_others_keep_theirs() -> None:
    base = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    near = torch.tensor([[2.0, 2, 2], [0.5, 0.5, 0.5]], dtype=torch.float64)
    f.spread(base, near, bound=1.0).backward()
    assert base.grad is not None
    assert base.grad.tolist() == [[0, 0, 0], pytest.approx([2 * 0.5 / 6] * 3)]


def test_near_latents() -> None:
    z, noise = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)).astype(np.float32)
    got = f.near_latents(torch.from_numpy(z), torch.from_numpy(noise), 0.03)
    np.testing.assert_allclose(got.numpy(), z + 0.03 * noise.astype(np.float64), rtol=1e-15)


def test_both_sides_of_a_difference_receive_a_gradient_of_opposite_sign() -> None:
    a, b = (torch.from_numpy(RNG.normal(size=4)).requires_grad_() for _ in range(2))
    f.consistency(a, b).backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, -b.grad)
    torch.testing.assert_close(a.grad, 2 * (a - b).detach() / 4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_equal_finite_differences(reduction: str) -> None:
    a, b = (torch.from_numpy(RNG.normal(size=(3, 4))).requires_grad_() for _ in range(2))
    for function in (f.consistency, f.spread, lambda x, y, r: f.spread(x, y, r, 2.0)):
        assert torch.autograd.gradcheck(lambda x, y, fn=function: fn(x, y, reduction), (a, b))
        assert torch.autograd.gradgradcheck(lambda x, y, fn=function: fn(x, y, reduction), (a, b))


def test_t_can_be_differentiated_twice() -> None:
    images = torch.from_numpy(RNG.normal(size=(2, 1, 3, 4))).requires_grad_()
    drawn = f.Change(torch.tensor([True, False]), torch.tensor([[1, -2], [5, 0]]))
    assert torch.autograd.gradcheck(lambda x: f.change(x, drawn), images)
    assert torch.autograd.gradgradcheck(lambda x: f.change(x, drawn).pow(3), images)


def test_nothing_is_changed_in_place() -> None:
    images = torch.from_numpy(RNG.normal(size=(2, 1, 4, 4)))
    kept = images.clone()
    f.change(images, f.Change(torch.tensor([True, True]), torch.tensor([[1, 1], [2, 2]])))
    f.spread(images, images + 1, bound=0.5)
    assert torch.equal(images, kept)
