"""The equations against slow loops in float64, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gancore_kdd import functional
from gancore_kdd.kernel import Product, log_sums


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.unit(drawn + 0.3 * (seed % 3)).to(dtype)


FORMS = [("matrix", False), ("blocked", False), ("blocked", True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("form", "unit_rows"), FORMS)
@pytest.mark.parametrize("tau", [0.05, 1.0, 5.0])
@pytest.mark.parametrize(
    ("anchors_real", "anchors_fake", "at_real", "at_fake", "divisor"),
    [
        (6, 6, 6, 6, "rows"),
        (6, 6, 6, 6, "literal"),
        (15, 10, 5, 5, "rows"),
        (9, 7, 0, 5, "rows"),
        (5, 8, 2, 0, "literal"),
    ],
)
def test_log_ratios_equal_the_double_loop(
    slow, dtype, form, unit_rows, tau, anchors_real, anchors_fake, at_real, at_fake, divisor
) -> None:
    real, fake = features(anchors_real, 5, seed=1, dtype=dtype), features(anchors_fake, 5, seed=2, dtype=dtype)
    found = functional.log_ratios(
        real,
        fake,
        tau,
        real_points=at_real,
        fake_points=at_fake,
        divisor=divisor,
        form=form,
        unit_rows=unit_rows,
        block=4,
    )
    expected = slow.ratios(real, fake, at_real, at_fake, tau, divisor)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for got, want in zip(found, expected, strict=True):
        want = torch.tensor(want, dtype=torch.float64)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("form", "unit_rows"), FORMS)
def test_a_memory_takes_the_place_of_the_real_anchors(slow, form: str, unit_rows: bool) -> None:
    """Row i of it belongs to real point i, which does not see it."""
    real, fake, memory = features(4, 5, seed=1), features(8, 5, seed=2), features(12, 5, seed=3)
    found = functional.log_ratios(
        real, fake, 0.5, fake_points=4, memory=memory, form=form, unit_rows=unit_rows, block=3
    )
    for got, want in zip(found, slow.ratios(real, fake, 4, 4, 0.5, memory=memory), strict=True):
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize(("block", "unit_rows"), [(3, False), (3, True), (4, True), (100, True)])
def test_blocked_and_matrix_form_agree_in_value_and_gradient(detach, with_memory, block, unit_rows) -> None:
    inputs = [features(11, 6, seed=1), features(9, 6, seed=2)]
    if with_memory:
        inputs.append(features(13, 6, seed=3))
    inputs = [tensor.requires_grad_() for tensor in inputs]
    weights = [torch.randn(7, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]

    def run(form: str):
        ratios = functional.log_ratios(
            inputs[0],
            inputs[1],
            0.3,
            real_points=7,
            fake_points=5,
            memory=inputs[2] if with_memory else None,
            detach_anchors=detach,
            form=form,
            block=block,
            unit_rows=unit_rows,
        )
        total = sum((r * w).sum() for r, w in zip(ratios, weights, strict=True))
        return ratios, torch.autograd.grad(total, inputs, allow_unused=True)

    (matrix, expected), (blocked, got) = run("matrix"), run("blocked")
    torch.testing.assert_close(blocked, matrix, rtol=1e-12, atol=1e-12)
    for a, b, tensor in zip(got, expected, inputs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(tensor) if b is None else b, rtol=1e-11, atol=1e-12)


def test_detached_anchors_pass_no_gradient() -> None:
    """The gradient at a point is then that of its own two densities, with all anchors held fixed."""
    real, fake = features(5, 4, seed=1).requires_grad_(), features(6, 4, seed=2)
    _, at_fakes = functional.log_ratios(real, fake, detach_anchors=True, form="blocked", block=2)
    assert not at_fakes.requires_grad or torch.autograd.grad(at_fakes.sum(), real)[0].abs().max() == 0
    at_reals, _ = functional.log_ratios(real, fake, detach_anchors=True, form="blocked", block=2)
    (gradient,) = torch.autograd.grad(at_reals[2], real)
    fixed = real.detach()
    point = fixed[2:3].clone().requires_grad_()
    own = functional.log_density(point, torch.cat((fixed[:2], fixed[3:])))
    other = functional.log_density(point, fake)
    (expected,) = torch.autograd.grad((own - other).sum(), point)
    torch.testing.assert_close(gradient[2:3], expected)
    assert gradient[[0, 1, 3, 4]].abs().max() == 0


@pytest.mark.parametrize(("form", "unit_rows"), FORMS)
def test_gradients_and_second_derivatives_against_finite_differences(form: str, unit_rows: bool) -> None:
    real, fake = features(5, 3, seed=1).requires_grad_(), features(4, 3, seed=2).requires_grad_()
    scaled = {"real_points": 3, "fake_points": 4, "form": form, "unit_rows": unit_rows, "block": 2}

    def run(a, b):
        return functional.log_ratios(a, b, 0.7, **scaled)

    assert gradcheck(run, (real, fake))
    assert gradgradcheck(run, (real, fake))


def test_second_derivatives_with_a_memory_and_detached_anchors_agree_with_the_matrix_form() -> None:
    inputs = [features(4, 3, seed=s).requires_grad_() for s in (1, 2, 3)]

    def second(form: str):
        ratios = functional.log_ratios(
            inputs[0], inputs[1], memory=inputs[2], detach_anchors=True, form=form, block=2
        )
        first = torch.autograd.grad(functional.hinge(*ratios), inputs, create_graph=True, allow_unused=True)
        total = sum(g.square().sum() for g in first if g is not None)
        return torch.autograd.grad(total, inputs[:2])

    torch.testing.assert_close(second("blocked"), second("matrix"))


def test_a_gradient_penalty_passes_through_the_blocked_form() -> None:
    weight = features(6, 4, seed=3).requires_grad_()
    images = features(5, 6, seed=1).requires_grad_()
    others = features(5, 6, seed=2)

    def penalty(form: str):
        ratios = functional.log_ratios(
            functional.unit(images @ weight), functional.unit(others @ weight), form=form, block=2
        )
        (gradient,) = torch.autograd.grad(ratios[0].sum(), images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    torch.testing.assert_close(penalty("blocked"), penalty("matrix"))


def test_inputs_that_need_no_gradient_get_none_and_cost_no_product() -> None:
    real, fake = features(6, 4, seed=1), features(6, 4, seed=2).requires_grad_()
    _, at_fakes = functional.log_ratios(real, fake, real_points=0, form="blocked", block=4)
    _, expected = functional.log_ratios(real, fake, real_points=0, form="matrix")
    torch.testing.assert_close(
        torch.autograd.grad(at_fakes.mean(), fake), torch.autograd.grad(expected.mean(), fake)
    )


def test_nothing_of_the_size_of_the_pairs_is_kept() -> None:
    """Between forward and backward the blocked form holds the features and one number a point and density."""
    real, fake = features(300, 4, seed=1).requires_grad_(), features(300, 4, seed=2).requires_grad_()
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.hinge(*functional.log_ratios(real, fake, form="blocked", block=64, unit_rows=True))
    beyond = sum(
        size
        for place, size in kept.items()
        if place not in (real.untyped_storage().data_ptr(), fake.untyped_storage().data_ptr())
    )
    assert beyond <= 12 * 300 * 8


@pytest.mark.parametrize("form", ["matrix", "blocked"])
def test_autocast_never_reaches_the_similarities(form: str) -> None:
    real, fake = features(40, 8, seed=1, dtype=torch.float32), features(40, 8, seed=2, dtype=torch.float32)
    real, fake = real.requires_grad_(), fake.requires_grad_()

    def run():
        ratios = functional.log_ratios(real, fake, 0.05, form=form, block=16)
        return ratios, torch.autograd.grad(functional.hinge(*ratios), (real, fake))

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ratios = functional.log_ratios(real, fake, 0.05, form=form, block=16)
        assert ratios[0].dtype == torch.float32
    gradient = torch.autograd.grad(functional.hinge(*ratios), (real, fake))
    torch.testing.assert_close(ratios, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected[1], rtol=0, atol=0)


def test_long_features_do_not_overflow_without_the_promise() -> None:
    real, fake = (
        30 * features(5, 4, seed=1, dtype=torch.float32),
        30 * features(5, 4, seed=2, dtype=torch.float32),
    )
    real.requires_grad_()
    ratios = functional.log_ratios(real, fake, 0.5, form="blocked", block=2)
    assert torch.isfinite(torch.cat(ratios)).all()
    (gradient,) = torch.autograd.grad(ratios[0].sum(), real)
    assert torch.isfinite(gradient).all()


def test_a_sharp_kernel_leaves_the_single_exponential() -> None:
    """1/tau = 100 would overflow float32 in exp, and the promise of unit rows then changes nothing."""
    real, fake = features(5, 4, seed=1, dtype=torch.float32), features(5, 4, seed=2, dtype=torch.float32)
    found = functional.log_ratios(real, fake, 0.01, form="blocked", unit_rows=True)
    torch.testing.assert_close(found, functional.log_ratios(real, fake, 0.01, form="matrix"))


def test_two_samples_are_enough_and_one_is_refused() -> None:
    two = features(2, 3, seed=1)
    for form in ("matrix", "blocked"):
        assert torch.isfinite(torch.cat(functional.log_ratios(two, two.flip(0), form=form, block=1))).all()
    with pytest.raises(ValueError, match="leave-one-out"):
        functional.log_ratios(two[:1], two)
    with pytest.raises(ValueError, match="leave-one-out"):
        functional.log_ratios(two, two[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"real": torch.zeros(3, 2, 2)}, r"\(N, K\)"),
        ({"fake": torch.zeros(3, 4)}, r"\(N, K\)"),
        ({"real": torch.zeros(3, 2).half(), "fake": torch.zeros(3, 2).half()}, "float32 or float64"),
        ({"tau": 0.0}, "tau"),
        ({"real_points": 4}, "at most"),
        ({"memory": torch.zeros(2, 2)}, "at most"),
        ({"real_points": 0, "real": torch.zeros(0, 2)}, "at least one"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(arguments, message: str) -> None:
    given = {"real": torch.zeros(3, 2), "fake": torch.zeros(3, 2), **arguments}
    with pytest.raises(ValueError, match=message):
        functional.log_ratios(**given)


def test_the_literal_divisor_lowers_the_own_side_by_a_constant() -> None:
    real, fake = features(8, 4, seed=1), features(8, 4, seed=2)
    rows = functional.log_ratios(real, fake)
    literal = functional.log_ratios(real, fake, divisor="literal")
    torch.testing.assert_close(literal[0] - rows[0], torch.full((8,), math.log(7 / 8)).double())
    torch.testing.assert_close(literal[1] - rows[1], torch.full((8,), -math.log(7 / 8)).double())


@pytest.mark.parametrize("tau", [0.05, 1.0, 5.0])
def test_unit_features_bound_the_log_ratio(tau: float) -> None:
    """Opposite clusters reach 2 / tau; nothing passes it."""
    real = functional.unit(torch.ones(4, 3, dtype=torch.float64))
    at_real, at_fake = functional.log_ratios(real, -real, tau)
    torch.testing.assert_close(at_real, torch.full((4,), 2 / tau).double())
    torch.testing.assert_close(at_fake, torch.full((4,), -2 / tau).double())


def test_own_copies_saturate_a_sharp_hinge_despite_leave_one_out() -> None:
    real, fake = features(64, 16, seed=1), features(64, 16, seed=2)
    plain = functional.log_ratios(real, fake, 0.05)
    copies = [torch.cat((rows, functional.unit(rows + 0.01 * features(64, 16, seed=4)))) for rows in (real, fake)]
    with_copies = functional.log_ratios(*copies, 0.05, real_points=64, fake_points=64)
    assert functional.hinge(*with_copies) == 0
    assert functional.hinge(*plain) > 0.5


def test_hinge_and_its_share_of_active_samples() -> None:
    real, fake = torch.tensor([-1.0, 0.5, 2.0, 1.0]), torch.tensor([-2.0, 0.0])
    expected = np.mean([max(0, 1 - r) for r in real.tolist()]) + np.mean([max(0, 1 + r) for r in fake.tolist()])
    assert float(functional.hinge(real, fake)) == pytest.approx(expected)
    assert [float(share) for share in functional.active(real, fake)] == [0.5, 0.5]


def test_a_feature_of_length_zero_gets_no_direction_and_no_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    phi = functional.unit(rows)
    torch.testing.assert_close(phi, torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(phi.sum(), rows, create_graph=True)
    assert gradient[1].abs().max() == 0
    (second,) = torch.autograd.grad(gradient.square().sum(), rows)
    assert torch.isfinite(second).all()
    assert gradcheck(functional.unit, (features(3, 4, seed=1).mul(3).requires_grad_(),))


def test_projection_is_the_row_of_v_for_the_label() -> None:
    phi, v, labels = features(4, 3, seed=1), features(5, 3, seed=2), torch.tensor([4, 0, 0, 2])
    one_hot = np.eye(5)[labels.numpy()]
    expected = [one_hot[i] @ v.numpy() @ phi[i].numpy() for i in range(4)]
    torch.testing.assert_close(functional.projection(phi, v, labels), torch.tensor(expected))


def test_jacobian_term_is_the_slope_along_unit_directions() -> None:
    noise = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    unit = functional.directions(noise)
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(6).double())
    weight, images, delta = features(48, 5, seed=1), torch.randn(6, 3, 4, 4, dtype=torch.float64), 1e-3
    at, near = images.flatten(1) @ weight, (images + delta * unit).flatten(1) @ weight
    expected = np.mean([abs(np.linalg.norm((near[i] - at[i]).numpy()) / delta - 1) for i in range(6)])
    assert float(functional.jacobian(at, near, delta)) == pytest.approx(expected, rel=1e-12)
    moved = near.clone().requires_grad_()
    assert gradcheck(lambda near: functional.jacobian(at, near, delta), (moved,), eps=1e-9, atol=1e-2)


def test_uniform_on_the_sphere_of_the_whole_image() -> None:
    """Each coordinate of a unit vector in d dimensions has variance 1 / d, over channels and positions alike."""
    noise = torch.randn(4000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    drawn = functional.directions(noise).flatten(1)
    torch.testing.assert_close(drawn.var(0), torch.full((12,), 1 / 12), rtol=0.12, atol=0)
    assert float(drawn.mean(0).abs().max()) < 0.02


def test_gaussian_density_equals_the_loop() -> None:
    points, anchors = torch.randn(4, 2, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    for leave_out, divisor in ((False, "rows"), (True, "rows"), (True, "literal")):
        found = functional.log_density(
            points, anchors, 0.8, kernel="gaussian", leave_out=leave_out, divisor=divisor
        )
        for i in range(4):
            kernels = [
                math.exp(-sum((points[i] - anchors[j]).tolist()[k] ** 2 for k in range(2)) / (2 * 0.8**2))
                for j in range(6)
                if not (leave_out and i == j)
            ]
            count = 6 if divisor == "literal" else len(kernels)
            assert float(found[i]) == pytest.approx(math.log(sum(kernels) / count), rel=1e-12)


def test_the_toy_of_appendix_a_splits_the_fakes_between_both_modes() -> None:
    """Two real modes and a square of fakes below; Gaussian kernel, no normalisation, 200 steps of SGD.

    The paper's rate 10 is for 1000 points a side; the gradient of the mean is divided by their number.
    """
    generator = torch.Generator().manual_seed(0)
    count, rate = 200, 10 * 200 / 1000
    centres = torch.tensor([[-2.0, 1.0], [2.0, 1.0]])
    real = centres.repeat(count // 2, 1) + 0.4 * torch.randn(count, 2, generator=generator)
    fake = 2 * torch.rand(count, 2, generator=generator) + torch.tensor([-1.0, -3.0])
    start = fake
    losses = []
    for _ in range(200):
        fake = fake.detach().requires_grad_()
        own = functional.log_density(fake, fake, kernel="gaussian", leave_out=True)
        loss = -(functional.log_density(fake, real, kernel="gaussian") - own).mean()
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, fake)
        fake = fake.detach() - rate * gradient
    assert losses[0] > 3
    assert abs(losses[-1]) < 0.3, "the densities have become one"
    nearest = torch.cdist(fake, centres).argmin(1)
    assert float((nearest == (start[:, 0] > 0)).float().mean()) > 0.95, "each went to the nearer mode"
    assert float(fake[:, 0].std()) > 3 * float(start[:, 0].std()), "the hinge would only shift the square"
    assert float(torch.cdist(fake, centres).min(1).values.mean()) < 1.3


def test_products_of_several_sets_at_once() -> None:
    """The engine alone: rows and columns of one product, and a set with itself."""
    a, b = features(7, 3, seed=1), features(5, 3, seed=2)
    rows, columns, within = log_sums(
        [a, b], [Product(0, 1, 4, 3), Product(1, 1, 5, leave_out=True)], 0.5, block=2
    )
    torch.testing.assert_close(rows, (a[:4] @ b.T / 0.5).logsumexp(1))
    torch.testing.assert_close(columns, (b[:3] @ a.T / 0.5).logsumexp(1))
    masked = (b @ b.T / 0.5).fill_diagonal_(-math.inf)
    torch.testing.assert_close(within, masked.logsumexp(1))


def test_unit_keeps_what_is_not_finite_and_knows_no_overflow() -> None:
    rows = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, -4.0]])
    for scale in (1e-10, 1.0, 1e20, 3e37):
        torch.testing.assert_close(functional.unit(rows * scale), functional.unit(rows))
    for bad in (float("nan"), float("inf")):
        found = functional.unit(torch.tensor([[bad, 1.0, 0.0], [3.0, 0.0, 4.0]]))
        assert not torch.isfinite(found[0]).all()
        torch.testing.assert_close(found[1], torch.tensor([0.6, 0.0, 0.8]))
