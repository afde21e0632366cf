from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gancore.networks.ema import ExponentialAverage, beta_for
from gancore.networks.spectral import power_iterate, spectral_norms


def test_beta() -> None:
    assert beta_for(64, 10**6, 10) == pytest.approx(0.5 ** (64 / 10_000))
    assert beta_for(64, 1000, 10, ramp=0.05) == pytest.approx(0.5 ** (64 / 50))
    assert beta_for(64, 10**9, 10, ramp=0.05) == pytest.approx(0.5 ** (64 / 10_000))
    assert beta_for(64, 1000, 10, ramp=0) == beta_for(64, 1000, 10)
    assert beta_for(64, 0, 10, ramp=0.05) == 0
    assert beta_for(64, 1000, 0) == 0


def test_average_against_a_loop(draw) -> None:
    model = nn.Linear(3, 2)
    average = ExponentialAverage(model)
    expected = [[float(value) for value in p.detach().flatten().double()] for p in model.parameters()]
    betas = [beta_for(8, 8 * step, 0.05, ramp=0.5) for step in range(1, 21)]
    for step, beta in enumerate(betas):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(draw(*parameter.shape, seed=step))
        average.update(model, beta)
        for kept, parameter in zip(expected, model.parameters(), strict=True):
            for index, value in enumerate(parameter.detach().flatten().tolist()):
                kept[index] = beta * kept[index] + (1 - beta) * value
    for kept, parameter in zip(expected, average.model.parameters(), strict=True):
        torch.testing.assert_close(
            parameter.flatten().double(), torch.tensor(kept).double(), rtol=1e-5, atol=1e-6
        )


def test_beta_zero_copies_and_beta_one_keeps() -> None:
    model = nn.Linear(3, 2)
    average = ExponentialAverage(model)
    start = average.model.weight.clone()
    with torch.no_grad():
        model.weight.normal_()
    average.update(model, 1.0)
    assert torch.equal(average.model.weight, start)
    average.update(model, 0.0)
    assert torch.equal(average.model.weight, model.weight)


def test_the_copy_is_in_eval_mode_and_without_gradients(make) -> None:
    generator, _ = make("sngan")
    average = ExponentialAverage(generator)
    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_buffers_are_copied(make, draw, name: str) -> None:
    generator, _ = make(name)
    average = ExponentialAverage(generator)
    for _ in range(3):
        generator(draw(4, generator.latent_dim))
    average.update(generator, 0.5)
    buffers = dict(average.model.named_buffers())
    assert any(key.endswith("num_batches_tracked") for key in buffers)
    for key, value in generator.named_buffers():
        assert torch.equal(buffers[key], value), key
        assert buffers[key] is not value


def test_buffers_are_found_again_after_a_conversion(make, draw) -> None:
    generator, _ = make("dcgan")
    average = ExponentialAverage(generator)
    average.update(generator, 0.5)
    generator.double()
    average.model.double()
    generator(draw(4, generator.latent_dim, dtype=torch.float64))
    average.update(generator, 0.0)
    for key, value in generator.state_dict().items():
        assert torch.equal(average.model.state_dict()[key], value), key


def test_spectrally_normalised_averages_divide_by_their_own_norm(draw) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(spectral_norm(nn.Linear(6, 5)))
    average = ExponentialAverage(model)
    power_iterate(spectral_norms(model))
    with torch.no_grad():
        model[0].parametrizations.weight.original.add_(draw(5, 6), alpha=0.1)
    average.update(model, 0.5)
    layer = average.model[0]
    weight = layer.parametrizations.weight.original
    link = layer.parametrizations.weight[0]
    assert torch.equal(link._u, model[0].parametrizations.weight[0]._u)
    torch.testing.assert_close(layer.weight, weight / (link._u @ weight @ link._v))
    assert torch.equal(layer.weight, layer.weight)
    assert not torch.equal(weight, model[0].parametrizations.weight.original)


def test_another_module_of_the_same_structure_may_follow() -> None:
    model = nn.Linear(3, 2)
    average = ExponentialAverage(model)
    average.update(model, 0.5)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.weight.normal_()
    average.update(other, 0.0)
    assert torch.equal(average.model.weight, other.weight)


def test_another_structure_is_refused() -> None:
    average = ExponentialAverage(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"differs from its average in 0\.bias, 0\.weight"):
        average.update(nn.Sequential(nn.Linear(3, 4)), 0.5)
    with pytest.raises(ValueError, match=r"differs from its average in 0\.bias"):
        average.update(nn.Sequential(nn.Linear(3, 2, bias=False)), 0.5)
