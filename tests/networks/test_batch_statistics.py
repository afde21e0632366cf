from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gancore.networks.batch_statistics import batch_norm_layers, running_statistics_frozen


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_outputs_are_those_of_training_and_buffers_stay(make, draw, name: str, num_classes: int) -> None:
    generator, _ = make(name, num_classes=num_classes)
    labels = torch.tensor([0, 1, 2, 0]) if num_classes else None
    latents = draw(4, generator.latent_dim)
    layers = batch_norm_layers(generator)
    assert layers
    reference = copy.deepcopy(generator)
    before = {key: value.clone() for key, value in generator.named_buffers()}
    with running_statistics_frozen(layers):
        frozen = generator(latents, labels)
    for key, value in generator.named_buffers():
        assert torch.equal(value, before[key]), key
    assert torch.equal(frozen, reference(latents, labels))
    generator(latents, labels)
    for key, value in generator.named_buffers():
        assert torch.equal(value, reference.get_buffer(key)), key
        assert not torch.equal(value, before[key]), key


def test_a_network_may_be_given_instead_of_its_layers(draw) -> None:
    layer = nn.BatchNorm2d(3)
    network = nn.Sequential(layer, nn.ReLU())
    with running_statistics_frozen(network):
        network(draw(4, 3, 2, 2))
    assert layer.num_batches_tracked == 0
    assert layer.track_running_stats


def test_layers_in_eval_mode_go_on_using_running_statistics(draw) -> None:
    layer = nn.BatchNorm2d(3).eval()
    images = draw(4, 3, 2, 2) + 5
    expected = layer(images)
    with running_statistics_frozen(layer):
        assert torch.equal(layer(images), expected)


def test_the_switch_is_restored_after_an_error_and_when_nested() -> None:
    layer = nn.BatchNorm1d(3)
    never = nn.BatchNorm1d(3, track_running_stats=False)
    network = nn.Sequential(layer, never)
    with pytest.raises(RuntimeError, match="stop"), running_statistics_frozen(network):
        raise RuntimeError("stop")
    assert layer.track_running_stats
    assert not never.track_running_stats
    with running_statistics_frozen(network):
        with running_statistics_frozen(network):
            pass
        assert not layer.track_running_stats
    assert layer.track_running_stats
