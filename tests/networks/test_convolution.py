"""Convolutions against torch's in float64, by products and by torch, to the second derivative."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancore.networks import convolution
from gancore.networks.convolution import (
    Conv2d,
    ConvTranspose2d,
    Geometry,
    conv2d,
    conv_and_pool,
    conv_transpose2d,
    correlate,
    flattened,
    laid_out_as,
    spread,
    upsample_and_conv,
)

CASES = [
    (Geometry(4, 2, 1), (6, 8)),
    (Geometry(4, 2, 1), (2, 2)),
    (Geometry(3, 1, 1), (5, 3)),
    (Geometry(2, 2, 0), (6, 4)),
    (Geometry(3, 2, 1), (7, 6)),  # the kernel is no multiple of the stride
    (Geometry(4, 2, 1), (7, 9)),  # the last row and column are out of reach
    (Geometry(1, 1, 0), (3, 4)),
    (Geometry(6, 3, 2), (9, 6)),
]


@pytest.fixture(params=["products", "torch"])
def way(request, monkeypatch) -> str:
    """Every strided convolution by products, or none."""
    bound = 10**6 if request.param == "products" else -1
    for name in ("FEW", "SOME"):
        monkeypatch.setattr(convolution, name, bound)
    monkeypatch.setattr(convolution, "WIDE", 0)
    return request.param


def drawn(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)


def loops(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The definition."""
    size, stride, padding = geometry
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height, width = ((side - size) // stride + 1 for side in x.shape[2:])
    y = np.zeros((len(x), len(weight), height, width))
    for i in range(height):
        for j in range(width):
            seen = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
            y[:, :, i, j] = np.einsum("ncab,ocab->no", seen, weight)
    return y


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("geometry", "sides"), CASES)
def test_the_three_maps_are_the_definition_and_its_gradients(way, geometry, sides, layout) -> None:
    x = drawn(2, 3, *sides, layout=layout).requires_grad_()
    weight = drawn(5, 3, geometry.size, geometry.size, layout=layout).requires_grad_()
    y = convolution._Conv.apply(x, weight, None, geometry)
    np.testing.assert_allclose(
        y.detach(), loops(x.detach().numpy(), weight.detach().numpy(), geometry), atol=1e-12
    )
    along = drawn(*y.shape, layout=layout)
    expected = torch.autograd.grad(
        F.conv2d(x, weight, None, geometry.stride, geometry.padding), (x, weight), along
    )
    found = (spread(along, weight, None, geometry, sides), correlate(x, along, geometry))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs)


@pytest.mark.parametrize(("geometry", "sides"), [(Geometry(4, 2, 1), (4, 2)), (Geometry(3, 1, 1), (2, 3))])
def test_all_orders_of_derivative(way, geometry, sides) -> None:
    x = drawn(2, 2, *sides).requires_grad_()
    weight = drawn(3, 2, geometry.size, geometry.size).requires_grad_()
    bias = drawn(3).requires_grad_()
    y = drawn(2, 3, *(side // geometry.stride for side in sides)).requires_grad_()
    back = drawn(2).requires_grad_()

    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolution._Conv.apply(x, weight, bias, geometry)

    def transposed(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolution._Spread.apply(y, weight, bias, geometry, sides)

    def of_weight(x: Tensor, y: Tensor) -> Tensor:
        return convolution._Correlate.apply(x, y, geometry)

    for function, inputs in (
        (forward, (x, weight, bias)),
        (transposed, (y, weight, back)),
        (of_weight, (x, y)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("side", [4, 8, 32])
def test_layers_under_autocast_agree_with_float64(side: int, batch: int, bias: bool) -> None:
    for layer, textbook in ((Conv2d, F.conv2d), (ConvTranspose2d, F.conv_transpose2d)):
        made = layer(6, 6, 4, 2, 1, bias=bias)
        x = drawn(batch, 6, side, side).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = made(x)
        assert y.dtype == torch.bfloat16
        along = drawn(*y.shape)
        found = torch.autograd.grad(y, (x, *made.parameters()), along.bfloat16())
        wide = [tensor.detach().double().requires_grad_() for tensor in (x, *made.parameters())]
        exact = textbook(*wide[:2], wide[2] if bias else None, 2, 1)
        torch.testing.assert_close(y.double(), exact, atol=0.03, rtol=0.03)
        for ours, theirs in zip(found, torch.autograd.grad(exact, wide, along), strict=True):
            assert ours.dtype == torch.float32
            scale = theirs.abs().max().item() if theirs.numel() else 0.0
            torch.testing.assert_close(ours.double(), theirs, atol=0.02 * max(scale, 1e-3), rtol=0.02)


def test_a_penalty_passes_through_under_autocast() -> None:
    layers = torch.nn.Sequential(Conv2d(3, 32, 4, 2, 1), torch.nn.Softplus(), Conv2d(32, 16, 4, 2, 1))
    x = drawn(4, 3, 16, 16).float().requires_grad_()

    def penalty(half: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = layers(x).float().square()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [p for p in layers.parameters() if p.dim() > 1]))

    for ours, theirs in zip(penalty(True), penalty(False), strict=True):
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.995


@pytest.mark.parametrize("sides", [(8, 6), (2, 2)])
def test_resampling_folded_into_weights_is_the_textbook(sides) -> None:
    x = drawn(2, 3, *sides).requires_grad_()
    weight, bias = drawn(5, 3, 3, 3).requires_grad_(), drawn(5).requires_grad_()
    for ours, theirs in (
        (conv_and_pool, lambda x, w, b: F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)),
        (upsample_and_conv, lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2.0), w, b, padding=1)),
    ):
        found, expected = ours(x, weight, bias), theirs(x, weight, bias)
        torch.testing.assert_close(found, expected)
        along = drawn(*found.shape)
        for a, b in zip(
            torch.autograd.grad(found, (x, weight, bias), along),
            torch.autograd.grad(expected, (x, weight, bias), along),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_other_types_are_torchs_own_call() -> None:
    x, weight = drawn(2, 3, 4, 4), drawn(5, 3, 4, 4)
    assert torch.equal(conv2d(x, weight, None, 2, 1), F.conv2d(x, weight, None, 2, 1))
    y = drawn(2, 5, 2, 2)
    assert torch.equal(conv_transpose2d(y, weight, None, 2, 1), F.conv_transpose2d(y, weight, None, 2, 1))


def test_threads_do_not_share_scratch_memory(way) -> None:
    geometry = Geometry(4, 2, 1)
    x, y = drawn(4, 8, 16, 16), drawn(4, 8, 8, 8)
    expected = correlate(x, y, geometry)
    found: list[Tensor] = []

    def work(sign: int) -> None:
        for _ in range(20):
            found.append(sign * correlate(sign * x, y, geometry))

    threads = [threading.Thread(target=work, args=(sign,)) for sign in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    for each in found:
        torch.testing.assert_close(each, expected)


def test_layouts_stay_as_they_are() -> None:
    last = torch.channels_last
    x = drawn(2, 3, 4, 4, layout=last).requires_grad_()
    (gradient,) = torch.autograd.grad(flattened(x), x, drawn(2, 48))
    assert gradient.is_contiguous(memory_format=last)
    assert torch.equal(gradient.flatten(1), drawn(2, 48))
    assert torch.autograd.gradgradcheck(flattened, (x,))
    weight = drawn(5, 3, 4, 4, layout=last)
    assert laid_out_as(drawn(2, 3, 4, 4), weight).is_contiguous(memory_format=last)
    assert laid_out_as(x, drawn(5, 3, 4, 4)) is x
