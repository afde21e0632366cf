"""The fused path against the reference: values, every order of gradient, layouts, types, odd shapes, draws."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from gancore.ops import build, ready, using
from gancore.ops.library import COMMON
from gancore.testing import build_ops, run_steps, skip_without, tiny_session
from gancore_ada import functional, fused
from gancore_ada.library import LIBRARY

PIPES = {
    "bgc": (*functional.GEOMETRY, *functional.COLOR),
    "all": functional.OPS,
    "geometry, cutout": (*functional.GEOMETRY, "cutout"),
    "colour": functional.COLOR,
    "cutout": ("cutout",),
}
SHAPES = ((5, 3, 9, 7), (4, 1, 8, 16), (3, 3, 33, 18), (2, 3, 16, 5), (1, 1, 70, 130), (3, 3, 1, 1), (2, 1, 2, 1))
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(autouse=True, scope="module")
def _fused_paths():
    build_ops(LIBRARY)
    with using("require"):
        assert ready(LIBRARY, torch.zeros(1))  # loaded, for tests that call the operations themselves
        yield


def case(shape, pipe="bgc", dtype=torch.float64, layout=torch.contiguous_format, seed=0, p=0.8, blit="wavelet"):
    """Images and a draw for them."""
    generator = torch.Generator().manual_seed(seed)
    images = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    with using("off"):
        drawn = functional.draw(
            shape, p, dict.fromkeys(PIPES[pipe], 1.0), generator=generator, dtype=wide, blit=blit
        )
    return images.contiguous(memory_format=layout), drawn


def reference(images, drawn):
    """In float64, of the very same numbers."""
    with using("off"):
        return functional.apply(images.double(), {name: value.double() for name, value in drawn.items()})


def agree(images, drawn, tolerance=None) -> None:
    """Values and gradients of ``apply`` are those of the reference."""
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(99)).to(images)
    leaves = [images.clone().requires_grad_() for _ in range(2)]
    outs = functional.apply(leaves[0], drawn), reference(leaves[1], drawn)
    assert outs[0].dtype == images.dtype
    found, expected = (
        (out, *torch.autograd.grad((out * weights).sum(), leaf)) for out, leaf in zip(outs, leaves, strict=True)
    )
    bound = tolerance or TOLERANCE[images.dtype]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=bound, atol=bound)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pipe", PIPES)
def test_values_and_gradients_are_those_of_the_reference(pipe, dtype, layout) -> None:
    for seed, shape in enumerate(SHAPES):
        agree(*case(shape, pipe, dtype, layout, seed))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_large_and_strongly_moved_images(dtype) -> None:
    """Several tiles, matrices that shrink, stretch, shear, collapse and look far away."""
    images, drawn = case((7, 3, 200, 150), dtype=dtype)
    matrices = drawn["geometry"]
    matrices[0, :2] *= 2.7
    matrices[1, :2, :2] *= 0.05
    matrices[2, 0, 1] += 3
    matrices[3, :2, :2] = 0
    matrices[4, 0, 2] = 1e30
    matrices[5] = torch.diag(torch.tensor([-1e20, -1e20, 1]))
    matrices[6, 1] = matrices[6, 0]
    agree(images, drawn, 1e-11 if dtype == torch.float64 else 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("pipe", ["bgc", "all"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("blit", ["wavelet", "exact"])
def test_gradients_of_any_order_against_finite_differences(channels, pipe, blit) -> None:
    images, drawn = case((2, channels, 4, 6), pipe, blit=blit)
    images.requires_grad_()

    def augmented(x):
        return functional.apply(x, drawn)

    assert torch.autograd.gradcheck(augmented, (images,))
    assert torch.autograd.gradgradcheck(lambda x: augmented(x) ** 2, (images,))


@pytest.mark.parametrize("size", [(16, 16), (7, 7), (6, 9), (1, 12)])
def test_whole_shifts_move_pixels_as_far_as_the_reference_does(size) -> None:
    """Every shift, those from which taps see the end of the reflection among them."""
    reach = 2 * max(size)
    shifts = [(x, y) for x in range(-reach, reach + 1) for y in (0, 1 - x, x // 2)]
    matrices = torch.eye(3, dtype=torch.float64).repeat(len(shifts), 1, 1)
    matrices[:, :2, 2] = torch.tensor(shifts, dtype=torch.float64)
    images = torch.rand(len(shifts), 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agree(images, {"geometry": matrices})


def test_at_p_0_images_come_back_bit_by_bit() -> None:
    images, drawn = case((3, 3, 16, 24), "bgc", torch.float32, p=0.0)
    del drawn["color"]
    assert torch.equal(functional.apply(images, drawn), images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_matrix_that_is_no_matrix_spoils_its_image_alone(value) -> None:
    images, drawn = case((3, 3, 16, 24), "bgc", torch.float32)
    whole = functional.apply(images, drawn)
    drawn["geometry"][1, 1, 0] = value
    found = functional.apply(images, drawn)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


def test_images_of_no_numbers_spoil_nothing_else() -> None:
    """Scratch memory holds what the image before left there."""
    images, drawn = case((6, 3, 40, 24), "all", torch.float32)
    with using("require"):
        whole = functional.apply(images, drawn)
        images[::2] = float("nan")
        images.requires_grad_()
        found = functional.apply(images, drawn)
        gradient = torch.full_like(found, float("nan"))
        gradient[1::2] = 1
        (gradient,) = torch.autograd.grad(found, images, gradient)
    assert torch.equal(found[1::2], whole[1::2])
    assert torch.isfinite(gradient[1::2]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("channels", [1, 3])
def test_torch_accepts_the_operations(channels) -> None:
    shape = (2, channels, 8, 8)
    images, drawn = case(shape, "geometry, cutout", torch.float32)
    parts = [drawn["geometry"], torch.empty(0, 4, 4), drawn["cutout"]]
    for transposed, offset in ((False, True), (False, False), (True, False)):
        torch.library.opcheck(fused.warp, (images.requires_grad_(), *parts, transposed, offset))
    with pytest.raises(RuntimeError, match="the transpose has no offset"):
        fused.warp(images, *parts, True, True)
    numbers = functional.numbers(4, generator=torch.Generator().manual_seed(0))
    torch.library.opcheck(
        fused.matrices, (*numbers, torch.tensor(0.5), [1.0] * 15, [0.5] * 16, 8, 8, channels == 1, True)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geometry": torch.zeros(3, 3, 3)}, "geometry: expected one an image, or none"),
        ({"geometry": torch.zeros(2, 3, 3, dtype=torch.float64)}, "geometry: expected the type"),
        ({"colour": torch.zeros(2, 3, 3)}, "colour: expected one an image, or none"),
        ({"cutout": torch.zeros(2, 5)}, "cutout: expected one an image, or none"),
        ({"images": torch.zeros(2, 4, 8, 8)}, "images: expected .* with 1 or 3 channels"),
    ],
)
def test_the_operation_refuses_what_does_not_fit(change, message) -> None:
    given = {
        "images": torch.zeros(2, 3, 8, 8),
        "geometry": torch.empty(0, 3, 3),
        "colour": torch.empty(0, 4, 4),
        "cutout": torch.empty(0, 4),
    }
    with pytest.raises(RuntimeError, match=message):
        fused.warp(*{**given, **change}.values(), False, True)


def test_what_it_does_not_take_goes_the_reference_way() -> None:
    images, drawn = case((2, 3, 8, 8), dtype=torch.float32)
    drawn["color"].requires_grad_()
    assert not fused.takes(images, drawn)  # it has no gradient for parameters
    assert functional.apply(images, drawn).requires_grad
    with using("off"):
        assert not fused.takes(images, {})
        assert not fused.composes("cpu", torch.float32)
    assert not fused.takes(torch.empty((1, 1, 1, 1)).expand(2**16, 1, 2**8, 2**8), {})
    assert not fused.takes(torch.empty(1, 1, 1, fused.LONGEST + 1), {})
    assert not fused.composes("cpu", torch.bfloat16)


@pytest.mark.parametrize("pipe", ["bgc", "all"])
def test_strided_empty_and_poisoned_memory(pipe) -> None:
    images, drawn = case((4, 3, 12, 10), pipe, torch.float32)
    wide = torch.randn(4, 3, 12, 20)
    wide[..., ::2] = images
    torch.testing.assert_close(
        functional.apply(wide[..., ::2], drawn), functional.apply(images, drawn), rtol=0, atol=0
    )
    none = {name: values[:0] for name, values in drawn.items()}
    assert functional.apply(images[:0], none).shape == (0, 3, 12, 10)
    torch.use_deterministic_algorithms(True)  # and fresh memory is filled with NaN
    try:
        for _ in range(3):
            leaf = images.clone().requires_grad_()
            again = functional.apply(leaf, drawn)
            (gradient,) = torch.autograd.grad(again.square().sum(), leaf)
            assert torch.equal(again, functional.apply(images, drawn))
            assert torch.isfinite(again).all()
            assert torch.isfinite(gradient).all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_batch_is_augmented_alike_with_any_number_of_threads() -> None:
    images, drawn = case((7, 3, 16, 16), "bgc", torch.float32)

    def both_ways():
        leaf = images.clone().requires_grad_()
        out = functional.apply(leaf, drawn)
        return out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]

    alone = both_ways()
    torch.set_num_threads(2)
    try:
        assert all(map(torch.equal, both_ways(), alone))
    finally:
        torch.set_num_threads(1)
    rows = [functional.apply(images[i : i + 1], {k: v[i : i + 1] for k, v in drawn.items()}) for i in range(7)]
    assert torch.equal(torch.cat(rows), alone[0])


@pytest.mark.slow
def test_it_compiles() -> None:
    images, drawn = case((2, 3, 8, 8), "bgc", torch.float32)
    multipliers = dict.fromkeys(PIPES["bgc"], 1.0)
    numbers = functional.numbers(2, generator=torch.Generator().manual_seed(0))

    def augmented(x, p):
        made = fused.compose(*numbers, p, multipliers, functional.PAPER, (2, 3, 8, 8), exact=False, doubles=False)
        return functional.apply(functional.apply(x, drawn), made)

    compiled = torch.compile(augmented, fullgraph=True, backend="aot_eager")
    leaf = images.clone().requires_grad_()
    torch.testing.assert_close(compiled(leaf, torch.tensor(0.5)), augmented(images, torch.tensor(0.5)))
    compiled(leaf, torch.tensor(0.5)).sum().backward()
    assert leaf.grad is not None


def turns():
    """First the fused path, then the reference."""
    for mode in ("require", "off"):
        with using(mode):
            yield mode


@pytest.mark.parametrize("plugins", [["ada", "r1"], ["ada", "hinge"]], ids=" + ".join)
def test_a_run_uses_it_and_learns_what_the_reference_learns(plugins) -> None:
    skip_without(plugins)
    learned = {}
    options = {"compute.precision": "float64", "ada.p": 0.6, "ada.preset": "bgcfnc"}
    for mode in turns():
        session = run_steps(tiny_session(plugins, options), 3)
        assert bool(session.operations["gancore_ada on cpu"].key) == (mode == "require")
        learned[mode] = {n: p.detach().clone() for n, p in session.trainer.generator.named_parameters()}
        session.close()
    for name, value in learned["off"].items():
        torch.testing.assert_close(learned["require"][name], value, rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """What a block of the CUDA kernels does, as a function like ``fused.warp`` on the CPU."""
    target = tmp_path_factory.mktemp("blocks") / "blocks.so"
    include = [f"-I{COMMON}", f"-I{LIBRARY.folder / 'csrc'}"]
    compiler = build.toolchain("cpu").compiler
    source = str(Path(__file__).parent / "blocks.cpp")
    subprocess.run(
        [
            compiler,
            "-std=c++17",
            "-O1",
            "-Werror",
            "-Wall",
            "-fPIC",
            "-shared",
            *include,
            source,
            "-o",
            str(target),
        ],
        check=True,
    )
    library = ctypes.CDLL(str(target))

    def warp(images, *arguments):
        parts, (transposed, offset) = arguments[:3], arguments[3:]
        out = torch.full_like(images, float("nan"))
        run = library.run_double if images.dtype == torch.float64 else library.run_float
        addresses = [ctypes.c_void_p(part.data_ptr()) if part.numel() else None for part in parts]
        run(
            ctypes.c_int64(len(images)),
            *images.shape[1:],
            not images.is_contiguous(),
            transposed,
            offset,
            ctypes.c_void_p(images.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
            *addresses,
        )
        return out

    return warp


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("pipe", PIPES)
def test_blocks_of_the_kernels_compute_the_same_as_the_cpu(blocks, pipe, dtype, layout) -> None:
    """All of the CUDA path but launches: its index functions, weights and order of phases."""
    for seed, shape in enumerate(SHAPES):
        images, drawn = case(shape, pipe, dtype, layout, seed)
        if shape[0] > 3 and "geometry" in drawn:
            drawn["geometry"][0] = torch.diag(torch.tensor([3.1, 0.4, 1]))
            drawn["geometry"][1] = torch.eye(3)
            drawn["geometry"][1, :2, 2] = torch.tensor([2.0, -1])  # a shift, where there are pixels enough
            drawn["geometry"][2, 1] = drawn["geometry"][2, 0]  # all on a line
            drawn["geometry"][3, 0, 0] = float("nan")
        parts = [drawn.get(name, torch.empty((0, *shape), dtype=dtype)) for name, shape in fused.WARPS.items()]
        for transposed, offset in ((False, True), (False, False), (True, False)):
            given = (images, *parts, transposed, offset)
            torch.testing.assert_close(
                blocks(*given), fused.warp(*given), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], equal_nan=True
            )


@pytest.mark.slow
def test_the_cuda_library_is_built_and_registers() -> None:
    """For sm_80 and sm_90; it runs in the tests that need a GPU."""
    build_ops(LIBRARY, "cuda")
    torch.ops.load_library(str(LIBRARY.path("cuda")))
    for name in LIBRARY.ops:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gancore_ada::{name}", "CUDA")


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pipe", PIPES)
def test_the_gpu_computes_what_the_reference_does(pipe, dtype, layout) -> None:
    build_ops(LIBRARY, "cuda")
    for seed, shape in enumerate((*SHAPES, (2, 3, 130, 70))):
        images, drawn = case(shape, pipe, dtype, layout, seed)
        on_device = {name: value.cuda() for name, value in drawn.items()}
        agree(images.cuda(), on_device, max(TOLERANCE[dtype], 1e-4 if dtype == torch.float32 else 0))
        again = [functional.apply(images.cuda(), on_device) for _ in range(2)]
        assert torch.equal(*again)


@pytest.mark.gpu
def test_gradients_of_any_order_on_the_gpu() -> None:
    build_ops(LIBRARY, "cuda")
    images, drawn = case((2, 3, 4, 6))
    leaf, drawn = images.cuda().requires_grad_(), {name: value.cuda() for name, value in drawn.items()}

    def augmented(x):
        return functional.apply(x, drawn)

    assert torch.autograd.gradcheck(augmented, (leaf,))
    assert torch.autograd.gradgradcheck(lambda x: augmented(x) ** 2, (leaf,))
