"""bias_act: the reference against the formulas, and the fused path against the reference."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gancore.ops import bias_act, ready, using
from gancore.ops.activation import ACTIVATIONS, _gradient, _operation
from gancore.ops.core import LIBRARY
from gancore.testing import build_ops

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}
SHAPES = [
    ((2, 5, 9, 7), 1),
    ((3, 4, 16, 5), 2),
    ((1, 3, 1, 1), 1),
    ((6, 33), -1),
    ((70,), 0),
    ((2, 3, 2, 3, 2), 1),
]
SMOOTH = ("tanh", "sigmoid", "elu", "selu", "softplus", "swish")

FORMULAS = {
    "linear": lambda u: u,
    "relu": lambda u: max(u, 0.0),
    "lrelu": lambda u: u if u > 0 else 0.2 * u,
    "tanh": math.tanh,
    "sigmoid": lambda u: 1 / (1 + math.exp(-u)),
    "elu": lambda u: u if u > 0 else math.exp(u) - 1,
    "selu": lambda u: 1.0507009873554805 * (u if u > 0 else 1.6732632423543772 * (math.exp(u) - 1)),
    "softplus": lambda u: math.log(1 + math.exp(u)),
    "swish": lambda u: u / (1 + math.exp(-u)),
}
GAINS = {"relu": math.sqrt(2), "lrelu": math.sqrt(2), "swish": math.sqrt(2)}


@pytest.fixture(scope="module")
def fused():
    build_ops(LIBRARY)
    with using("require"):
        assert ready(LIBRARY, torch.zeros(1))  # loaded, for tests that call the operations themselves
        yield


def case(shape, dtype=torch.float64, dim=1, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).mul(2).to(device, dtype)
    return x, torch.randn((shape[dim],), generator=generator).to(device, dtype)


def layouts(x):
    """Contiguous, channels last where that is, and with gaps."""
    yield x
    if x.dim() == 4:
        yield x.contiguous(memory_format=torch.channels_last)
    if x.dim() == 5:
        yield x.contiguous(memory_format=torch.channels_last_3d)
    yield torch.stack([x, x], dim=-1)[..., 0]


def agree(x, bias, tolerance, **options) -> None:
    """Values and gradients of both paths."""
    found = []
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).to(x)
    for mode in ("require", "off"):
        leaf = x.detach().requires_grad_()
        leaves = [leaf] if bias is None else [leaf, bias.detach().clone().requires_grad_()]
        with using(mode):
            out = bias_act(*leaves, **options)
            found.append((out.detach(), *torch.autograd.grad(out, leaves, weights)))
    count = math.prod(x.shape) / max(1, x.shape[options.get("dim", 1)])
    for index, (ours, theirs) in enumerate(zip(*found, strict=True)):
        assert ours.dtype == theirs.dtype
        scale = tolerance * (1 + (math.sqrt(count) if index == 2 else 0))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=scale)


@pytest.mark.parametrize("mode", ["off", "require"])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_it_equals_the_formulas(act: str, mode: str, fused) -> None:
    """Slow and independent: element by element, in float64."""
    x, bias = case((2, 3, 4, 5))
    x[0, 0, 0, :] = torch.tensor([0.0, 30.0, -30.0, 1e-9, -1e-9]) - bias[0]
    for gain, clamp in ((None, None), (0.7, 0.9)):
        with using(mode):
            found = bias_act(x, bias, act=act, gain=gain, clamp=clamp).numpy()
        for place in np.ndindex(*x.shape):
            value = FORMULAS[act](float(x[place]) + float(bias[place[1]])) * (gain or GAINS.get(act, 1.0))
            expected = value if clamp is None else min(max(value, -clamp), clamp)
            assert found[place] == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_values_and_gradients_are_those_of_the_reference(act: str, dtype: torch.dtype, fused) -> None:
    for seed, (shape, dim) in enumerate(SHAPES):
        x, bias = case(shape, dtype, dim, seed)
        for given in layouts(x):
            agree(given, bias, TOLERANCE[dtype], act=act, dim=dim)
            agree(given, None, TOLERANCE[dtype], act=act, dim=dim, clamp=1.0, gain=1.5)
            agree(given, bias, TOLERANCE[dtype], act=act, dim=dim, clamp=0.75)


def test_alpha_and_a_wider_bias(fused) -> None:
    x, bias = case((2, 40, 16, 16), torch.bfloat16)
    for act, alpha in (("lrelu", 0.0), ("lrelu", 1.7), ("elu", 2.5)):
        agree(x, bias.float(), 2e-2, act=act, alpha=alpha)
    found = bias_act(x, bias.float(), act="lrelu", gain=1.0)
    torch.testing.assert_close(
        found, torch.nn.functional.leaky_relu(x.float() + bias.float()[:, None, None], 0.2).bfloat16()
    )


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 1.1])
def test_gradients_of_first_and_second_order_against_finite_differences(act: str, clamp, fused) -> None:
    for shape, dim in (((2, 3, 2, 5), 1), ((4, 3), 1), ((3, 2), 0)):
        x, bias = case(shape, dim=dim, seed=3)
        x.requires_grad_(), bias.requires_grad_()

        def function(x, bias, dim=dim):
            return bias_act(x, bias, act=act, clamp=clamp, dim=dim)

        assert torch.autograd.gradcheck(function, (x, bias))
        assert torch.autograd.gradgradcheck(lambda x, bias: function(x, bias) ** 2, (x, bias))
        assert torch.autograd.gradgradcheck(lambda x: function(x, None) ** 2, (x,))


@pytest.mark.parametrize("act", SMOOTH)
def test_third_order(act: str, fused) -> None:
    """A penalty on a penalty: the same numbers as the reference."""
    found = []
    for mode in ("require", "off"):
        with using(mode):
            x, bias = (value.requires_grad_() for value in case((2, 3, 4, 4), seed=5))
            out = bias_act(x, bias, act=act, clamp=2.0)
            for _ in range(2):
                (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
                out = first
            found.append(torch.autograd.grad(out.square().sum(), (x, bias)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_gradient_is_zero_where_the_stored_result_reaches_the_clamp(dtype: torch.dtype, fused) -> None:
    """Values around the clamp in steps finer than the type: both paths cut at the same ones."""
    clamp = 0.7
    for act in ("linear", "softplus"):
        x = torch.linspace(-1.2, 1.2, 4001, dtype=torch.float64).to(dtype)[:, None]
        for mode in ("require", "off"):
            leaf = x.clone().requires_grad_()
            with using(mode):
                out = bias_act(leaf, act=act, clamp=clamp)
            (gradient,) = torch.autograd.grad(out.sum(), leaf)
            assert torch.equal(gradient == 0, out.abs() >= torch.tensor(clamp, dtype=dtype)), (act, mode)


def test_extreme_values(fused) -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(
            [-math.inf, -1e30, -200.0, -1e-30, 0.0, 1e-30, 200.0, 1e30, math.inf, math.nan], dtype=dtype
        )
        for act in ACTIVATIONS:
            if act == "swish":
                x = x[1:]  # the reference has NaN for -infinity, whose limit is 0
            found, expected = [], []
            for mode, into in (("require", found), ("off", expected)):
                with using(mode):
                    into.append(bias_act(x[:, None], act=act, clamp=1e3))
            torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-30, equal_nan=True)


def test_memory_threads_and_repetition(fused) -> None:
    x, bias = case((37, 6, 8, 10), torch.float32)
    wanted = torch.randn_like(x)

    def both(x=x, wanted=wanted):
        leaves = x.detach().requires_grad_(), bias.detach().requires_grad_()
        out = bias_act(*leaves, act="lrelu", clamp=1.0)
        return [out.detach(), *torch.autograd.grad(out, leaves, wanted)]

    expected = both()
    torch.use_deterministic_algorithms(True)  # and fresh memory is filled with NaN
    torch.set_num_threads(2)
    try:
        for last in (False, True):
            layout = torch.channels_last if last else torch.contiguous_format
            given = [value.contiguous(memory_format=layout) for value in (x, wanted)]
            first = both(*given)
            for _ in range(3):
                for again, value, reference in zip(both(*given), first, expected, strict=True):
                    assert torch.equal(again, value)
                    torch.testing.assert_close(value, reference)
    finally:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
    for ours, theirs in zip(both(), expected, strict=True):
        assert torch.equal(ours, theirs)
    empty = torch.empty((0, 6, 3, 3), requires_grad=True)
    out = bias_act(empty, bias.requires_grad_(), act="lrelu")
    assert out.shape == empty.shape
    assert torch.autograd.grad(out.sum(), bias)[0].abs().sum() == 0


def test_a_gradient_in_another_layout(fused) -> None:
    x, bias = case((3, 5, 6, 4), torch.float32)
    leaf = x.requires_grad_()
    gradient = torch.randn(3, 5, 6, 4).contiguous(memory_format=torch.channels_last)
    out = bias_act(leaf, bias, act="lrelu")
    (found,) = torch.autograd.grad(out, leaf, gradient)
    with using("off"):
        (expected,) = torch.autograd.grad(bias_act(leaf, bias, act="lrelu"), leaf, gradient)
    torch.testing.assert_close(found, expected)
    spread = torch.autograd.grad(bias_act(leaf, bias, act="lrelu").sum(), leaf)[0]  # a gradient of stride 0
    with using("off"):
        torch.testing.assert_close(spread, torch.autograd.grad(bias_act(leaf, bias, act="lrelu").sum(), leaf)[0])


def test_piecewise_linear_activations_keep_the_output_alone(fused) -> None:
    kept = []
    x, bias = (value.requires_grad_() for value in case((2, 3, 8, 8), torch.float32))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = bias_act(x, bias, act="lrelu", clamp=1.0)
        assert [t.data_ptr() for t in kept] == [out.data_ptr()]
        kept.clear()
        bias_act(x, bias, gain=2.0)
        assert not kept


def test_what_it_does_not_take_goes_the_reference_way(fused) -> None:
    x, bias = case((2, 3, 4, 4))
    for options in ({"act": "lrelu", "alpha": -0.5}, {"act": "relu", "gain": -1.0}, {"gain": 0.0}):
        found = bias_act(x, bias, **options)
        with using("off"):
            assert torch.equal(found, bias_act(x, bias, **options))
    huge = torch.empty((1, 1, 1, 1)).expand(2**16, 1, 2**8, 2**8)
    assert not ready(LIBRARY, huge)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"act": "rely"}, ValueError, "act = 'rely'.*relu.*expected one of linear, relu"),
        ({"act": "tanh", "alpha": 0.5}, ValueError, "alpha = 0.5 for act = 'tanh', which has none"),
        ({"clamp": -1.0}, ValueError, "clamp = -1.0; expected at least 0"),
        ({"dim": 4}, IndexError, r"dim = 4 for x of shape \(2, 3, 4, 4\)"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias is \(4,\) torch.float32 .* expected \(3,\)"),
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, ValueError, "x is torch.int64"),
        ({"x": torch.zeros(()), "dim": 0}, IndexError, r"dim = 0 for x of shape \(\)"),
    ],
)
def test_mistakes_are_named(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        bias_act(**{"x": torch.zeros(2, 3, 4, 4), **options})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_torch_accepts_the_operations(act: str, fused) -> None:
    chosen = ACTIVATIONS[act]
    settings = (chosen.kind, chosen.alpha, 1.5, 1.0, 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, bias = case((2, 3, 4, 5), torch.float32)
        x = x.contiguous(memory_format=layout).requires_grad_()
        torch.library.opcheck(_operation, (x, bias.requires_grad_(), *settings))
        saved = x.detach().requires_grad_(act == "swish")
        torch.library.opcheck(
            _gradient,
            (torch.randn_like(x).requires_grad_(), saved, bias if act == "swish" else None, True, *settings),
        )


@pytest.mark.slow
def test_it_compiles(fused) -> None:
    x, bias = (value.requires_grad_() for value in case((2, 3, 8, 8), torch.float32))
    for mode in ("require", "off"):
        with using(mode):
            compiled = torch.compile(
                lambda x, b: bias_act(x, b, act="lrelu", clamp=1.0) * 2, fullgraph=True, backend="aot_eager"
            )
            out = compiled(x, bias)
            expected = 2 * bias_act(x, bias, act="lrelu", clamp=1.0)
        torch.testing.assert_close(out, expected)
        for ours, theirs in zip(
            torch.autograd.grad(out.sum(), (x, bias)), torch.autograd.grad(expected.sum(), (x, bias)), strict=True
        ):
            torch.testing.assert_close(ours, theirs)
        torch._dynamo.reset()


IN_A_NEW_PROCESS = """
import torch
from gancore.ops import bias_act, runtime, using

def scaled(x, bias):
    return bias_act(x, bias, act="lrelu") * 2

x, bias = torch.randn(2, 3, 4, 4), torch.randn(3)
assert not runtime._states
compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
with runtime.recording() as asked:
    fused = compiled(x, bias)
assert asked["gancore on cpu"].key, asked
assert torch.equal(fused, scaled(x, bias))
with using("off"):
    torch.testing.assert_close(compiled(x, bias), fused)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
"""


@pytest.mark.slow
def test_the_library_is_loaded_in_the_middle_of_a_trace() -> None:
    build_ops(LIBRARY)
    subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], check=True, env={**os.environ, "GAN_FUSED": "require"}
    )


@pytest.mark.slow
def test_the_cuda_library_is_built_and_registers() -> None:
    """For sm_80 and sm_90; it runs in the tests that need a GPU."""
    build_ops(LIBRARY, "cuda")
    torch.ops.load_library(str(LIBRARY.path("cuda")))
    for name in LIBRARY.ops:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gancore::{name}", "CUDA")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("gancore::bias_act_grad", "CUDA")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_the_gpu_computes_what_the_reference_does(act: str, dtype: torch.dtype) -> None:
    build_ops(LIBRARY, "cuda")
    for seed, (shape, dim) in enumerate([*SHAPES, ((16, 70, 33, 40), 1), ((3000, 70), 1), ((2, 5000, 3), 1)]):
        x, bias = case(shape, dtype, dim, seed, "cuda")
        for given in layouts(x):
            agree(given, bias, TOLERANCE[dtype], act=act, dim=dim, clamp=0.75)
            agree(given, None, TOLERANCE[dtype], act=act, dim=dim)


@pytest.mark.gpu
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_the_gpu_has_all_derivatives_and_repeats_itself(act: str) -> None:
    build_ops(LIBRARY, "cuda")
    x, bias = (value.requires_grad_() for value in case((2, 3, 2, 5), device="cuda"))
    with using("require"):
        assert torch.autograd.gradcheck(lambda x, b: bias_act(x, b, act=act, clamp=1.1), (x, bias))
        assert torch.autograd.gradgradcheck(lambda x, b: bias_act(x, b, act=act, clamp=1.1) ** 2, (x, bias))
        x, bias = (value.requires_grad_() for value in case((64, 48, 31, 31), torch.float32, device="cuda"))
        torch.use_deterministic_algorithms(True)
        try:
            first, *others = (
                torch.autograd.grad(bias_act(x, bias, act=act).square().sum(), (x, bias)) for _ in range(4)
            )
        finally:
            torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
