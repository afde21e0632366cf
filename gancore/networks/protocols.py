"""What a generator and a discriminator promise the trainer.

To bring networks of your own, subclass :class:`Generator` and :class:`Discriminator`, write
``build(options, shape, num_classes) -> (Generator, Discriminator)`` and describe the pair in a
:class:`~gancore.networks.spec.NetworkSpec` (in a module that does not import torch). A discriminator in
full, with :class:`~gancore.networks.layers.ProjectionHead`::

    class TinyDiscriminator(Discriminator):
        def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
            super().__init__(
                taps={
                    "trunk": TapSpec((32, 4, 4), "last feature map, after the activation"),
                    "pooled": TapSpec((32,), "sum of trunk over positions"),
                },
                num_classes=num_classes,
            )
            conv = nn.Conv2d(shape[0], 32, 3, padding=1)
            self.body = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(4))
            self.logit = ProjectionHead(32, num_classes)

        def features(self, images, labels=None):
            trunk = self.body(images)
            return {"trunk": trunk, "pooled": trunk.sum((2, 3))}

        def head(self, features, labels=None):
            pooled = features["pooled"] if "pooled" in features else features["trunk"].sum((2, 3))
            return self.logit(pooled, labels)

Rules that the trainer relies on:

* ``forward``, ``features`` and ``head`` are pure in their tensor inputs: no random draws, no reads of
  values on the host (``.item()``, ``.cpu()``), no branch on a tensor's value. So one call can be
  concatenated with others, repeated, or captured.
* Nothing is changed in place (``nn.ReLU(inplace=True)``): gradient penalties differentiate D twice.
* ``coupling`` tells the truth. With ``"none"`` a sample's output does not depend on the others in its
  batch, so views are concatenated freely. ``"batch"`` (BatchNorm) means that it depends on all of them;
  ``"grouped"`` means that it depends on groups of ``group_size`` samples taken at stride ``N / group_size``
  (minibatch standard deviation). Spectral, instance, layer and group normalisation do not couple.
* Spectral normalisation uses :func:`torch.nn.utils.parametrizations.spectral_norm`, and BatchNorm torch's
  layers, so that :mod:`~gancore.networks.spectral` and :mod:`~gancore.networks.batch_statistics` find them.
* Networks work in float32 and float64 (``module.double()``), in the channels-last memory format and under
  bfloat16 autocast. G's images and D's logits have the parameters' dtype even under autocast; taps may be
  bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from gancore.errors import ConfigError
from gancore.networks.spec import TapSpec

Coupling = Literal["none", "grouped", "batch"]


class Generator(nn.Module):
    """Base class of generators.

    Attributes:
        latent_dim: length of z.
        num_classes: number of classes; 0 when unconditional, and labels are then ignored.
        coupling: how samples of a batch depend on each other, in training mode.
    """

    latent_dim: int
    num_classes: int
    coupling: Coupling

    def __init__(self, *, latent_dim: int, num_classes: int = 0, coupling: Coupling = "none") -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.coupling = coupling

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate.

        Args:
            latents: ``(N, latent_dim)``, float, standard normal.
            labels: ``(N,)``, int64, in ``[0, num_classes)``; None is allowed when unconditional.

        Returns:
            ``(N, C, H, W)`` in [-1, 1], or points ``(N, 2)``, unbounded.
        """
        raise NotImplementedError


class Discriminator(nn.Module):
    """Base class of discriminators: ``features`` up to every tap, ``head`` from a tap to the logits.

    Attributes:
        taps: specification of each tap, in order from the image to the logits. The built-in networks have
            ``trunk`` (the last feature map) and ``pooled`` (the vector that the last linear layer reads).
        num_classes: number of classes; 0 when unconditional, and labels are then ignored.
        coupling: how samples of a batch depend on each other, in training mode.
        group_size: size of the groups when ``coupling`` is ``"grouped"``, else 1.
    """

    taps: dict[str, TapSpec]
    num_classes: int
    coupling: Coupling
    group_size: int = 1

    def __init__(
        self,
        *,
        taps: Mapping[str, TapSpec],
        num_classes: int = 0,
        coupling: Coupling = "none",
        group_size: int = 1,
    ) -> None:
        super().__init__()
        self.taps = dict(taps)
        self.num_classes = num_classes
        self.coupling = coupling
        self.group_size = group_size

    def features(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Features at every tap.

        Args:
            images: ``(N, C, H, W)`` in [-1, 1], or points ``(N, 2)``.
            labels: ``(N,)``, int64; None is allowed when unconditional.

        Returns:
            For each tap, ``(N, *taps[name].shape)``.
        """
        raise NotImplementedError

    def head(self, features: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """Logits, computed from the deepest tap that ``features`` holds.

        So ``head(features(x))`` is D(x), and ``head({"trunk": t})`` lets features enter at ``trunk``.

        Args:
            features: at least one tap, ``(N, *taps[name].shape)``.
            labels: ``(N,)``, int64; None is allowed when unconditional.

        Returns:
            ``(N,)``, in the parameters' dtype.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images, ``(N,)``."""
        return self.head(self.features(images, labels), labels)

    def deepest_tap(self, features: Mapping[str, Tensor]) -> str:
        """Name of the tap in ``features`` that is nearest to the logits.

        Raises:
            ConfigError: ``features`` holds no tap of this network.
        """
        for name in reversed(self.taps):
            if name in features:
                return name
        raise ConfigError(
            f"{type(self).__name__}.head got features {sorted(features)}; expected one of {list(self.taps)}"
        )


def require_labels(labels: Tensor | None, num_classes: int) -> Tensor:
    """``labels``, or :class:`~gancore.errors.ConfigError` when a conditional network got none."""
    if labels is None:
        raise ConfigError(f"a network with {num_classes} classes got no labels; expected (N,) of int64")
    return labels
