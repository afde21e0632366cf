"""Penalties against closed forms and float64 loops; their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from gancore.builtins import penalties as p
from gancore.testing import run_steps, tiny_session


def gradients(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def squared_norms(gradient: torch.Tensor) -> list[float]:
    return [math.fsum(float(v) ** 2 for v in row.flatten()) for row in gradient]


def test_zero_centred_equals_a_loop() -> None:
    g = gradients()
    expected = 7.0 / 2 * math.fsum(squared_norms(g)) / len(g)
    assert float(p.zero_centred(g, 7.0)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("target", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_gradient_norm_equals_a_loop(target: float, one_sided: bool, eps: float) -> None:
    g = gradients()
    excess = [math.sqrt(s + eps) - target for s in squared_norms(g)]
    expected = math.fsum((max(e, 0.0) if one_sided else e) ** 2 for e in excess) / len(g)
    got = p.gradient_norm(g, target=target, one_sided=one_sided, eps=eps)
    assert float(got) == pytest.approx(expected, rel=1e-13)


def test_a_zero_gradient_gives_no_nan() -> None:
    g = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (back,) = torch.autograd.grad(p.gradient_norm(g), g, create_graph=True)
    assert torch.isfinite(back).all()


def test_interpolate_takes_one_alpha_a_sample() -> None:
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    mixed = p.interpolate(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert mixed[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.0]
    assert torch.equal(mixed[1], torch.full((1, 2, 2), 0.25))


def test_double_backward_of_both_penalties() -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 3, dtype=torch.float64)

    def penalty(weight: torch.Tensor, which: str) -> torch.Tensor:
        leaf = x.clone().requires_grad_(True)
        logits = torch.tanh(leaf @ weight.T).square().sum(1)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        return p.zero_centred(gradient, 3.0) if which == "r1" else p.gradient_norm(gradient)

    assert torch.autograd.gradcheck(lambda w: penalty(w, "r1"), weight)
    assert torch.autograd.gradcheck(lambda w: penalty(w, "gp"), weight)


@pytest.mark.parametrize(("name", "side"), [("r1", "real"), ("r2", "fake")])
def test_trained_value_equals_the_penalty_of_a_direct_call(name: str, side: str) -> None:
    """The plan's leaf, group and gradient give what one plain call of D on the same images gives."""
    session = tiny_session([name], {"compute.precision": "float64", "train.steps": 1})
    trainer = session.trainer
    program = trainer.plan.full_program("d")
    assert program is not None
    step = trainer.new_step(program, 0)
    trainer.loss(step)
    images = step.built[side].detach().requires_grad_(True)
    logits = trainer.discriminator(images)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    step.caller = name
    got = p.zero_centred(step.input_gradient("penalty"), 10.0)
    expected = 10.0 / 2 * math.fsum(squared_norms(gradient)) / len(images)
    assert float(got.detach()) == pytest.approx(expected, rel=1e-10)
    session.close()


def test_interpolates_lie_between_and_are_un_augmented() -> None:
    session = run_steps(tiny_session(["wgan", "gp"], {"wgan.clip": 0.0}), 2)
    row = session.trainer.telemetry.flush()
    assert row["gp/penalty.d"]["count"] == 2
    assert row["gp/penalty.d.weighted"]["mean"] == pytest.approx(10 * row["gp/penalty.d"]["mean"])
    session.close()


def test_weight_clipping_bounds_every_weight_of_d() -> None:
    session = run_steps(tiny_session(["wgan"], {"wgan.clip": 0.003, "network.d_norm": "none"}), 2)
    largest = max(float(w.detach().abs().max()) for w in session.trainer.discriminator.parameters())
    assert largest == pytest.approx(0.003, rel=1e-6)
    session.close()


def test_gp_refuses_batch_statistics_in_d() -> None:
    from gancore.errors import PluginError

    with pytest.raises(PluginError, match="'gp' needs d:uncoupled"):
        tiny_session(["gp"], {"network.d_norm": "batch"})
