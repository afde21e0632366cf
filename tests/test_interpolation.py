from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancore.errors import ConfigError
from gancore.interpolation import Walk, between_classes, ease, lerp, render, share_out, slerp
from gancore.networks import dcgan, mlp, sngan
from gancore.networks.options import DCGANOptions, MLPOptions, SNGANOptions
from gancore.networks.protocols import Generator
from gancore.sampling import generate, latent

CPU = torch.device("cpu")
SHAPE, CLASSES = (1, 16, 16), 4


def textbook(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """The formula of the docstring, one vector at a time, with lengths on a straight line."""
    la, lb = math.sqrt(sum(a * a)), math.sqrt(sum(b * b))
    u, v = a / la, b / lb
    angle = math.acos(sum(u * v))
    direction = math.sin((1 - t) * angle) / math.sin(angle) * u + math.sin(t * angle) / math.sin(angle) * v
    return direction * ((1 - t) * la + t * lb)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.1, 0.25, 0.5, 0.9])
def test_slerp_is_the_formula(t):
    a, b = normal(0, 20, 16), normal(1, 20, 16) * 3
    expected = np.stack([textbook(x.numpy(), y.numpy(), t) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(slerp(a, b, t).numpy(), expected, rtol=1e-12, atol=1e-13)


def test_slerp_goes_at_even_speed_and_keeps_the_length():
    a = normal(0, 16)
    b = normal(1, 16)
    b *= a.norm() / b.norm()
    way = [slerp(a, b, t / 10) for t in range(11)]
    for place in way:
        assert float(place.norm()) == pytest.approx(float(a.norm()), rel=1e-12)
    steps = [float((y - x).norm()) for x, y in itertools.pairwise(way)]
    assert steps == pytest.approx([steps[0]] * 10, rel=1e-10)
    assert float(lerp(a, b, 0.5).norm()) < 0.95 * float(a.norm())


@pytest.mark.parametrize("way", [slerp, lerp])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact(way, dtype):
    a, b = normal(2, 5, 8).to(dtype), normal(3, 5, 8).to(dtype)
    assert torch.equal(way(a, b, 0), a)
    assert torch.equal(way(a, b, 1), b)
    assert way(a, b, 0.3).dtype == dtype


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-7, 1e-4, 1e-2])
def test_slerp_of_nearly_parallel_vectors(angle):
    a = torch.zeros(6, dtype=torch.float64)
    a[0] = 2.0
    b = torch.zeros(6, dtype=torch.float64)
    b[0], b[3] = 2 * math.cos(angle), 2 * math.sin(angle)
    expected = torch.zeros(6, dtype=torch.float64)
    expected[0], expected[3] = 2 * math.cos(0.3 * angle), 2 * math.sin(0.3 * angle)
    torch.testing.assert_close(slerp(a, b, 0.3), expected, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("factor", [1.0, 0.5, 1 + 1e-15])
def test_slerp_of_opposite_vectors_takes_a_circle_that_is_always_the_same(factor):
    a = normal(4, 3, 8)
    b = -a * factor
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close((middle * a).sum(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(middle.norm(dim=1), a.norm(dim=1) * (1 + factor) / 2)
    torch.testing.assert_close(slerp(a, b, 1 - 1e-9), b, rtol=1e-7, atol=1e-7)
    assert torch.equal(middle, slerp(a, b, 0.5))


def test_slerp_where_there_is_no_circle():
    zero, one = torch.zeros(2, 4), torch.ones(2, 4)
    torch.testing.assert_close(slerp(zero, one, 0.25), torch.full((2, 4), 0.25))
    torch.testing.assert_close(slerp(one, zero, 0.25), torch.full((2, 4), 0.75))
    assert torch.equal(slerp(zero, zero, 0.5), zero)
    assert torch.equal(slerp(torch.tensor([[-1.0]]), torch.tensor([[3.0]]), 0.5), torch.tensor([[1.0]]))


def test_ease_stops_at_both_ends():
    h = 1e-6
    assert (ease(0), ease(0.5), ease(1)) == (0, 0.5, 1)
    assert ease(h) / h == pytest.approx(0, abs=1e-5)
    assert (1 - ease(1 - h)) / h == pytest.approx(0, abs=1e-5)
    shares = [ease(k / 50) for k in range(51)]
    assert shares == sorted(shares)


def test_places_of_a_walk():
    latents = torch.zeros(3, 1, 2)
    closed = Walk(latents, None, frames=2, smooth=False)
    assert closed.places() == [(0, 1, 0), (0, 1, 0.5), (1, 2, 0), (1, 2, 0.5), (2, 0, 0), (2, 0, 0.5)]
    opened = Walk(latents, None, frames=2, closed=False, smooth=False)
    assert opened.places() == [*closed.places()[:4], (2, 0, 0)]
    assert (len(closed), len(opened)) == (6, 5)


def networks() -> dict[str, Generator]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = {
            "dcgan": dcgan.build(DCGANOptions(g_width=4, d_width=4), SHAPE, CLASSES)[0],
            "sngan": sngan.build(SNGANOptions(g_width=8, d_width=8), SHAPE, CLASSES)[0],
            "mlp": mlp.build(MLPOptions(width=8), (2,), CLASSES)[0],
        }
        for network in found.values():
            for table in tables(network):
                nn.init.normal_(table.weight)
    return {name: network.eval().requires_grad_(False) for name, network in found.items()}


def tables(network: nn.Module) -> list[nn.Embedding]:
    return [module for module in network.modules() if isinstance(module, nn.Embedding)]


NETWORKS = networks()


def walk_of(network: Generator, labels: list[int], **options) -> Walk:
    stops = len(labels)
    latents = torch.stack([latent(network.latent_dim, seed, 0)[None] for seed in range(stops)])
    return Walk(latents, torch.tensor(labels)[:, None], **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_walk_stops_at_the_samples_of_its_seeds(name):
    network = NETWORKS[name]
    labels = [0, 2, 2, 1]
    pictures = list(render(network, walk_of(network, labels, frames=3), CPU))
    assert len(pictures) == 12
    for seed, label in enumerate(labels):
        sample = generate(network, 1, seed, CPU, [label])
        torch.testing.assert_close(pictures[3 * seed], sample, rtol=1e-5, atol=1e-6)
    opened = list(render(network, walk_of(network, labels, frames=3, closed=False), CPU))
    torch.testing.assert_close(torch.stack(opened), torch.stack(pictures[:10]), rtol=1e-5, atol=1e-6)


def test_a_closed_smooth_walk_has_no_jump():
    network = NETWORKS["sngan"]
    pictures = list(render(network, walk_of(network, [0, 1, 2], frames=32), CPU))
    steps = [float((b - a).abs().mean()) for a, b in itertools.pairwise([*pictures, pictures[0]])]
    assert max(steps) < 0.2 * float((pictures[0] - pictures[32]).abs().mean())
    at_stops = [steps[k] for k in (0, 31, 32, 63, 64, 95)]
    assert max(at_stops) < 0.3 * max(steps)


@pytest.mark.parametrize("name", NETWORKS)
def test_between_classes_is_the_mean_of_the_rows(name):
    """Against a network in whose tables the row of class 1 is what lies between classes 1 and 3."""
    network = NETWORKS[name]
    latents = normal(5, 2, network.latent_dim).float()
    one, three = torch.tensor([1, 1]), torch.tensor([3, 3])
    blended = between_classes(network, latents, one, three, torch.tensor([0.25, 0.25]))
    kept = [table.weight.clone() for table in tables(network)]
    try:
        for table in tables(network):
            table.weight[1] = 0.75 * table.weight[1] + 0.25 * table.weight[3]
        expected = network(latents, one)
    finally:
        for table, weight in zip(tables(network), kept, strict=True):
            table.weight.copy_(weight)
    torch.testing.assert_close(blended, expected, rtol=1e-4, atol=1e-5)
    for share, label in ((0.0, one), (1.0, three)):
        ends = between_classes(network, latents, one, three, torch.full((2,), share))
        assert torch.equal(ends, network(latents, label))


class OneHot(Generator):
    """Reads its classes without an embedding."""

    def __init__(self) -> None:
        super().__init__(latent_dim=3, num_classes=CLASSES)
        self.layer = nn.Linear(3 + CLASSES, 2)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return self.layer(torch.cat([latents, nn.functional.one_hot(labels, CLASSES).to(latents.dtype)], 1))


def test_a_generator_without_class_embeddings_walks_in_one_class_alone():
    network = OneHot().eval()
    with pytest.raises(ConfigError, match=r"OneHot does not read classes through torch\.nn\.Embedding alone"):
        next(render(network, walk_of(network, [0, 1], frames=2), CPU))
    assert len(list(render(network, walk_of(network, [1, 1], frames=2), CPU))) == 4


def test_many_walkers_walk_apart():
    network = NETWORKS["mlp"]
    latents = torch.stack(
        [torch.stack([latent(network.latent_dim, seed, k) for k in range(70)]) for seed in (0, 1)]
    )
    labels = torch.arange(70).remainder(CLASSES).expand(2, 70)
    pictures = list(render(network, Walk(latents, labels, frames=3), CPU))
    assert {tuple(picture.shape) for picture in pictures} == {(70, 2)}
    torch.testing.assert_close(pictures[0], generate(network, 70, 0, CPU), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pictures[3], generate(network, 70, 1, CPU), rtol=1e-5, atol=1e-6)


def test_share_out():
    assert share_out(range(4), 2, 2) == [[0, 1], [2, 3]]
    assert share_out([7], 1, 1) == [[7]]
    with pytest.raises(ConfigError, match="1 seed: a walk needs at least 2; such as --seeds 0-1"):
        share_out([7], 1, 2)
    with pytest.raises(
        ConfigError, match="7 seeds: each of the 3 tiles needs at least 2, the same number for each"
    ):
        share_out(range(7), 3, 2)
