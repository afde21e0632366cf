"""Parameters and matrices in one operation against the reference: the same draw."""

from __future__ import annotations

import pytest
import torch

from gancore.ops import ready, using
from gancore.testing import build_ops
from gancore_ada import functional, fused
from gancore_ada.library import LIBRARY


@pytest.fixture(autouse=True, scope="module")
def _fused_paths():
    build_ops(LIBRARY)
    with using("require"):
        assert ready(LIBRARY, torch.zeros(1))  # loaded, for tests that call the operations themselves
        yield


def turns():
    """First the fused path, then the reference."""
    for mode in ("require", "off"):
        with using(mode):
            yield mode


@pytest.mark.parametrize("blit", ["wavelet", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_are_those_of_the_reference(channels, dtype, blit) -> None:
    """The same gates open, for every single op and for all of them."""
    strengths = functional.Strengths(xint=0.3, scale=0.4, rotate=0.7, hue=0.5, bands=(1.0, 0.3, 0.0, 2.0))
    shape = (300, channels, 16, 24)
    for ops in ({op: 0.8 for op in functional.OPS}, *({op: 1.3} for op in functional.OPS)):
        for p in (0.0, 0.6, torch.tensor(0.7, dtype=torch.float64), 3.0):
            found, expected = (
                functional.draw(
                    shape,
                    p,
                    ops,
                    generator=torch.Generator().manual_seed(1),
                    dtype=dtype,
                    strengths=strengths,
                    blit=blit,
                )
                for _ in turns()
            )
            assert list(found) == list(expected)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=2e-6, atol=2e-6)


def test_draws_at_a_percentile_and_of_no_image() -> None:
    ops = dict.fromkeys(functional.OPS, 1.0)
    found, expected = (functional.draw((2, 3, 8, 8), 0.5, ops, percentile=0.3)["geometry"] for _ in turns())
    assert torch.equal(found, expected)
    empty = functional.draw((0, 3, 8, 8), 0.5, ops)
    assert {name: tuple(value.shape) for name, value in empty.items()} == {
        "geometry": (0, 3, 3),
        "color": (0, 4, 4),
        "bands": (0, 4),
        "sigma": (0,),
        "cutout": (0, 4),
        "noise": (0, 3, 8, 8),
    }
    with pytest.raises(ValueError, match="quarter turn of 16 x 25"):
        functional.draw((2, 3, 16, 25), 0.5, ops, blit="exact")


@pytest.mark.gpu
def test_draws_on_the_gpu() -> None:
    """Of the same numbers, by one kernel, and without a wait for the device."""
    build_ops(LIBRARY, "cuda")
    ops = dict.fromkeys(functional.OPS, 1.0)
    numbers = functional.numbers(300, generator=torch.Generator().manual_seed(0))
    found, expected = (
        fused.compose(
            *(part.to(device) for part in numbers),
            torch.tensor(0.6, device=device),
            ops,
            functional.PAPER,
            (300, 3, 16, 24),
            exact=False,
            doubles=True,
        )
        for device in ("cuda", "cpu")
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value, rtol=1e-5, atol=1e-5)
    generator, p = torch.Generator("cuda").manual_seed(0), torch.tensor(0.6, device="cuda")
    images = torch.zeros(4, 3, 32, 32, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        functional.augment(images, p, ops, generator=generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
