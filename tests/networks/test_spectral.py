from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gancore.networks.spectral import iterate_at_every_read, power_iterate, spectral_norms


@pytest.fixture
def layer() -> nn.Module:
    """A spectrally normalised layer whose weight has moved since its singular vectors were found."""
    torch.manual_seed(0)
    linear = spectral_norm(nn.Linear(12, 7))
    with torch.no_grad():
        linear.parametrizations.weight.original.normal_()
    return linear


def vectors(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    link = layer.parametrizations.weight[0]
    return link._u, link._v


@pytest.mark.parametrize(("name", "count"), [("dcgan", 4), ("sngan", 9), ("mlp", 4)])
def test_every_layer_of_d_is_found(make, name: str, count: int) -> None:
    _, discriminator = make(name, num_classes=3, d_norm="spectral")
    weighted = [
        layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)
    ]
    found = spectral_norms(discriminator)
    assert len(found) == len(weighted) == count
    assert {id(norm.module) for norm in found} == {id(layer) for layer in weighted}
    assert {norm.tensor_name for norm in found} == {"weight"}


def test_other_parametrisations_are_left_alone() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    assert spectral_norms(nn.Sequential(layer, nn.Linear(3, 3))) == []


def test_one_iteration_of_the_power_method(layer: nn.Module) -> None:
    weight = layer.parametrizations.weight.original.detach()
    _, v = (vector.clone() for vector in vectors(layer))
    power_iterate(spectral_norms(layer))
    u = nn.functional.normalize(weight @ v, dim=0)
    v = nn.functional.normalize(weight.T @ u, dim=0)
    torch.testing.assert_close(vectors(layer)[0], u)
    torch.testing.assert_close(vectors(layer)[1], v)
    torch.testing.assert_close(layer.weight, weight / (u @ weight @ v))


def test_reads_within_a_phase_are_equal_bit_for_bit(layer: nn.Module) -> None:
    power_iterate(spectral_norms(layer))
    before = [vector.clone() for vector in vectors(layer)]
    assert torch.equal(layer.weight, layer.weight)
    assert all(torch.equal(a, b) for a, b in zip(before, vectors(layer), strict=True))


def test_reads_differ_when_every_read_iterates(layer: nn.Module) -> None:
    norms = spectral_norms(layer)
    iterate_at_every_read(norms)
    assert not torch.equal(layer.weight, layer.weight)
    power_iterate(norms)
    assert torch.equal(layer.weight, layer.weight)


def test_the_largest_singular_value_becomes_one(make) -> None:
    _, discriminator = make("sngan", num_classes=3)
    norms = spectral_norms(discriminator)
    with torch.no_grad():
        for norm in norms:
            norm.chain.original.normal_()
    for _ in range(200):
        power_iterate(norms)
    for norm in norms:
        matrix = norm.module.weight.detach().flatten(1).double()
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-3)


def test_two_backwards_in_a_phase(layer: nn.Module) -> None:
    power_iterate(spectral_norms(layer))
    original = layer.parametrizations.weight.original
    batch = torch.ones(2, 12)
    first, second = layer(batch).square().sum(), layer(2 * batch).square().sum()
    first.backward()
    once = original.grad.clone()
    second.backward()
    assert once.abs().sum() > 0
    assert not torch.equal(original.grad, once)


def test_gradient_flows_after_a_forward_without(layer: nn.Module) -> None:
    power_iterate(spectral_norms(layer))
    batch = torch.ones(2, 12)
    with torch.no_grad():
        quiet = layer(batch)
    loud = layer(batch)
    assert torch.equal(quiet, loud)
    loud.square().sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().sum() > 0


def test_gradient_is_that_of_a_fixed_pair_of_vectors(layer: nn.Module) -> None:
    layer.double()
    power_iterate(spectral_norms(layer))
    u, v = vectors(layer)
    weight = layer.parametrizations.weight.original
    direction = torch.arange(84, dtype=torch.float64).reshape(7, 12)
    (gradient,) = torch.autograd.grad((layer.weight * direction).sum(), weight)
    sigma = (u @ weight @ v).detach()
    expected = direction / sigma - (direction * weight.detach()).sum() / sigma**2 * torch.outer(u, v)
    torch.testing.assert_close(gradient, expected)


def test_vectors_are_saved(layer: nn.Module) -> None:
    power_iterate(spectral_norms(layer))
    state = copy.deepcopy(layer.state_dict())
    assert {key.rpartition(".")[2] for key in state} == {"bias", "original", "_u", "_v"}
    other = spectral_norm(nn.Linear(12, 7))
    other.load_state_dict(state)
    other.eval()
    assert torch.equal(other.weight, layer.weight)


def test_registration_starts_near_the_norm() -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(30, 20)).eval()
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)


def test_autocast_does_not_round_the_iteration(layer: nn.Module) -> None:
    other = copy.deepcopy(layer)
    power_iterate(spectral_norms(layer))
    with torch.autocast("cpu", torch.bfloat16):
        power_iterate(spectral_norms(other))
    for one, two in zip(vectors(layer), vectors(other), strict=True):
        assert torch.equal(one, two)


def test_double_precision(layer: nn.Module) -> None:
    layer.double()
    power_iterate(spectral_norms(layer))
    assert layer.weight.dtype == vectors(layer)[0].dtype == torch.float64
