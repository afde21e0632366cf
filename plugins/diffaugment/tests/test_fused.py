"""The fused path against the reference: values, every order of gradient, layouts, types, odd shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gancore.ops import using
from gancore.testing import build_ops, run_steps, skip_without, tiny_session
from gancore_diffaugment import functional as F
from gancore_diffaugment import fused
from gancore_diffaugment.library import LIBRARY
from gancore_diffaugment.policy import Strengths

POLICIES = (
    "color,translation,cutout",
    "translation,cutout,color",
    "translation,color,cutout",
    "cutout,color,translation",
    "cutout,translation",
    "contrast,brightness",
    "saturation",
    "brightness,cutout",
)
FAR = Strengths(brightness=0.7, saturation=1.3, contrast=0.9, translation=0.4, cutout=0.6)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(autouse=True, scope="module")
def _fused_paths():
    build_ops(LIBRARY)
    with using("require"):
        yield


def case(shape, policy, dtype=torch.float64, layout=torch.contiguous_format, seed=0, strengths=FAR):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=layout)
    draw = F.draw(generator, shape[0], shape[1:], policy, strengths)
    return images, draw, F.effective(policy, strengths, shape[1:])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_values_and_gradients_are_those_of_the_reference(policy, dtype, layout) -> None:
    for seed, shape in enumerate([(5, 3, 9, 7), (3, 1, 8, 16), (2, 4, 16, 5), (2, 3, 33, 70), (1, 2, 1, 1)]):
        images, draw, names = case(shape, policy, dtype, layout, seed)
        if not names:
            continue
        weights = torch.randn(shape, generator=torch.Generator().manual_seed(99)).to(dtype)
        leaves = [images.clone().requires_grad_() for _ in range(2)]
        found = F.augment(leaves[0], draw, policy, FAR)
        expected = F.reference(leaves[1], draw, names, FAR)
        assert found.dtype == dtype
        assert found.stride() == leaves[0].stride()
        gradients = [
            torch.autograd.grad((out * weights).sum(), leaf)[0]
            for out, leaf in zip((found, expected), leaves, strict=True)
        ]
        for ours, theirs in ((found, expected), gradients):
            torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_of_any_order_against_finite_differences(policy) -> None:
    images, draw, _ = case((2, 3, 4, 3), policy)
    images.requires_grad_()

    def augmented(x):
        return F.augment(x, draw, policy, FAR)

    assert torch.autograd.gradcheck(augmented, (images,))
    assert torch.autograd.gradgradcheck(lambda x: augmented(x) ** 2, (images,))


def test_it_equals_the_loops_of_the_definition() -> None:
    """Slow and independent: every pixel from the formulas, in the order of the policy."""
    shape = (3, 3, 6, 5)
    images, draw, _ = case(shape, "color,translation,cutout", seed=3)
    found = F.augment(images, draw, "color,translation,cutout", FAR).numpy()
    for b in range(shape[0]):
        x = images[b].numpy() + (float(draw["brightness"][b].double()) - 0.5) * FAR.brightness
        s = (2 * float(draw["saturation"][b].double()) - 1) * FAR.saturation + 1
        grey = x.mean(axis=0)
        x = (x - grey) * s + grey
        k = (float(draw["contrast"][b].double()) - 0.5) * FAR.contrast + 1
        x = (x - x.mean()) * k + x.mean()
        t_row, t_column = draw["translation"][b].tolist()
        centre = draw["cutout"][b].tolist()
        cut = FAR.cut(6), FAR.cut(5)
        for i in range(6):
            for j in range(5):
                erased = all(
                    c - part // 2 <= at < c - part // 2 + part
                    for at, c, part in zip((i, j), centre, cut, strict=True)
                )
                inside = 0 <= i + t_row < 6 and 0 <= j + t_column < 5
                pixel = x[:, i + t_row, j + t_column] if inside and not erased else np.zeros(3)
                np.testing.assert_allclose(found[b, :, i, j], pixel, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("policy", POLICIES[:3])
def test_torch_accepts_the_operation(policy) -> None:
    images, draw, _ = case((2, 3, 8, 8), policy, torch.float32)
    given = []
    original = fused.affine
    try:
        fused.affine = lambda *arguments: given.append(arguments) or original(*arguments)
        F.augment(images.requires_grad_(), draw, policy, FAR)
    finally:
        fused.affine = original
    torch.library.opcheck(original, given[0])


def test_what_it_does_not_take_goes_the_reference_way() -> None:
    images, draw, names = case((2, 3, 8, 8), "brightness,cutout,contrast")
    assert not fused.takes(images, names)  # a spatial operation between two colours
    expected = F.reference(images, draw, names, FAR)
    assert torch.equal(F.augment(images, draw, "brightness,cutout,contrast", FAR), expected)
    with using("off"):
        assert not fused.takes(images, ("brightness",))
    huge = torch.empty((1, 1, 1, 1)).expand(2**16, 1, 2**8, 2**8)
    assert not fused.takes(huge, ("brightness",))


@pytest.mark.parametrize("policy", POLICIES[:2])
def test_strided_empty_and_poisoned_memory(policy) -> None:
    images, draw, _ = case((4, 3, 8, 10), policy, torch.float32)
    wide = torch.randn(4, 3, 8, 20)
    wide[..., ::2] = images
    torch.testing.assert_close(
        F.augment(wide[..., ::2], draw, policy, FAR), F.augment(images, draw, policy, FAR), rtol=0, atol=0
    )
    none = {name: values[:0] for name, values in draw.items()}
    assert F.augment(images[:0], none, policy, FAR).shape == (0, 3, 8, 10)
    torch.use_deterministic_algorithms(True)  # and fresh memory is filled with NaN
    try:
        for _ in range(3):
            again = F.augment(images, draw, policy, FAR)
            assert torch.equal(again, F.augment(images, draw, policy, FAR))
            assert torch.isfinite(again).all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_batch_is_augmented_alike_with_any_number_of_threads() -> None:
    images, draw, _ = case((7, 3, 16, 16), POLICIES[0], torch.float32)
    alone = F.augment(images, draw, POLICIES[0], FAR)
    torch.set_num_threads(2)
    try:
        assert torch.equal(F.augment(images, draw, POLICIES[0], FAR), alone)
    finally:
        torch.set_num_threads(1)
    rows = torch.cat(
        [
            F.augment(images[i : i + 1], {k: v[i : i + 1] for k, v in draw.items()}, POLICIES[0], FAR)
            for i in range(7)
        ]
    )
    assert torch.equal(rows, alone)


@pytest.mark.slow
def test_it_compiles() -> None:
    images, draw, _ = case((2, 3, 8, 8), POLICIES[0], torch.float32)
    compiled = torch.compile(
        lambda x: F.augment(x, draw, POLICIES[0], FAR) * 2, fullgraph=True, backend="aot_eager"
    )
    leaf = images.clone().requires_grad_()
    torch.testing.assert_close(compiled(leaf), 2 * F.augment(images, draw, POLICIES[0], FAR))
    compiled(leaf).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("plugins", [["diffaugment", "r1"], ["augself"]], ids=" + ".join)
def test_a_run_uses_it_and_learns_what_the_reference_learns(plugins) -> None:
    skip_without(plugins)
    losses = {}
    for mode in ("require", "off"):
        with using(mode):
            session = run_steps(tiny_session(plugins, {"compute.precision": "float64"}), 3)
            used = session.operations["gancore_diffaugment on cpu"]
            assert bool(used.key) == (mode == "require")
            losses[mode] = {n: p.detach().clone() for n, p in session.trainer.generator.named_parameters()}
            session.close()
    for name, value in losses["off"].items():
        torch.testing.assert_close(losses["require"][name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_the_cuda_library_is_built_and_registers() -> None:
    """For sm_80 and sm_90; it runs in the tests that need a GPU."""
    build_ops(LIBRARY, "cuda")
    torch.ops.load_library(str(LIBRARY.path("cuda")))
    assert torch._C._dispatch_has_kernel_for_dispatch_key("gancore_diffaugment::affine", "CUDA")


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_gpu_computes_what_the_reference_does(policy, dtype, layout) -> None:
    build_ops(LIBRARY, "cuda")
    for seed, shape in enumerate([(5, 3, 9, 7), (3, 1, 8, 16), (2, 3, 130, 70)]):
        images, draw, names = case(shape, policy, dtype, layout, seed)
        if not names:
            continue
        draw = {name: values.cuda() for name, values in draw.items()}
        leaves = [images.cuda().requires_grad_() for _ in range(2)]
        outs = F.augment(leaves[0], draw, policy, FAR), F.reference(leaves[1], draw, names, FAR)
        weights = torch.randn_like(outs[1])
        found, expected = (
            (out, *torch.autograd.grad((out * weights).sum(), leaf))
            for out, leaf in zip(outs, leaves, strict=True)
        )
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
