"""A small classifier of the reference's own classes: a yardstick for machines without published weights.

It is trained once on the labelled data, kept in the cache and known by the hash of its weights. Distances in its
features compare runs on the same data; they are not FID, and say nothing beside another classifier's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancore.api import DataError, Samples
from gancore_fidelity.backbones.base import Backbone, Features, Settings, exact, own_randomness
from gancore_fidelity.storage import Damaged, Storage, tensor_digest

RECIPE: Mapping[str, Any] = {
    "version": 1,
    "widths": [32, 64, 96, 128],
    "largest_side": 64,
    "images": 20_000,
    "held_out": 2_000,
    "batch": 128,
    "passes": 10,
    "most_steps": 600,
    "lr": 2e-3,
    "weight_decay": 1e-2,
    "seed": 0,
}
"""Everything that decides the weights besides data and machine; another recipe is another classifier."""

LEAST_IMAGES = 50
"""Below this a classifier is not worth its name."""

Note = Callable[[str], None]


class Network(nn.Module):
    """Four convolutions with batch normalisation; the features are the channel means of the last two.

    The third layer is in because the fourth, next to the classes, forgets how an image looks.

    Args:
        channels: of the images. side: of the images, at most 64. classes: how many.
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        widths = RECIPE["widths"]
        # The first layer brings every side to 16, so that a training step costs the same for all of them.
        stride = 2 ** round(math.log2(max(1, side / 16)))
        first = nn.Conv2d(channels, widths[0], stride + 2, stride, (stride + 1) // 2, bias=False)
        others = [nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList(
            nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()) for layer in (first, *others)
        )
        self.dimension = sum(widths[-2:])
        self.linear = nn.Linear(self.dimension, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) features and (N, classes) logits of images (N, C, side, side) in [-1, 1]."""
        pooled = []
        for layer in self.layers:
            images = layer(images)
            pooled.append(images.mean((2, 3)))
        vectors = torch.cat(pooled[-2:], 1)
        return vectors, self.linear(vectors)


@dataclass(frozen=True)
class Trained:
    """Weights of a :class:`Network`, and what is known of them.

    Attributes:
        accuracy: share of held-out images whose class it gets right. chance: share of the largest class.
    """

    weights: dict[str, Tensor]
    channels: int
    side: int
    classes: int
    accuracy: float
    chance: float

    @property
    def poor(self) -> bool:
        """Whether it is less than a third of the way from chance to being always right."""
        return self.accuracy < self.chance + (1 - self.chance) / 3


class Classifier(Backbone):
    """The trained network as a backbone: 224 features, and logits."""

    name: ClassVar[str] = "classifier"
    model = f"4-layer CNN on the reference's classes, recipe {RECIPE['version']}"
    has_logits = True

    def __init__(self, trained: Trained, settings: Settings | None = None) -> None:
        with own_randomness():
            network = Network(trained.channels, trained.side, trained.classes)
        network.load_state_dict(trained.weights)
        self.dimension = network.dimension
        self.sha256 = tensor_digest(trained.weights)
        self.input_size = trained.side
        self.resize = "bilinear, antialiased"
        self.accuracy = trained.accuracy
        super().__init__(network, settings or Settings())

    def forward(self, images: Tensor) -> Features:
        return Features(*self.network(_prepare(images, self.input_size)))

    def protocol(self) -> dict[str, Any]:
        """The base's, and the held-out accuracy."""
        return {**super().protocol(), "backbone_accuracy": round(self.accuracy, 4)}


def open_classifier(samples: Samples, storage: Storage, settings: Settings) -> Classifier:
    """The classifier of the samples' reference: from the cache, or trained now.

    Raises:
        DataError: the reference has no labels, or too few images or classes.
    """
    data = samples.labelled
    if data is None or data.labels is None:
        raise DataError(
            f"the set '{samples.dataset.name}' has no labels to train a classifier on; sort its images into "
            "sub-folders by class, or choose backbone inception or dinov2"
        )
    present = len(np.unique(data.labels))
    if len(data) < LEAST_IMAGES or present < 2:
        raise DataError(
            f"the set '{data.name}' has {len(data)} images of {present} classes; a classifier needs at least "
            f"{LEAST_IMAGES} images of 2 classes: choose backbone inception or dinov2"
        )
    key = {"recipe": dict(RECIPE), "data_digest": data.digest, "kind": "classifier"}
    trained = _kept(storage, key, samples.note)
    if trained is None:
        trained = train(
            data.read,
            data.labels,
            len(data.class_names),
            lambda done, total: samples.progress("training the classifier", done, total, "steps"),
        )
        _keep(storage, key, trained, samples.note)
    if trained.poor:
        samples.note(
            f"the classifier is right on {trained.accuracy:.0%} of held-out images (always the largest class: "
            f"{trained.chance:.0%}): its features tell these classes poorly apart, so read its scores with care; "
            "more labelled images help, or backbone inception"
        )
    return Classifier(trained, settings)


def train(
    read: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    classes: int,
    passed: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train on one thread of the CPU, so that threads and devices do not decide the weights.

    Args:
        read: ``read(int64 (B,)) -> uint8 (B, C, H, W)``. labels: int64 (N,), one an image.
        classes: how many there are; the linear layer has as many rows.
        passed: called with (done, total) after each step.
    """
    order = np.random.Generator(np.random.PCG64(RECIPE["seed"])).permutation(len(labels))
    held = order[: min(RECIPE["held_out"], max(1, len(labels) // 10))]
    chosen = order[len(held) :][: RECIPE["images"]]
    images, held_images = (torch.from_numpy(read(part)) for part in (chosen, held))
    targets, held_targets = (torch.from_numpy(labels[part]) for part in (chosen, held))
    side = min(RECIPE["largest_side"], images.shape[-1])
    with _one_thread(), exact(Settings()), own_randomness():
        network = Network(images.shape[1], side, classes)
        _fit(network, images, targets, side, passed)
        right = [
            network(_prepare(held_images[start : start + 256], side))[1].argmax(1)
            == held_targets[start : start + 256]
            for start in range(0, len(held), 256)
        ]
    counts = np.bincount(labels[held], minlength=classes)
    return Trained(
        {name: value.detach().clone() for name, value in network.state_dict().items()},
        channels=images.shape[1],
        side=side,
        classes=classes,
        accuracy=float(torch.cat(right).float().mean()),
        chance=float(counts.max() / len(held)),
    )


def _fit(
    network: Network, images: Tensor, targets: Tensor, side: int, passed: Callable[[int, int], None]
) -> None:
    draw = torch.Generator().manual_seed(RECIPE["seed"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
    nn.init.zeros_(network.linear.bias)
    network.to(memory_format=torch.channels_last)
    batch = min(RECIPE["batch"], len(images))
    a_pass = len(images) // batch
    steps = min(RECIPE["most_steps"], RECIPE["passes"] * a_pass)
    optimizer = torch.optim.AdamW(network.parameters(), RECIPE["lr"], weight_decay=RECIPE["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE["lr"], total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    with torch.enable_grad():
        for step in range(steps):
            at = step % a_pass
            if at == 0:
                order = torch.randperm(len(images), generator=draw)
            rows = order[at * batch : (at + 1) * batch]
            loss = F.cross_entropy(network(_prepare(images[rows], side))[1], targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            passed(step + 1, steps)
    network.eval().requires_grad_(False)


def _prepare(images: Tensor, side: int) -> Tensor:
    """uint8 (N, C, H, W) as float32 (N, C, side, side) in [-1, 1]."""
    pixels = images.float() / 127.5 - 1
    if pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return pixels.contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(storage: Storage, key: Mapping[str, Any], note: Note) -> Trained | None:
    try:
        stored = storage.read("classifier", key)
    except Damaged as error:
        note(f"the classifier was trained again: {error}")
        return None
    return None if stored is None else Trained(weights=stored.tensors, **stored.record)


def _keep(storage: Storage, key: Mapping[str, Any], trained: Trained, note: Note) -> None:
    about = {name: value for name, value in vars(trained).items() if name != "weights"}
    try:
        storage.write("classifier", key, trained.weights, about)
    except OSError as error:
        note(
            f"the classifier could not be kept in {storage.folder} ({error.strerror or error}): it will be "
            "trained again; set fidelity.cache to a folder that can be written"
        )
