"""upfirdn2d: the reference against scipy's definition by loops, and the fused path against the reference."""

from __future__ import annotations

import ctypes
import random
import subprocess

import numpy as np
import pytest
import torch

from gancore.ops import ready, upfirdn2d, using
from gancore.ops.build import CPU_FLAGS, toolchain
from gancore.ops.core import LIBRARY
from gancore.ops.library import COMMON
from gancore.ops.resampling import _operation
from gancore.testing import build_ops

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
LAYOUTS = (torch.contiguous_format, torch.channels_last)
BINOMIAL = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


@pytest.fixture(scope="module")
def fused():
    build_ops(LIBRARY)
    with using("require"):
        assert ready(LIBRARY, torch.zeros(1))  # loaded, for tests that call the operations themselves
        yield


def loops(x: np.ndarray, taps: np.ndarray, up, down, padding, flip: bool, gain: float) -> np.ndarray:
    """The definition, one plane, in float64."""
    height, width = x.shape
    left, right, top, bottom = padding
    z = np.zeros((height * up[1], width * up[0]))
    z[:: up[1], :: up[0]] = x
    z = np.pad(z, [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
    z = z[max(-top, 0) : z.shape[0] - max(-bottom, 0), max(-left, 0) : z.shape[1] - max(-right, 0)]
    taps = np.outer(taps, taps) if taps.ndim == 1 else taps
    rows, columns = taps.shape
    f = taps if flip else taps[::-1, ::-1]
    shape = (z.shape[0] - rows) // down[1] + 1, (z.shape[1] - columns) // down[0] + 1
    out = np.zeros(shape)
    for i, j in np.ndindex(*shape):
        out[i, j] = gain * (z[i * down[1] :, j * down[0] :][:rows, :columns] * f).sum()
    return out


def drawn(trial: int, dtype=torch.float64, largest=(9, 20), device="cpu"):
    """A random case: images, taps and settings that leave a pixel."""
    rng, generator = random.Random(trial), torch.Generator().manual_seed(trial)
    while True:
        shape = rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, largest[0]), rng.randint(1, largest[1])
        size = (rng.randint(1, 13),) if rng.random() < 0.6 else (rng.randint(1, 5), rng.randint(1, 5))
        taps = torch.randn(size, generator=generator)
        settings = {
            "up": (rng.randint(1, 4), rng.randint(1, 4)),
            "down": (rng.randint(1, 4), rng.randint(1, 4)),
            "padding": tuple(rng.randint(-3, 9) for _ in range(4)),
            "flip": rng.random() < 0.5,
            "gain": rng.choice([1.0, 1.7]),
        }
        try:
            with using("off"):
                upfirdn2d(torch.zeros(shape), taps, **settings)
        except ValueError:
            continue
        x = torch.randn(shape, generator=generator).to(device, dtype)
        return x.contiguous(memory_format=rng.choice(LAYOUTS)), taps.to(device), settings


@pytest.mark.parametrize("mode", ["off", "require"])
def test_it_equals_the_loops_of_the_definition(mode: str, fused) -> None:
    for trial in range(60):
        x, taps, settings = drawn(trial, largest=(6, 7))
        with using(mode):
            found = upfirdn2d(x, taps, **settings).numpy()
        expected = loops(x[0, -1].numpy(), taps.double().numpy(), **settings)
        np.testing.assert_allclose(found[0, -1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["off", "require"])
def test_along_one_row_it_is_upfirdn_of_signal_processing(mode: str, fused) -> None:
    """y[o] = sum_i x[i] h[o * down - i * up], over all o where a term is."""
    for n, up, down in ((4, 2, 1), (4, 1, 2), (5, 3, 2), (1, 2, 3), (12, 2, 2)):
        x = torch.randn(9, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        h = torch.randn(n, generator=torch.Generator().manual_seed(up))
        with using(mode):
            found = upfirdn2d(
                x.reshape(1, 1, 1, -1), h[None, :], up=(up, 1), down=(down, 1), padding=(n - 1, n - up, 0, 0)
            )
        count = ((x.numel() - 1) * up + n - 1) // down + 1
        assert found.shape == (1, 1, 1, count)
        for o in range(count):
            terms = [
                float(x[i]) * float(h[o * down - i * up]) for i in range(x.numel()) if 0 <= o * down - i * up < n
            ]
            assert float(found[0, 0, 0, o]) == pytest.approx(sum(terms), abs=1e-12)


def test_the_usual_settings_keep_a_constant_and_the_size(fused) -> None:
    ones = torch.ones(1, 2, 8, 8)
    doubled = upfirdn2d(ones, BINOMIAL, up=2, padding=(2, 1, 2, 1), gain=4)
    assert doubled.shape == (1, 2, 16, 16)
    torch.testing.assert_close(doubled[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    halved = upfirdn2d(ones, BINOMIAL, down=2, padding=1)
    assert halved.shape == (1, 2, 4, 4)
    torch.testing.assert_close(halved[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(upfirdn2d(x, None), x)
    assert torch.equal(upfirdn2d(x, None, padding=(-1, 0, -2, 0)), x[..., 2:, 1:])
    assert torch.equal(upfirdn2d(x, None, down=(2, 3)), x[..., ::3, ::2])


def agree(trial: int, dtype: torch.dtype, device: str = "cpu") -> None:
    """Values and gradients of both paths in a random case."""
    x, taps, settings = drawn(trial, dtype, (12, 70), device)
    found = []
    for mode in ("require", "off"):
        with using(mode):
            leaf = x.detach().requires_grad_()
            out = upfirdn2d(leaf, taps, **settings)
            weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out)
            found.append((out.detach(), *torch.autograd.grad(out, leaf, weights)))
    assert found[0][0].dtype == dtype
    scale = TOLERANCE[dtype] * (1 + float(taps.abs().sum()) ** (2 if taps.dim() == 1 else 1))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=scale)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_and_gradients_are_those_of_the_reference(dtype: torch.dtype, fused) -> None:
    for trial in range(80):
        agree(trial, dtype)


@pytest.mark.slow
def test_gradients_of_any_order_against_finite_differences(fused) -> None:
    for trial in range(12):
        x, taps, settings = drawn(trial, largest=(4, 5))
        x = x[:1, :1].requires_grad_()
        assert torch.autograd.gradcheck(lambda x: upfirdn2d(x, taps, **settings), (x,))
        assert torch.autograd.gradgradcheck(lambda x: upfirdn2d(x, taps, **settings) ** 2, (x,))


def test_the_gradient_is_the_transpose_on_both_paths(fused) -> None:
    """<A x, y> = <x, A^T y>."""
    for trial in range(20):
        x, taps, settings = drawn(trial)
        for mode in ("require", "off"):
            with using(mode):
                out = upfirdn2d(x.requires_grad_(), taps, **settings)
                y = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(trial))
                (back,) = torch.autograd.grad(out, x, y)
            assert float((out * y).sum().detach()) == pytest.approx(float((x * back).sum().detach()), abs=1e-8)


def test_strided_empty_and_poisoned_memory(fused) -> None:
    x = torch.randn(3, 2, 7, 10)
    wide = torch.randn(3, 2, 7, 20)
    wide[..., ::2] = x
    settings = {"up": 2, "down": 3, "padding": 4}
    expected = upfirdn2d(x, BINOMIAL, **settings)
    assert torch.equal(upfirdn2d(wide[..., ::2], BINOMIAL, **settings), expected)
    empty = x[:0].requires_grad_()
    out = upfirdn2d(empty, BINOMIAL, **settings)
    assert out.shape == (0, *expected.shape[1:])
    assert torch.autograd.grad(out.sum(), empty)[0].shape == empty.shape
    torch.use_deterministic_algorithms(True)  # and fresh memory is filled with NaN
    try:
        for trial in range(30):
            x, taps, chosen = drawn(trial, torch.float32)
            first = upfirdn2d(x, taps, **chosen)
            assert torch.isfinite(first).all()
            assert torch.equal(upfirdn2d(x, taps, **chosen), first)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_batch_is_resampled_alike_with_any_number_of_threads(fused) -> None:
    for layout in LAYOUTS:
        x = torch.randn(7, 3, 12, 9).contiguous(memory_format=layout)
        alone = upfirdn2d(x, BINOMIAL, up=2, padding=2)
        torch.set_num_threads(2)
        try:
            assert torch.equal(upfirdn2d(x, BINOMIAL, up=2, padding=2), alone)
        finally:
            torch.set_num_threads(1)
        assert alone.is_contiguous(memory_format=layout)
        rows = torch.cat([upfirdn2d(row[None], BINOMIAL, up=2, padding=2) for row in x])
        assert torch.equal(rows, alone)


def test_too_large_tensors_go_the_reference_way(fused) -> None:
    assert ready(LIBRARY, torch.zeros(1, 1, 2, 2))
    assert not ready(LIBRARY, torch.empty((1, 1, 1, 1)).expand(2**16, 1, 2**8, 2**8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": torch.zeros(3, 4, 4)}, r"x is \(3, 4, 4\) torch.float32; expected \(B, C, H, W\)"),
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.int32)}, "torch.int32"),
        ({"taps": torch.zeros(2, 2, 2)}, r"taps are \(2, 2, 2\) torch.float32; expected \(n,\)"),
        ({"taps": torch.zeros(0)}, r"taps are \(0,\)"),
        ({"taps": torch.zeros(3, dtype=torch.bfloat16)}, "torch.bfloat16; expected .* float32 or float64"),
        ({"taps": torch.zeros(3, requires_grad=True)}, "taps require a gradient"),
        ({"up": 0}, "up = 0; expected at least 1"),
        ({"down": (2, -1)}, r"down = \(2, -1\); expected at least 1"),
        ({"padding": (1, 2)}, r"padding = \(1, 2\); expected a number or \(left"),
        ({"taps": torch.zeros(9)}, "width 4 times up 1 with padding 0 and 0, 9 taps and down 1 leaves no pixel"),
        ({"padding": (9, -9, 0, 0)}, "width 4 times up 1 with padding 9 and -9"),
        ({"padding": (0, 0, -3, -1)}, "height 4 times up 1 with padding -3 and -1"),
    ],
)
def test_mistakes_are_named(options, message: str) -> None:
    given = {"x": torch.zeros(1, 1, 4, 4), "taps": BINOMIAL, **options}
    with pytest.raises(ValueError, match=message):
        upfirdn2d(given.pop("x"), given.pop("taps"), **given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_torch_accepts_the_operation(fused) -> None:
    for layout in LAYOUTS:
        x = torch.randn(2, 3, 6, 5).contiguous(memory_format=layout).requires_grad_()
        torch.library.opcheck(_operation, (x, BINOMIAL, 2, 2, 1, 3, 2, 1, 10, 4, False, 4.0))


@pytest.mark.slow
def test_it_compiles(fused) -> None:
    x = torch.randn(2, 3, 6, 5, requires_grad=True)
    for mode in ("require", "off"):
        with using(mode):
            compiled = torch.compile(
                lambda x: upfirdn2d(x, BINOMIAL, up=2, padding=(2, 1, 2, 1)) * 2,
                fullgraph=True,
                backend="aot_eager",
            )
            out, expected = compiled(x), 2 * upfirdn2d(x, BINOMIAL, up=2, padding=(2, 1, 2, 1))
        torch.testing.assert_close(out, expected)
        for ours, theirs in zip(
            torch.autograd.grad(out.sum(), x), torch.autograd.grad(expected.sum(), x), strict=True
        ):
            torch.testing.assert_close(ours, theirs)
        torch._dynamo.reset()


KERNEL = """
#include "core/upfirdn2d.h"

using core::Axis;

extern "C" void resample(const double* in, const double* taps, double* out, const long* x, const long* y,
                         long separable, long flip) {
  Axis columns{x[0], x[1], x[2], x[3], x[4], x[5]}, rows{y[0], y[1], y[2], y[3], y[4], y[5]};
  for (long i = 0; i < rows.out; ++i)
    for (long j = 0; j < columns.out; ++j)
      out[i * columns.out + j] = core::resampled<double, double>(
          in, columns, rows, 1, i, j, taps, separable ? taps : nullptr, separable, flip);
}
"""


@pytest.mark.slow
def test_what_a_thread_of_the_gpu_computes(tmp_path) -> None:
    """The function of one output, compiled for the CPU, over all outputs of a plane."""
    build_ops(LIBRARY)  # there is a compiler
    (tmp_path / "kernel.cpp").write_text(KERNEL)
    built = tmp_path / "kernel.so"
    command = [toolchain("cpu").compiler, *CPU_FLAGS, "-fvisibility=default", f"-I{COMMON}", "-shared"]
    subprocess.run([*command, str(tmp_path / "kernel.cpp"), "-o", str(built)], check=True)
    resample = ctypes.CDLL(str(built)).resample
    for trial in range(60):
        x, taps, settings = drawn(trial)
        plane, taps = x[0, 0].contiguous(), taps.double().contiguous()
        with using("off"):
            expected = upfirdn2d(plane[None, None], taps, **{**settings, "gain": 1.0})[0, 0]
        out = torch.full_like(expected, float("nan"))
        axes = [
            torch.tensor([plane.shape[1 - a], out.shape[1 - a], u, d, before, taps.shape[-1 if a == 0 else 0]])
            for a, (u, d, before) in enumerate(
                zip(settings["up"], settings["down"], settings["padding"][::2], strict=True)
            )
        ]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (plane, taps, out, *axes)]
        resample(*pointers, ctypes.c_long(taps.dim() == 1), ctypes.c_long(settings["flip"]))
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_gpu_computes_what_the_reference_does(dtype: torch.dtype) -> None:
    build_ops(LIBRARY, "cuda")
    for trial in range(80):
        agree(trial, dtype, "cuda")
    x = torch.randn(3, 5, 70, 130, device="cuda").to(dtype).requires_grad_()
    taps = torch.randn(12, device="cuda") / 4  # in two passes
    found = []
    for mode in ("require", "require", "off"):
        with using(mode):
            out = upfirdn2d(x, taps, down=2, padding=5)
            found.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for again, ours, theirs in zip(*found, strict=True):
        assert torch.equal(again, ours)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=30 * TOLERANCE[dtype])


@pytest.mark.gpu
def test_the_gpu_has_derivatives_of_any_order() -> None:
    build_ops(LIBRARY, "cuda")
    with using("require"):
        for trial in range(12):
            x, taps, settings = drawn(trial, largest=(4, 5), device="cuda")
            x = x[:1, :1].requires_grad_()
            assert torch.autograd.gradcheck(lambda x: upfirdn2d(x, taps, **settings), (x,))
            assert torch.autograd.gradgradcheck(lambda x: upfirdn2d(x, taps, **settings) ** 2, (x,))
