"""What a method's ``setup``, ``augment`` and ``evaluate`` hooks see of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import nn

from gancore.errors import PluginError
from gancore.networks.protocols import Discriminator, Generator

TrainedBy = Literal["d", "g"] | None
ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass
class MethodModules:
    """Modules that methods have added: ``"method.name"`` -> module, and what trains each."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    trained_by: dict[str, TrainedBy] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """The run, as a method sees it outside of steps.

    Attributes:
        method: name of the method it was made for.
        shape: of one image (C, H, W) or point (2,). num_classes: 0 when unconditional.
        dataset_size: images in the set. mirror: whether reals are flipped at random.
        batch, n_critic, steps, seed: as configured.
        device, dtype: of parameters and images.
        generator, discriminator: the networks. D's ``taps`` give the feature shapes.
    """

    method: str
    shape: tuple[int, ...]
    num_classes: int
    dataset_size: int
    mirror: bool
    batch: int
    n_critic: int
    steps: int
    seed: int
    device: torch.device
    dtype: torch.dtype
    generator: Generator
    discriminator: Discriminator
    added: MethodModules
    warnings: list[str]

    def warn(self, text: str) -> None:
        """Tell the user, before training, what options alone do not show: a matter of shapes, of the set's size.

        What options do show belongs into ``Claims.warnings``.
        """
        self.warnings.append(f"{self.method}: {text}")

    def add_module(self, name: str, module: ModuleT, trained_by: TrainedBy = None) -> ModuleT:
        """Hand a module (or a module of buffers) to the run: moved to the device, saved, restored.

        Args:
            name: unique in the method.
            trained_by: ``"d"`` or ``"g"``: its parameters join that network's optimiser and are frozen in the
                other network's phases. None: no optimiser touches it.

        Returns:
            The module, on the run's device and in its type.
        """
        key = f"{self.method}.{name}"
        if key in self.added.modules:
            raise PluginError(f"'{self.method}' adds module '{name}' twice")
        if trained_by not in ("d", "g", None):
            raise PluginError(f"'{self.method}' adds module '{name}' with trained_by = {trained_by!r}")
        module = module.to(device=self.device, dtype=self.dtype)
        if trained_by is None:
            module.requires_grad_(False)
        self.added.modules[key] = module
        self.added.trained_by[key] = trained_by
        return module
