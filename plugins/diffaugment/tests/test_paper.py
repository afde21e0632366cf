"""DiffAugment against slow loops in float64; gradients against finite differences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from gancore_diffaugment import functional as f
from gancore_diffaugment.functional import Strengths

SHAPES = [(3, 4, 4), (3, 5, 8), (1, 6, 4), (4, 3, 3), (3, 1, 1), (1, 2, 3)]
POLICIES = [
    *(list(order) for order in itertools.permutations(["color", "translation", "cutout"])),
    ["brightness"],
    ["saturation"],
    ["contrast"],
    ["translation"],
    ["cutout"],
    ["contrast", "cutout", "brightness", "translation", "saturation"],
]
STRENGTHS = {
    "default": Strengths(),
    "plus": Strengths(translation=0.25, cutout=0.75),
    "odd": Strengths(brightness=0.3, saturation=1.7, contrast=0.4, translation=0.4, cutout=0.2),
    "full": Strengths(translation=1.0, cutout=1.0),
}


def loop(image: np.ndarray, drawn: dict[str, Any], policy: list[str], s: Strengths) -> np.ndarray:
    """One image, (C, H, W), pixel by pixel, as the released code of DiffAugment defines the operations."""
    x = image.copy()
    channels, height, width = x.shape
    places = list(itertools.product(range(channels), range(height), range(width)))
    for word in policy:
        for name in ["brightness", "saturation", "contrast"] if word == "color" else [word]:
            old, x = x, np.zeros_like(x)
            r = drawn[name]
            if name == "brightness":
                for place in places:
                    x[place] = old[place] + (r - 0.5) * s.brightness
            elif name == "saturation":
                for c, i, j in places:
                    grey = sum(old[k, i, j] for k in range(channels)) / channels
                    x[c, i, j] = (old[c, i, j] - grey) * ((2 * r - 1) * s.saturation + 1) + grey
            elif name == "contrast":
                mean = sum(old[place] for place in places) / len(places)
                for place in places:
                    x[place] = (old[place] - mean) * ((r - 0.5) * s.contrast + 1) + mean
            elif name == "translation":
                for c, i, j in places:
                    row, column = i + r[0], j + r[1]
                    if 0 <= row < height and 0 <= column < width:
                        x[c, i, j] = old[c, row, column]
            else:
                x = old.copy()
                sides = [int(height * s.cutout + 0.5), int(width * s.cutout + 0.5)]
                for down, across in itertools.product(range(sides[0]), range(sides[1])):
                    row = min(max(r[0] - sides[0] // 2 + down, 0), height - 1)
                    column = min(max(r[1] - sides[1] // 2 + across, 0), width - 1)
                    x[:, row, column] = 0
    return x


def batch(shape: tuple[int, int, int], count: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.rand((count, *shape), generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)


def drawn(
    shape: tuple[int, int, int], policy: f.Policy, strengths: Strengths = STRENGTHS["default"], count: int = 6
):
    return f.draw(torch.Generator().manual_seed(1), count, shape, policy, strengths)


@pytest.mark.parametrize("policy", POLICIES, ids=",".join)
@pytest.mark.parametrize("which", STRENGTHS)
def test_augment_equals_a_loop(policy: list[str], which: str) -> None:
    strengths = STRENGTHS[which]
    for shape in SHAPES:
        images, parameters = batch(shape, 3), drawn(shape, policy, strengths, 3)
        before = images.clone()
        got = f.augment(images, parameters, policy, strengths)
        assert torch.equal(images, before)
        for b, image in enumerate(images.numpy()):
            one = {name: value[b].tolist() for name, value in parameters.items()}
            expected = loop(image, one, policy, strengths)
            np.testing.assert_allclose(got[b].numpy(), expected, rtol=1e-12, atol=1e-14, err_msg=str(shape))


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 6, 5)], ids=str)
def test_colour_equals_its_closed_form(shape: tuple[int, int, int]) -> None:
    """k (s (x - m) + m - mu) + mu + b, with both means of the raw image: a second, independent oracle."""
    images, parameters = batch(shape), drawn(shape, "color", STRENGTHS["odd"])
    b, s, k = (
        factor * parameters[name].double()[:, None, None, None] + offset
        for name, factor, offset in (
            ("brightness", 0.3, -0.15),
            ("saturation", 3.4, 1 - 1.7),
            ("contrast", 0.4, 0.8),
        )
    )
    m, mu = images.mean(1, keepdim=True), images.mean((1, 2, 3), keepdim=True)
    expected = k * (s * (images - m) + m - mu) + mu + b
    torch.testing.assert_close(f.augment(images, parameters, "color", STRENGTHS["odd"]), expected)


def test_a_positive_shift_moves_the_content_up_and_left() -> None:
    images = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4)
    got = f.translation(images, torch.tensor([[1, 2]]))
    assert got[0, 0].tolist() == [[7, 8, 0, 0], [11, 12, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("centre", "cut", "erased"),
    [((0, 0), (2, 2), 1), ((4, 4), (2, 2), 1), ((2, 2), (2, 2), 4), ((0, 3), (3, 3), 4), ((2, 2), (4, 4), 16)],
)
def test_cutout_at_the_border(centre: tuple[int, int], cut: tuple[int, int], erased: int) -> None:
    got = f.cutout(torch.ones(1, 2, 4, 4), torch.tensor([centre]), cut)
    assert int((got[0, 0] == 0).sum()) == erased
    assert torch.equal(got[0, 0], got[0, 1])


@pytest.mark.parametrize("ratio", [1 / 8, 0.2, 0.25, 0.5, 0.75, 1.0])
def test_cutout_always_erases_something(ratio: float) -> None:
    for size in range(1, 40):
        cut = int(size * ratio + 0.5)
        assert Strengths(cutout=ratio).cut(size) == cut
        if cut:
            centres = torch.arange(size + (1 - cut % 2))
            ones = torch.ones(len(centres), 1, size, 1)
            got = f.cutout(ones, torch.stack([centres, 0 * centres], 1), (cut, 1))
            assert int((got == 0).sum((1, 2, 3)).min()) >= 1


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 9, 31), (1, 3, 1)], ids=str)
def test_draws_have_the_ranges_of_the_source(shape: tuple[int, int, int]) -> None:
    parameters = f.draw(torch.Generator().manual_seed(0), 4000, shape, "color,translation,cutout")
    for name in ("brightness", "saturation", "contrast"):
        values = parameters[name]
        assert values.shape == (4000,)
        assert values.dtype == torch.float32
        assert 0 <= float(values.min()) < 0.01 < 0.99 < float(values.max()) < 1
    for axis, size in enumerate(shape[1:]):
        reach, cut = int(size / 8 + 0.5), int(size / 2 + 0.5)
        assert parameters["translation"].dtype == parameters["cutout"].dtype == torch.int64
        assert set(parameters["translation"][:, axis].tolist()) == set(range(-reach, reach + 1))
        assert set(parameters["cutout"][:, axis].tolist()) == set(range(size + 1 - cut % 2))


def test_draws_are_those_of_the_plain_calls_in_the_order_of_the_policy() -> None:
    """Anyone can check our images against another implementation that draws in this order from one seed."""
    parameters = f.draw(torch.Generator().manual_seed(3), 5, (3, 16, 24), "translation,color,cutout")
    plain = torch.Generator().manual_seed(3)
    rows = torch.randint(-2, 3, (5, 1, 1), generator=plain)
    columns = torch.randint(-3, 4, (5, 1, 1), generator=plain)
    uniforms = [torch.rand(5, 1, 1, 1, generator=plain) for _ in range(3)]
    offsets = [torch.randint(0, size + 1, (5, 1, 1), generator=plain) for size in (16, 24)]
    assert list(parameters) == ["translation", "brightness", "saturation", "contrast", "cutout"]
    assert torch.equal(parameters["translation"], torch.cat([rows, columns], 1)[..., 0])
    assert torch.equal(parameters["cutout"], torch.cat(offsets, 1)[..., 0])
    for name, uniform in zip(f.COLOR, uniforms, strict=True):
        assert torch.equal(parameters[name], uniform.flatten())


def test_a_strength_of_zero_changes_no_bit_and_no_other_draw() -> None:
    images = batch((3, 8, 8), dtype=torch.float32)
    for name in ("brightness", "saturation", "contrast", "translation", "cutout"):
        strengths = Strengths(**{name: 0.0})
        assert f.augment(images, drawn((3, 8, 8), name, strengths), name, strengths) is images
        assert f.effective(name, strengths, (3, 8, 8)) == ()
        if name in f.COLOR:
            weak = drawn((3, 8, 8), "color,translation,cutout", strengths)
            for key, value in drawn((3, 8, 8), "color,translation,cutout").items():
                assert torch.equal(weak[key], value)
    assert f.augment(images, {}, "") is images
    grey = batch((1, 8, 8))
    assert f.augment(grey, drawn((1, 8, 8), "saturation"), "saturation") is grey


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 2, 3), (3, 1, 1)], ids=str)
def test_gradients_and_double_gradients(shape: tuple[int, int, int]) -> None:
    policy = "color,translation,cutout"
    images, parameters = batch(shape, 2).requires_grad_(), drawn(shape, policy, count=2)
    assert torch.autograd.gradcheck(lambda x: f.augment(x, parameters, policy), images)
    assert torch.autograd.gradgradcheck(lambda x: f.augment(x, parameters, policy).pow(3), images)


def test_the_backward_is_the_transposed_map() -> None:
    """g masked by cutout, scattered by the shift; then s k g + (1 - s) k mean_c g + (1 - k) mean_chw g."""
    policy, shape = "color,translation,cutout", (3, 6, 5)
    images, p = batch(shape).requires_grad_(), drawn(shape, policy)
    cotangent = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (got,) = torch.autograd.grad(f.augment(images, p, policy), images, cotangent)
    g = f.translation(f.cutout(cotangent, p["cutout"], (3, 3)), -p["translation"])
    s, k = (p[name].double()[:, None, None, None] for name in ("saturation", "contrast"))
    s, k = 2 * s, k + 0.5
    expected = s * k * g + (1 - s) * k * g.mean(1, keepdim=True) + (1 - k) * g.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_types_stay_finite_and_close(dtype: torch.dtype) -> None:
    policy, shape = "color,translation,cutout", (3, 32, 32)
    images, parameters = batch(shape).to(dtype), drawn(shape, policy)
    got = f.augment(images, parameters, policy)
    assert got.dtype == dtype
    assert torch.isfinite(got).all()
    exact = f.augment(images.double(), parameters, policy)
    assert float((got.double() - exact).abs().max()) <= 4 * torch.finfo(dtype).eps


def test_what_is_moved_out_or_cut_out_cannot_spread() -> None:
    """An erased pixel is 0 whatever it was, also where it was not finite."""
    images = torch.full((1, 1, 4, 4), torch.inf)
    assert not f.cutout(images, torch.tensor([[2, 2]]), (4, 4)).any()
    assert not f.translation(images, torch.tensor([[4, 0]])).any()


def test_rows_are_independent_and_layouts_agree() -> None:
    policy, shape = "color,translation,cutout", (3, 8, 8)
    images, parameters = batch(shape), drawn(shape, policy)
    whole = f.augment(images, parameters, policy)
    one = f.augment(images[2:3], {name: value[2:3] for name, value in parameters.items()}, policy)
    torch.testing.assert_close(one, whole[2:3], rtol=1e-14, atol=1e-15)
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(f.augment(last, parameters, policy), whole, rtol=1e-14, atol=1e-15)
    assert f.augment(images[:0], {name: value[:0] for name, value in parameters.items()}, policy).shape[0] == 0


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("colour", "unknown word 'colour' in policy; did you mean 'color'?"),
        (["translate"], "did you mean 'translation'?"),
        ("color,,cutout", "unknown word '' in policy; words: color,"),
        ("Cutout", "did you mean 'cutout'?"),
        ("cutout,cutout", "policy names cutout twice"),
        ("brightness,color", "policy names brightness by 'brightness' and by 'color'"),
    ],
)
def test_wrong_policies_are_refused_with_the_nearest_word(policy: f.Policy, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        f.draw(torch.Generator(), 2, (3, 4, 4), policy)
    assert message in str(caught.value)


def test_wrong_arguments_say_what_was_expected() -> None:
    images, parameters = batch((3, 8, 8)), drawn((3, 8, 8), "color")
    with pytest.raises(ValueError, match=r"holds no 'cutout' \(it holds brightness, saturation, contrast\)"):
        f.augment(images, parameters, "color,cutout")
    with pytest.raises(ValueError, match="brightness has 6 rows for 3 images"):
        f.augment(images[:3], parameters, "color")
    with pytest.raises(ValueError, match=r"\(6, 3, 8, 8\) torch.int64; expected \(B, C, H, W\) in a floating"):
        f.augment(images.long(), parameters, "color")
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\)"):
        f.augment(images[0], parameters, "color")
    with pytest.raises(ValueError, match=r"strength of cutout = 1.5: expected a share of the side in \[0, 1\]"):
        Strengths(cutout=1.5)
    with pytest.raises(ValueError, match="strength of contrast = nan: expected a finite value >= 0"):
        Strengths(contrast=float("nan"))


def test_spaces_and_lists_are_fine() -> None:
    assert f.words(" color , cutout ") == f.words(["color", "cutout"]) == ("color", "cutout")
    assert f.operations("cutout,color") == ("cutout", "brightness", "saturation", "contrast")
    assert f.operations("") == f.operations([]) == ()
