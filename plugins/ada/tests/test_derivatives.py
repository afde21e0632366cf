"""The pipeline differentiates twice, is affine and pure."""

from __future__ import annotations

import pytest
import torch

from gancore_ada import functional

OPS = {op: 1.0 for op in functional.OPS}


@pytest.mark.parametrize("blit", ["wavelet", "exact"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_it_differentiates_twice(channels: int, blit: str) -> None:
    shape = (2, channels, 5, 5)
    images = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images.requires_grad_(True)
    parameters = functional.sample(
        shape, 0.9, OPS, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    draw = functional.compose(parameters, shape, blit=blit)
    assert torch.autograd.gradcheck(lambda x: functional.apply(x, draw).square(), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: functional.apply(x, draw).square(), images, fast_mode=True)


def test_lookups_differentiate_element_by_element() -> None:
    images = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2.4 - 1.2
    assert torch.autograd.gradcheck(lambda x: functional.bilinear(x, grid), images)
    assert torch.autograd.gradgradcheck(lambda x: functional.bilinear(x, grid).square(), images)


def test_it_is_affine_and_leaves_its_input_alone() -> None:
    shape = (3, 3, 16, 16)
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    parameters = functional.sample(shape, 0.8, OPS, generator=generator, dtype=torch.float64)
    draw = functional.compose(parameters, shape)
    before = a.clone()
    mixed = functional.apply(0.3 * a + 0.7 * b, draw)
    torch.testing.assert_close(mixed, 0.3 * functional.apply(a, draw) + 0.7 * functional.apply(b, draw))
    assert torch.equal(a, before)
