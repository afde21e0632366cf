"""Draws, matrices, filters, corruptions and the controller against slow loops in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gancore_ada import functional
from gancore_ada.options import GROUPS, AdaOptions

OPS = {op: 1.0 for op in functional.OPS}
COLUMNS = {"rand": 29, "randn": 12}
QS = (0.1, 0.3, 0.5, 0.7, 0.9)


def erfinv(value: float) -> float:
    """By bisection of math.erf."""
    low, high = -6.0, 6.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return low


def at(q: float, shape: tuple[int, ...], ops=OPS, **options):
    parameters = functional.sample(shape, 0.0, ops, percentile=q, dtype=torch.float64, **options)
    return parameters, functional.compose(parameters, shape)


# Wavelets.


@pytest.mark.parametrize(("taps", "moments"), [(functional.SYM2, 2), (functional.SYM6, 6)])
def test_the_filters_are_the_orthogonal_ones_with_their_vanishing_moments(taps, moments) -> None:
    h = np.array(taps)
    assert len(h) == 2 * moments
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(moments):
        product = (h[2 * shift :] * h[: len(h) - 2 * shift]).sum()
        assert product == pytest.approx(float(shift == 0), abs=1e-10)
    high = h * (-1.0) ** np.arange(len(h))
    for order in range(moments):
        assert (high * (np.arange(len(h)) / len(h)) ** order).sum() == pytest.approx(0, abs=1e-9)


def test_sym6_is_the_least_asymmetric_of_its_kind() -> None:
    """All orthogonal filters with 6 vanishing moments, from their roots; sym6 has the phase nearest to linear."""
    count = 6
    binomials = [math.comb(count - 1 + k, k) for k in range(count)]
    # P(y) with y = (2 - z - 1/z) / 4, as a polynomial in z after multiplication by z^(count - 1)
    total = np.zeros(2 * count - 1)
    for k, b in enumerate(binomials):
        term = np.array([1.0])
        for _ in range(k):
            term = np.convolve(term, [-0.25, 0.5, -0.25])
        pad = count - 1 - k
        total += b * np.pad(term, pad)
    roots = np.roots(total)
    inner = [root for root in roots if abs(root) < 1]
    groups = [[r] for r in inner if abs(r.imag) < 1e-9] + [[r, r.conjugate()] for r in inner if r.imag > 1e-9]
    found = []
    for flips in itertools.product((False, True), repeat=len(groups)):
        taps = np.array([1.0])
        for _ in range(count):
            taps = np.convolve(taps, [0.5, 0.5])
        for flip, group in zip(flips, groups, strict=True):
            for root in group:
                taps = np.convolve(taps, [1, -(1 / root if flip else root)])
        taps = taps.real / taps.real.sum() * math.sqrt(2)
        frequencies = np.linspace(0.01, 2.5, 200)
        phase = np.unwrap(np.angle(np.exp(-1j * np.outer(frequencies, np.arange(12))) @ taps))
        slope = (frequencies @ phase) / (frequencies @ frequencies)
        found.append((abs(phase - slope * frequencies).max(), taps))
    best = min(found, key=lambda pair: pair[0])[1]
    own = np.array(functional.SYM6)
    assert min(abs(best - own).max(), abs(best[::-1] - own).max()) < 1e-8


def test_the_bands_add_up_to_the_identity_and_lie_an_octave_apart() -> None:
    bands = np.array(functional.octave_bands())
    assert bands.shape == (4, 43)
    np.testing.assert_allclose(bands.sum(0), np.eye(43)[21], atol=1e-12)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)
    frequencies = np.pi * np.array([1 / 32, 3 / 16, 3 / 8, 0.9])
    response = np.cos(np.outer(frequencies, np.arange(-21, 22))) @ bands.T
    assert (response.argmax(1) == np.arange(4)).all()


# Matrices at percentiles.


def rotation(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@pytest.mark.parametrize("q", QS)
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_the_geometry_at_a_percentile(q: float, size: tuple[int, int]) -> None:
    """The forward map, op after op on a point; the matrix takes it back."""
    height, width = size
    n = erfinv(2 * q - 1)
    shape = (2, 3, height, width)
    _, draw = at(q, shape)
    for point in ((3.0, -2.0), (-11.5, 7.25)):
        x, y = point
        x *= 1 - 2 * math.floor(2 * q)
        x, y, _ = rotation(-math.pi / 2 * math.floor(4 * q)) @ [x, y, 1]
        x, y = x + round((2 * q - 1) * 0.125 * width), y + round((2 * q - 1) * 0.125 * height)
        x, y = x * 2 ** (0.2 * n), y * 2 ** (0.2 * n)
        x, y, _ = rotation(-(2 * q - 1) * math.pi) @ [x, y, 1]
        x, y = x * 2 ** (0.2 * n), y / 2 ** (0.2 * n)
        x, y = x + n * 0.125 * width, y + n * 0.125 * height
        for inverse in draw["geometry"].numpy():
            np.testing.assert_allclose(inverse @ [x, y, 1], [*point, 1], atol=1e-5)


@pytest.mark.parametrize("q", QS)
def test_colour_at_a_percentile(q: float) -> None:
    """Each op on a colour, by the projections on the grey axis."""
    n = erfinv(2 * q - 1)
    grey = np.ones(3) / math.sqrt(3)
    shape = (2, 3, 4, 4)
    _, draw = at(q, shape)
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = functional.apply_color(images, draw["color"]).numpy()
    for b, i, j in itertools.product(range(2), range(4), range(4)):
        colour = images[b, :, i, j].numpy() + 0.2 * n
        colour = colour * 2 ** (0.5 * n)
        colour = colour - 2 * math.floor(2 * q) * (colour @ grey) * grey
        along = (colour @ grey) * grey
        across = colour - along
        angle = (2 * q - 1) * math.pi
        across = across * math.cos(angle) + np.cross(grey, across) * math.sin(angle)
        np.testing.assert_allclose(found[b, :, i, j], along + across * 2**n, atol=1e-5)


@pytest.mark.parametrize("q", QS)
def test_colour_of_grey_images(q: float) -> None:
    """A grey pixel is a colour of equal channels, and the mean of the result; hue and saturation do nothing."""
    shape = (2, 1, 4, 4)
    parameters, draw = at(q, shape)
    assert not {"hue", "saturation"} & set(parameters)
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = functional.apply_color(images, draw["color"])
    coloured = at(q, (2, 3, 4, 4))[1]["color"]
    expected = functional.apply_color(images.expand(-1, 3, -1, -1), coloured).mean(1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    n = erfinv(2 * q - 1)
    direct = (images + 0.2 * n) * 2 ** (0.5 * n) * (1 - 2 * math.floor(2 * q))
    torch.testing.assert_close(found, direct, rtol=0, atol=1e-5)


def bank() -> np.ndarray:
    """The octave bands by polynomials: H(z) H(1/z) / 2 at doubled spacings."""
    h = np.array(functional.SYM2)
    low, high = (np.convolve(f, f[::-1]) / 2 for f in (h, h * [1, -1, 1, -1]))

    def spread(taps, spacing):
        out = np.zeros((len(taps) - 1) * spacing + 1)
        out[::spacing] = taps
        return out

    lows = [np.array([1.0])]
    for octave in range(3):
        lows.append(np.convolve(spread(low, 2**octave), lows[-1]))
    bands = [lows[3]] + [np.convolve(spread(high, 2 ** (3 - i)), lows[3 - i]) for i in (1, 2, 3)]
    return np.array([np.pad(band, (43 - len(band)) // 2) for band in bands])


@pytest.mark.parametrize("size", [(64, 48), (16, 16), (5, 9)])
@pytest.mark.parametrize("q", [0.2, 0.6, 0.9])
def test_the_filter_at_a_percentile(q: float, size: tuple[int, int]) -> None:
    """Gains band after band, a bank of its own, and indices that walk to and fro over a small image."""
    shape = (1, 2, *size)
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    _, draw = at(q, shape)
    gains = np.ones(4)
    for band in range(4):
        t = np.ones(4)
        t[band] = 2 ** erfinv(2 * q - 1)
        gains *= t / math.sqrt(sum(w * v * v for w, v in zip((10 / 13, 1 / 13, 1 / 13, 1 / 13), t, strict=True)))
    np.testing.assert_allclose(draw["bands"][0].numpy(), gains, atol=1e-6)
    taps = gains @ bank()
    expected = images.numpy()[0]
    for along in (1, 2):
        count = expected.shape[along]
        walk = [*range(count), *range(count - 2, 0, -1)]
        out = np.zeros_like(expected)
        for i in range(count):
            for k, tap in enumerate(taps):
                source = walk[(i + k - 21) % len(walk)]
                out[(slice(None),) * along + (i,)] += tap * np.take(expected, source, along)
        expected = out
    np.testing.assert_allclose(functional.apply_filter(images, draw["bands"])[0].numpy(), expected, atol=1e-5)


def test_the_filter_pads_like_torch_where_torch_can() -> None:
    images = torch.rand(2, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bands = torch.tensor([[1.0, 2, 0.5, 3], [0.3, 1, 1, 0]], dtype=torch.float64)
    padded = torch.nn.functional.pad(images, (21, 21, 21, 21), mode="reflect").flatten(0, 1)[None]
    taps = (bands @ torch.tensor(functional.octave_bands(), dtype=torch.float64)).repeat_interleave(3, 0)
    expected = torch.nn.functional.conv2d(padded, taps[:, None, None], groups=6)
    expected = torch.nn.functional.conv2d(expected, taps[:, None, :, None], groups=6)[0].unflatten(0, (2, 3))
    torch.testing.assert_close(functional.apply_filter(images, bands), expected)


@pytest.mark.parametrize("q", QS)
def test_noise_and_cutout_at_a_percentile(q: float) -> None:
    shape = (2, 3, 11, 13)
    generator = torch.Generator().manual_seed(0)
    parameters, draw = at(q, shape, {"noise": 1.0, "cutout": 1.0}, generator=generator)
    sigma = erfinv(q) * 0.1
    assert draw["sigma"].tolist() == pytest.approx([sigma] * 2, abs=1e-7)
    images = torch.rand(shape, dtype=torch.float64, generator=generator) + 1
    found = functional.apply(images, draw).numpy()
    expected = images.numpy() + sigma * parameters["noise"].numpy()
    for i in range(11):
        for j in range(13):
            if abs((j + 0.5) / 13 - q) < 0.25 and abs((i + 0.5) / 11 - q) < 0.25:
                expected[:, :, i, j] = 0
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_at_a_percentile_p_and_the_generator_do_nothing_but_make_noise() -> None:
    shape = (2, 3, 8, 8)
    first, _ = at(0.3, shape)
    second = functional.sample(shape, 0.9, OPS, percentile=0.3, dtype=torch.float64)
    assert [k for k in first if not torch.equal(first[k], second[k])] == ["noise"]
    assert first["post_rotation"].abs().max() == 0


# Draws and gates.


def column_by_column(generator: torch.Generator, p: float, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """All uniform numbers and all normal ones, taken one column after the other: values, gate."""
    b, c, h, w = shape
    tables = {
        name: iter(getattr(torch, name)(b, n, generator=generator).unbind(1)) for name, n in COLUMNS.items()
    }

    def u(*s):
        return _next(tables["rand"], *s)

    def n(*s):
        return _next(tables["randn"], *s)

    def gated(value, identity, probability=p):
        chosen = u().reshape(-1, *[1] * (value.dim() - 1)) < probability
        return torch.where(chosen, value, torch.tensor(identity))

    out = {}
    out["xflip"] = gated((u() * 2).floor(), 0.0)
    out["rotate90"] = gated((u() * 4).floor(), 0.0)
    out["xint"] = (gated((u(2) * 2 - 1) * 0.125, 0.0) * torch.tensor([w, h])).round()
    out["scale"] = gated(torch.exp2(n() * 0.2), 1.0)
    either = 1 - math.sqrt(1 - p)
    out["pre_rotation"] = gated((u() * 2 - 1) * math.pi, 0.0, either)
    out["aniso"] = gated(torch.exp2(n() * 0.2), 1.0)
    out["post_rotation"] = gated((u() * 2 - 1) * math.pi, 0.0, either)
    out["xfrac"] = gated(n(2) * 0.125, 0.0) * torch.tensor([w, h])
    out["brightness"] = gated(n() * 0.2, 0.0)
    out["contrast"] = gated(torch.exp2(n() * 0.5), 1.0)
    out["lumaflip"] = gated((u() * 2).floor(), 0.0)
    out["hue"] = gated((u() * 2 - 1) * math.pi, 0.0)
    out["saturation"] = gated(torch.exp2(n()), 1.0)
    if c == 1:
        del out["hue"], out["saturation"]
    bands = torch.ones(b, 4)
    for i in range(4):
        t = torch.ones(b, 4)
        t[:, i] = gated(torch.exp2(n()), 1.0)
        bands *= t / (t.square() @ torch.tensor(functional.BAND_POWER)).sqrt()[:, None]
    out["bands"] = bands
    out["sigma"] = gated(n().abs() * 0.1, 0.0)
    centre = u(2)
    out["cutout"] = torch.cat((centre, gated(torch.full((b, 2), 0.5), 0.0)), 1)
    assert not any(map(list, tables.values()))
    out["noise"] = torch.randn(shape, generator=generator)
    return out


def _next(columns, *s: int) -> torch.Tensor:
    return torch.stack(list(itertools.islice(columns, *s)), 1) if s else next(columns)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_the_numbers_are_taken_in_the_order_of_the_pipeline(p: float, channels: int) -> None:
    shape = (9, channels, 6, 10)
    found = functional.sample(shape, torch.tensor(p), OPS, generator=torch.Generator().manual_seed(5))
    expected = column_by_column(torch.Generator().manual_seed(5), p, shape)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_gates_open_with_multiplier_times_p() -> None:
    shape = (40_000, 1, 2, 2)
    rates = {"scale": 0.5, "rotate": 1.0, "xflip": 1.0, "brightness": 2.0, "cutout": 0.25}
    found = functional.sample(shape, 0.4, rates, generator=torch.Generator().manual_seed(0))
    turned = (found["pre_rotation"] != 0) | (found["post_rotation"] != 0)
    for share, expected in (
        (found["scale"] != 1, 0.2),
        (turned, 0.4),
        (found["xflip"] != 0, 0.2),
        (found["brightness"] != 0, 0.8),
        (found["cutout"][:, 2] != 0, 0.1),
    ):
        assert float(share.float().mean()) == pytest.approx(expected, abs=0.01)


def test_a_multiplier_changes_no_draw_of_another_op() -> None:
    shape = (6, 3, 8, 8)
    everything = functional.sample(shape, 0.7, OPS, generator=torch.Generator().manual_seed(4))
    for op in ("xint", "contrast", "imgfilter", "cutout"):
        alone = functional.sample(shape, 0.7, {op: 1.0}, generator=torch.Generator().manual_seed(4))
        for name, value in alone.items():
            assert torch.equal(value, everything[name])


def test_no_op_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert functional.draw((2, 3, 4, 4), 1.0, {"scale": 0.0}, generator=generator) == {}
    assert torch.equal(generator.get_state(), before)
    assert functional.compose({}, (2, 3, 4, 4)) == {}


def test_strengths_follow_their_argument() -> None:
    strengths = functional.Strengths(
        xint=0.25,
        scale=0,
        rotate=0.5,
        aniso=0,
        xfrac=0,
        brightness=0.4,
        contrast=0,
        hue=0.5,
        saturation=0,
        bands=(1, 0, 1, 1),
        imgfilter=2,
        noise=0.2,
        cutout=0.25,
    )
    found, _ = at(0.75, (1, 3, 16, 16), strengths=strengths)
    n = erfinv(0.5)
    for name, value in {
        "xint": 2.0,
        "scale": 1,
        "pre_rotation": math.pi / 4,
        "aniso": 1,
        "xfrac": 0,
        "brightness": 0.4 * n,
        "contrast": 1,
        "hue": math.pi / 4,
        "saturation": 1,
        "sigma": 0.2 * erfinv(0.75),
    }.items():
        np.testing.assert_allclose(found[name].numpy(), value, atol=1e-6, err_msg=name)
    assert found["cutout"][0].tolist() == pytest.approx([0.75, 0.75, 0.25, 0.25])
    lowest, still, *moved = found["bands"][0].tolist()
    assert moved[0] == pytest.approx(moved[1], abs=1e-6)
    assert moved[0] / still == pytest.approx(2 ** (2 * n), rel=1e-6)
    assert lowest > still


def test_every_op_of_the_options_is_one_of_the_pipeline() -> None:
    assert list(AdaOptions().multipliers()) == list(functional.OPS)
    assert [op for ops in GROUPS.values() for op in ops] == list(functional.OPS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: functional.sample((1, 3, 4, 4), 1.0, {"shear": 1.0}),
            "unknown ops shear; expected some of xflip",
        ),
        (lambda: functional.sample((1, 3, 4, 4), 1.0, {"hue": -1.0}), "multiplier of hue = -1.0: expected"),
        (lambda: functional.sample((1, 3, 4, 4), 1.0, {}, percentile=1.0), "percentile = 1.0: expected"),
        (lambda: functional.apply(torch.zeros(1, 4, 8, 8), {}), r"\(1, 4, 8, 8\); expected .* 1 \(grey\) or 3"),
        (lambda: functional.apply(torch.zeros(3, 8, 8), {}), r"\(3, 8, 8\); expected \(B, C, H, W\)"),
        (lambda: functional.apply_color(torch.zeros(1, 2, 8, 8), torch.zeros(1, 4, 4)), "2 channels; expected 1"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
