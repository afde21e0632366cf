"""The fused path against the reference: values, first and second derivatives, layouts, types, odd shapes."""

from __future__ import annotations

import itertools

import pytest
import torch

from gancore.ops import ready, using
from gancore.testing import build_ops, run_steps, tiny_session
from gancore_adaptivemix import functional as f
from gancore_adaptivemix import fused
from gancore_adaptivemix.library import LIBRARY

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 4e-2, torch.float16: 6e-3}
SHAPES = [(5, 3, 9, 7), (2, 4, 16, 40), (3, 1030), (4, 2, 1, 1), (1, 6), (7,)]
DISTANCES = ("l1", "l2", "mse", "cosine")
NOISES = ("mixed", "target", "none")


@pytest.fixture(autouse=True, scope="module")
def _fused_paths():
    build_ops(LIBRARY)
    with using("require"):
        assert ready(LIBRARY, torch.zeros(1))  # loaded, for tests that call the operations themselves
        yield


def case(shape, dtype=torch.float64, seed=0, each=True, device="cpu"):
    """Features, features of the mixed, noise, permutation, lambda."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
    permutation = torch.randperm(shape[0], generator=generator).to(device)
    lam = torch.rand((shape[0],) if each else (), generator=generator).to(device)
    return *values, permutation, lam


def layouts(x):
    """Contiguous, channels last where that is, and with gaps."""
    yield x
    if x.dim() == 4:
        yield x.contiguous(memory_format=torch.channels_last)
    yield torch.stack([x, x], dim=-1)[..., 0]


def both(function, *leaves):
    """What a function and its gradient are with the fused path and with the reference."""
    found = []
    for mode in ("require", "off"):
        with using(mode):
            given = [leaf.detach().requires_grad_() for leaf in leaves]
            out = function(*given)
            weights = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape).to(out.dtype)
            if out.dim() == 0:
                weights = torch.ones_like(out)
            gradients = torch.autograd.grad(out, given, weights, allow_unused=True)
            found.append([out.detach(), *(g for g in gradients if g is not None)])
    return zip(*found, strict=True)


def check_mix(dtype, device="cpu") -> None:
    for seed, (shape, each) in enumerate(itertools.product(SHAPES, (True, False))):
        values, _, _, permutation, lam = case(shape, dtype, seed, each, device)
        for given in layouts(values):
            for ours, theirs in both(lambda v, p=permutation, w=lam: f.mix(v, p, w), given):
                assert ours.dtype == dtype
                torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def check_shrinkage(distance, dtype, device="cpu") -> None:
    settings = itertools.product(NOISES, (False, True), ("mean", "sum"))
    for seed, (noise_on, detach, reduction) in enumerate(settings):
        shape = SHAPES[seed % (len(SHAPES) - 1)]  # not the last: a distance is one between vectors
        features, of_mixed, noise, permutation, lam = case(shape, dtype, seed, seed % 2 == 0, device)
        for first, second in zip(layouts(features), list(layouts(of_mixed))[::-1], strict=True):

            def loss(
                a,
                b,
                noise=None if noise_on == "none" else noise,
                noise_on="mixed" if noise_on == "none" else noise_on,
                permutation=permutation,
                lam=lam,
                detach=detach,
                reduction=reduction,
            ):
                return f.mixed_shrinkage(
                    a,
                    permutation,
                    lam,
                    b,
                    noise,
                    distance=distance,
                    noise_on=noise_on,
                    detach_target=detach,
                    reduction=reduction,
                )

            scale = TOLERANCE[dtype] * (features.numel() if reduction == "sum" else 1)
            if dtype in (torch.float32, torch.float64) or distance != "l1":  # a sign may turn over in rounding
                for ours, theirs in both(loss, first, second):
                    assert ours.dtype == dtype
                    torch.testing.assert_close(ours, theirs, rtol=4 * TOLERANCE[dtype], atol=scale)
            else:
                ours, theirs = next(iter(both(loss, first, second)))
                torch.testing.assert_close(ours, theirs, rtol=4 * TOLERANCE[dtype], atol=scale)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_mixing_and_its_gradient_are_those_of_the_reference(dtype: torch.dtype) -> None:
    check_mix(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("distance", DISTANCES)
def test_losses_and_gradients_are_those_of_the_reference(distance: str, dtype: torch.dtype) -> None:
    check_shrinkage(distance, dtype)


def differentiable(distance, noise_on, detach, device="cpu") -> None:
    features, of_mixed, noise, permutation, lam = case((3, 2, 2, 1), seed=1, device=device)
    features, of_mixed = features.requires_grad_(), of_mixed.requires_grad_()

    def loss(a, b):
        return f.mixed_shrinkage(
            a, permutation, lam, b, noise, distance=distance, noise_on=noise_on, detach_target=detach
        )

    if detach:
        inputs, function = (of_mixed,), lambda b: loss(features.detach(), b)
    else:
        inputs, function = (features, of_mixed), loss
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(lambda *given: function(*given) ** 2, inputs)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("noise_on", ["mixed", "target"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_first_and_second_derivatives_against_finite_differences(
    distance: str, noise_on: str, detach: bool
) -> None:
    differentiable(distance, noise_on, detach)


def test_mixing_has_derivatives_of_any_order() -> None:
    values, _, _, permutation, lam = case((4, 3))
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: f.mix(v, permutation, lam), (values,))
    assert torch.autograd.gradgradcheck(lambda v: f.mix(v, permutation, lam) ** 2, (values,))


def test_a_norm_of_zeros_and_a_cosine_of_zeros() -> None:
    zeros = torch.zeros(2, 5, dtype=torch.float64)
    for distance in DISTANCES:
        found = both(
            lambda a, b, d=distance: f.mixed_shrinkage(a, torch.tensor([1, 0]), torch.tensor(0.5), b, distance=d),
            zeros,
            zeros,
        )
        for ours, theirs in found:
            torch.testing.assert_close(ours, theirs)


def test_memory_threads_and_repetition() -> None:
    features, of_mixed, noise, permutation, lam = case((6, 5, 11, 13), torch.float32)

    def all_of_it():
        a, b = features.detach().requires_grad_(), of_mixed.detach().requires_grad_()
        loss = f.mixed_shrinkage(a, permutation, lam, b, noise)
        return [f.mix(a, permutation, lam).detach(), loss.detach(), *torch.autograd.grad(loss, (a, b))]

    expected = all_of_it()
    torch.use_deterministic_algorithms(True)  # and fresh memory is filled with NaN
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(all_of_it(), expected, strict=True))
    finally:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(False)
    assert f.mix(features[:0], permutation[:0], lam[:0]).shape == (0, 5, 11, 13)
    empty = f.mixed_shrinkage(features[:0], permutation[:0], lam[:0], of_mixed[:0], reduction="sum")
    assert float(empty) == 0


def test_what_it_does_not_take_goes_the_reference_way() -> None:
    features, of_mixed, noise, permutation, lam = case((4, 6))
    assert fused.takes(features, permutation, lam, of_mixed)
    assert not fused.takes(features, permutation, lam.requires_grad_())
    lam = lam.detach()
    assert not fused.takes(features, permutation, lam, of_mixed[:, :1])
    assert not fused.takes(torch.empty(1, 1).expand(2**16, 2**16), torch.arange(2**16), torch.tensor(0.5))
    noise.requires_grad_()
    (found,) = torch.autograd.grad(f.mixed_shrinkage(features, permutation, lam, of_mixed, noise), noise)
    assert found.abs().sum() > 0
    with pytest.raises(RuntimeError, match="expected a permutation"):
        f.mix(features, torch.zeros_like(permutation), lam)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("distance", ["l1", "mse", "cosine"])
def test_torch_accepts_the_operations(distance: str) -> None:
    features, of_mixed, noise, permutation, lam = case((3, 2, 4, 5), torch.float32)
    own, other = lam.double(), 1 - lam.double()
    rest = permutation, own, other
    kind = fused.KINDS[distance]
    leaves = features.requires_grad_(), of_mixed.requires_grad_()
    torch.library.opcheck(fused.mix, (leaves[0], *rest))
    torch.library.opcheck(fused.distances, (*leaves, noise, *rest, kind, False))
    sums = torch.randn(3, 3 if distance == "cosine" else 1, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(fused.distances_grad, (sums, *leaves, None, *rest, kind, False, True))


@pytest.mark.slow
def test_it_compiles() -> None:
    features, of_mixed, noise, permutation, lam = case((4, 3, 5, 5), torch.float32)

    def loss(a, b):
        return f.mixed_shrinkage(a, permutation, lam, b, noise, distance="cosine") * 2

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaves = features.requires_grad_(), of_mixed.requires_grad_()
    out = compiled(*leaves)
    torch.testing.assert_close(out, loss(*leaves))
    found, expected = (torch.autograd.grad(value, leaves) for value in (out, loss(*leaves)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_a_run_uses_it_and_learns_what_the_reference_learns(preset: str) -> None:
    losses = {}
    for mode in ("require", "off"):
        with using(mode):
            options = {"compute.precision": "float64", "adaptivemix.preset": preset}
            session = run_steps(tiny_session(["adaptivemix"], options), 3)
            used = session.operations["gancore_adaptivemix on cpu"]
            assert bool(used.key) == (mode == "require")
            losses[mode] = {n: p.detach().clone() for n, p in session.trainer.discriminator.named_parameters()}
            session.close()
    for name, value in losses["off"].items():
        torch.testing.assert_close(losses["require"][name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_the_cuda_library_is_built_and_registers() -> None:
    """For sm_80 and sm_90; it runs in the tests that need a GPU."""
    build_ops(LIBRARY, "cuda")
    torch.ops.load_library(str(LIBRARY.path("cuda")))
    for name in ("mix", "distances", "distances_grad"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gancore_adaptivemix::{name}", "CUDA")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_gpu_computes_what_the_reference_does(dtype: torch.dtype) -> None:
    build_ops(LIBRARY, "cuda")
    check_mix(dtype, "cuda")
    for distance in DISTANCES:
        check_shrinkage(distance, dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gpu_has_both_derivatives(distance: str) -> None:
    build_ops(LIBRARY, "cuda")
    differentiable(distance, "mixed", False, "cuda")
