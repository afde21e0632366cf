from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gancore.errors import ConfigError
from gancore.networks.layers import ConditionalBatchNorm, ProjectionHead
from gancore.networks.options import SNGANOptions
from gancore.networks.protocols import Discriminator, Generator
from gancore.networks.sngan import build as build_sngan
from gancore.networks.spectral import power_iterate, spectral_norms

ROWS = 4
CLASSES = 3
NAMES = ["dcgan", "sngan", "mlp"]
D_VARIANTS = [
    ("dcgan", "spectral"),
    ("dcgan", "batch"),
    ("dcgan", "instance"),
    ("dcgan", "none"),
    ("sngan", "spectral"),
    ("sngan", "none"),
    ("mlp", "spectral"),
    ("mlp", "none"),
]


def labels_for(num_classes: int, rows: int = ROWS) -> torch.Tensor | None:
    return torch.arange(rows) % num_classes if num_classes else None


def check_pair(
    generator: Generator, discriminator: Discriminator, shape: tuple[int, ...], latents: torch.Tensor
) -> None:
    """Shapes, taps, range, entry at trunk, and gradients from the logits to every parameter."""
    num_classes = generator.num_classes
    assert discriminator.num_classes == num_classes
    labels = labels_for(num_classes)
    fakes = generator(latents, labels)
    assert fakes.shape == (ROWS, *shape)
    if len(shape) == 3:
        assert fakes.abs().max() <= 1

    power_iterate(spectral_norms(discriminator))
    features = discriminator.features(fakes, labels)
    assert list(features) == list(discriminator.taps) == ["trunk", "pooled"]
    for name, tap in discriminator.taps.items():
        assert features[name].shape == (ROWS, *tap.shape)
        assert tap.help
    logits = discriminator.head(features, labels)
    assert logits.shape == (ROWS,)
    assert torch.equal(discriminator.head({"trunk": features["trunk"]}, labels), logits)
    assert torch.equal(discriminator.head({"pooled": features["pooled"]}, labels), logits)
    assert torch.equal(discriminator(fakes, labels), logits)

    (logits * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("num_classes", [0, CLASSES], ids=["plain", "conditional"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_image_networks(make, draw, name: str, size: int, channels: int, num_classes: int) -> None:
    generator, discriminator = make(name, size, channels, num_classes)
    assert generator.coupling == "batch"
    assert discriminator.coupling == "none"
    assert discriminator.group_size == 1
    check_pair(generator, discriminator, (channels, size, size), draw(ROWS, generator.latent_dim))


@pytest.mark.parametrize("num_classes", [0, CLASSES], ids=["plain", "conditional"])
def test_point_networks(make, draw, num_classes: int) -> None:
    generator, discriminator = make("mlp", num_classes=num_classes)
    assert generator.coupling == discriminator.coupling == "none"
    check_pair(generator, discriminator, (2,), draw(ROWS, generator.latent_dim))


@pytest.mark.parametrize(("name", "norm"), D_VARIANTS)
def test_every_normalisation_of_d(make, draw, name: str, norm: str) -> None:
    generator, discriminator = make(name, num_classes=CLASSES, d_norm=norm)
    assert discriminator.coupling == ("batch" if norm == "batch" else "none")
    assert bool(spectral_norms(discriminator)) == (norm == "spectral")
    shape = (2,) if name == "mlp" else (3, 16, 16)
    check_pair(generator, discriminator, shape, draw(ROWS, generator.latent_dim))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_first_layer_has_no_feature_normalisation(make, norm: str) -> None:
    _, discriminator = make("dcgan", 32, d_norm=norm)
    kinds = [type(layer).__name__ for layer in discriminator.body]
    assert kinds[:2] == ["Conv2d", "LeakyReLU"]
    assert sum(kind.endswith("Norm2d") for kind in kinds) == 2


def test_dcgan_widths_and_initialisation(make) -> None:
    generator, discriminator = make("dcgan", 64, g_width=16, d_width=16, max_width=64, d_norm="none")
    assert [layer.in_channels for layer in generator.body if isinstance(layer, nn.ConvTranspose2d)] == [
        64,
        64,
        32,
    ]
    assert generator.to_image.in_channels == 16
    assert [layer.out_channels for layer in discriminator.body if isinstance(layer, nn.Conv2d)] == [
        16,
        32,
        64,
        64,
    ]
    assert generator.project.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert discriminator.body[4].weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("size", "g_widths", "d_blocks", "trunk"),
    [
        (16, [256] * 3, [(128, True), (128, False), (128, False)], (128, 8, 8)),
        (32, [256] * 4, [(128, True), (128, True), (128, False), (128, False)], (128, 8, 8)),
        (
            64,
            [1024, 512, 256, 128, 64],
            [(64, True), (128, True), (256, True), (512, True), (1024, False)],
            (1024, 4, 4),
        ),
        (
            128,
            [1024, 1024, 512, 256, 128, 64],
            [(64, True), (128, True), (256, True), (512, True), (1024, True), (1024, False)],
            (1024, 4, 4),
        ),
    ],
)
def test_sngan_follows_the_tables_of_the_paper(size, g_widths, d_blocks, trunk) -> None:
    with torch.device("meta"):
        generator, discriminator = build_sngan(SNGANOptions(d_norm="none"), (3, size, size), 0)
    assert [block.conv1.in_channels for block in generator.blocks] == g_widths[:-1]
    assert [block.conv1.out_channels for block in generator.blocks] == g_widths[1:]
    blocks = list(discriminator.body)[:-1]
    assert [(block.conv2.out_channels, block.down) for block in blocks] == d_blocks
    assert [block.first for block in blocks] == [True] + [False] * (len(blocks) - 1)
    assert discriminator.taps["trunk"].shape == trunk
    assert discriminator.taps["pooled"].shape == trunk[:1]


@pytest.mark.parametrize(("name", "norm"), D_VARIANTS)
def test_double_backward_against_finite_differences(make, draw, name: str, norm: str) -> None:
    _, discriminator = make(name, num_classes=CLASSES, d_norm=norm)
    discriminator.double()
    power_iterate(spectral_norms(discriminator))
    labels = labels_for(CLASSES)
    shape = (2,) if name == "mlp" else (3, 16, 16)
    images = draw(ROWS, *shape, dtype=torch.float64).requires_grad_()

    def penalty() -> torch.Tensor:
        (slope,) = torch.autograd.grad(discriminator(images, labels).sum(), images, create_graph=True)
        return slope.square().sum()

    parameters = list(discriminator.parameters())
    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    directions = [draw(*p.shape, seed=seed, dtype=p.dtype) for seed, p in enumerate(parameters)]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    values = []
    step = 1e-7
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
        values.append(penalty().item())
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 1e-8
    assert slope.item() == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(("name", "norm"), D_VARIANTS)
def test_r1_reaches_the_weights(make, draw, name: str, norm: str) -> None:
    _, discriminator = make(name, d_norm=norm)
    power_iterate(spectral_norms(discriminator))
    images = draw(ROWS, *((2,) if name == "mlp" else (3, 16, 16))).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    slope.square().flatten(1).sum(1).mean().backward()
    # D is piecewise linear: without a normalisation its slope does not depend on biases.
    for parameter_name, parameter in discriminator.named_parameters():
        if parameter.ndim > 1:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(("name", "norm"), [variant for variant in D_VARIANTS if variant[1] != "batch"])
def test_concatenated_views_equal_separate_ones(make, draw, name: str, norm: str) -> None:
    _, discriminator = make(name, num_classes=CLASSES, d_norm=norm)
    discriminator.double()
    power_iterate(spectral_norms(discriminator))
    shape = (2,) if name == "mlp" else (3, 16, 16)
    views = [draw(ROWS, *shape, seed=seed, dtype=torch.float64) for seed in (0, 1)]
    labels = labels_for(CLASSES)
    weights = draw(2 * ROWS, seed=2, dtype=torch.float64)
    parameters = list(discriminator.parameters())

    together = discriminator(torch.cat(views), torch.cat([labels, labels]))
    apart = torch.cat([discriminator(view, labels) for view in views])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-13)
    for one, other in zip(
        torch.autograd.grad((together * weights).sum(), parameters),
        torch.autograd.grad((apart * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_classes", [0, CLASSES], ids=["plain", "conditional"])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(make, draw, name: str, num_classes: int) -> None:
    generator, discriminator = make(name, num_classes=num_classes)
    labels = labels_for(num_classes)
    power_iterate(spectral_norms(discriminator))
    with torch.autocast("cpu", torch.bfloat16):
        fakes = generator(draw(ROWS, generator.latent_dim), labels)
        features = discriminator.features(fakes, labels)
        logits = discriminator.head(features, labels)
        loss = nn.functional.softplus(-logits).mean()
    assert features["trunk"].dtype == torch.bfloat16
    assert fakes.dtype == logits.dtype == torch.float32
    loss.backward()
    for network in (generator, discriminator):
        for parameter in network.parameters():
            assert parameter.grad.isfinite().all()
    with torch.no_grad():
        full = discriminator(fakes, labels)
    torch.testing.assert_close(logits, full, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_channels_last(make, draw, name: str) -> None:
    generator, discriminator = make(name, num_classes=CLASSES)
    power_iterate(spectral_norms(discriminator))
    latents, labels = draw(ROWS, generator.latent_dim), labels_for(CLASSES)
    fakes = generator(latents, labels)
    logits = discriminator(fakes, labels)
    generator.to(memory_format=torch.channels_last)
    discriminator.to(memory_format=torch.channels_last)
    again = generator(latents, labels)
    torch.testing.assert_close(again, fakes, rtol=1e-4, atol=1e-5)
    last = discriminator(again.contiguous(memory_format=torch.channels_last), labels)
    torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-5)
    power_iterate(spectral_norms(discriminator))
    last.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_double_precision(make, draw, name: str) -> None:
    generator, discriminator = make(name, num_classes=CLASSES)
    generator.double()
    discriminator.double()
    power_iterate(spectral_norms(discriminator))
    labels = labels_for(CLASSES)
    logits = discriminator(generator(draw(ROWS, generator.latent_dim, dtype=torch.float64), labels), labels)
    assert logits.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_read_on_the_host(make, name: str) -> None:
    generator, discriminator = make(name, num_classes=CLASSES)
    generator.to("meta")
    discriminator.to("meta")
    labels = torch.zeros(ROWS, dtype=torch.int64, device="meta")
    # Tensors on the meta device have no values: reading one raises.
    fakes = generator(torch.zeros(ROWS, generator.latent_dim, device="meta"), labels)
    assert discriminator.eval()(fakes, labels).shape == (ROWS,)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_builds_the_same_weights(make, name: str) -> None:
    for one, other in zip(make(name), make(name), strict=True):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_labels_change_a_conditional_pair_only(make, draw, name: str) -> None:
    for num_classes in (0, CLASSES):
        generator, discriminator = make(name, num_classes=num_classes)
        if name == "sngan" and num_classes:
            with torch.no_grad():
                for module in generator.modules():
                    if isinstance(module, ConditionalBatchNorm) and module.affine is not None:
                        module.affine.weight.add_(draw(*module.affine.weight.shape))
        generator.eval()
        discriminator.eval()
        latents = draw(ROWS, generator.latent_dim)
        zeros, ones = torch.zeros(ROWS, dtype=torch.int64), torch.ones(ROWS, dtype=torch.int64)
        fakes = generator(latents, zeros)
        assert torch.equal(fakes, generator(latents, ones)) == (num_classes == 0)
        assert torch.equal(discriminator(fakes, zeros), discriminator(fakes, ones)) == (num_classes == 0)


@pytest.mark.parametrize("name", NAMES)
def test_missing_labels_are_named(make, draw, name: str) -> None:
    generator, discriminator = make(name, num_classes=CLASSES)
    with pytest.raises(ConfigError, match="a network with 3 classes got no labels"):
        generator(draw(ROWS, generator.latent_dim))
    features = discriminator.features(draw(ROWS, *((2,) if name == "mlp" else (3, 16, 16))))
    with pytest.raises(ConfigError, match="a network with 3 classes got no labels"):
        discriminator.head(features)


def test_head_without_a_tap_is_refused(make, draw) -> None:
    _, discriminator = make("dcgan")
    with pytest.raises(ConfigError, match=r"got features \['stem'\]; expected one of \['trunk', 'pooled'\]"):
        discriminator.head({"stem": draw(ROWS, 3)})


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
@pytest.mark.parametrize("size", [4, 24])
def test_build_refuses_other_sizes(name: str, size: int) -> None:
    from gancore.networks.builtin import BUILTIN

    spec = next(spec for spec in BUILTIN if spec.name == name)
    with pytest.raises(ConfigError, match=f"image size {size}: expected a power of two"):
        spec.load()(spec.options(), (3, size, size), 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_projection_is_a_dot_product(make, draw, name: str) -> None:
    _, discriminator = make(name, num_classes=CLASSES, d_norm="none")
    head = discriminator.logit
    pooled = draw(ROWS, *discriminator.taps["pooled"].shape)
    labels = torch.tensor([2, 0, 1, 2])
    logits = discriminator.head({"pooled": pooled}, labels).detach().numpy()
    weight = head.linear.weight.detach().double().numpy()[0]
    rows = head.embedding.weight.detach().double().numpy()
    for row in range(ROWS):
        vector = pooled[row].double().numpy()
        expected = float(head.linear.bias.detach())
        for index, value in enumerate(vector):
            expected += (weight[index] + rows[labels[row]][index]) * value
        assert logits[row] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_embedding_of_a_spectral_head_is_normalised(draw) -> None:
    torch.manual_seed(0)
    head = ProjectionHead(16, 5, spectral=True)
    assert parametrize.is_parametrized(head.linear)
    assert parametrize.is_parametrized(head.embedding)
    pooled, labels = draw(ROWS, 16), torch.tensor([4, 3, 0, 4])
    power_iterate(spectral_norms(head))
    expected = head.linear(pooled)[:, 0] + (head.embedding(labels) * pooled).sum(1)
    torch.testing.assert_close(head(pooled, labels), expected)


def test_conditional_batch_norm_is_batch_norm_then_the_affine_map_of_the_class(draw) -> None:
    layer = ConditionalBatchNorm(3, 2)
    images = draw(ROWS, 3, 4, 4)
    labels = torch.tensor([0, 1, 1, 0])
    plain = nn.BatchNorm2d(3)
    torch.testing.assert_close(layer(images, labels), plain(images))
    with torch.no_grad():
        layer.affine.weight.copy_(draw(2, 6, seed=1))
    out = layer(images, labels)
    mean = images.mean((0, 2, 3), keepdim=True)
    variance = images.var((0, 2, 3), correction=0, keepdim=True)
    unit = (images - mean) / (variance + layer.norm.eps).sqrt()
    for row in range(ROWS):
        scale, shift = layer.affine.weight[labels[row]].reshape(2, 3, 1, 1)
        torch.testing.assert_close(out[row], unit[row] * scale + shift)
