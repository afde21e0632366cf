"""What is known of a network before torch is imported: name, options, sizes, preferred configuration."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gancore.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from gancore.networks.protocols import Discriminator, Generator

    Build = Callable[[Any, tuple[int, ...], int], tuple[Generator, Discriminator]]


@dataclass(frozen=True)
class TapSpec:
    """A place in D where features can be read, and where a feature view can enter.

    Attributes:
        shape: of one sample, without the batch dimension: ``(C, H, W)`` or ``(C,)``.
        help: one sentence on what the features are.
    """

    shape: tuple[int, ...]
    help: str


@dataclass(frozen=True)
class NetworkSpec:
    """A pair of G and D as the command line sees it.

    Attributes:
        name: what ``--network`` takes.
        summary: one line with the source paper.
        build: ``"module:function"``, imported by :meth:`load` and not before. The function has the signature
            ``build(options, shape, num_classes) -> (Generator, Discriminator)``, where ``options`` is an
            instance of the class below, ``shape`` that of one sample (``(C, H, W)`` or ``(2,)``) and
            ``num_classes`` is 0 for an unconditional pair. It draws the initial weights from torch's
            default generator.
        options: a frozen dataclass whose fields are :func:`gancore.options.option`.
        kind: what G generates: square images, or points in the plane.
        sizes: allowed image sizes in pixels; empty for points.
        defaults: configuration values that this network prefers, by dotted key.
    """

    name: str
    summary: str
    build: str
    options: type
    kind: Literal["image", "points"]
    sizes: tuple[int, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        module, separator, function = self.build.partition(":")
        if not (module and separator and function):
            raise PluginError(f"network '{self.name}': build = {self.build!r}: expected 'module:function'")
        if self.kind not in ("image", "points"):
            raise PluginError(f"network '{self.name}': kind = {self.kind!r}: expected 'image' or 'points'")

    def check(self, shape: tuple[int, ...], dataset: str | None = None) -> None:
        """Refuse data that the network cannot generate.

        Args:
            shape: of one sample: ``(C, H, W)`` for images, ``(D,)`` for points.
            dataset: name of the data set, for the message.

        Raises:
            ConfigError: the wrong kind of data, an image that is not square, or a size that is not allowed.
        """
        data = f"the set '{dataset}'" if dataset else "the data set"
        if self.kind == "points":
            if len(shape) != 1:
                raise ConfigError(
                    f"network '{self.name}' generates points; {data} holds images: use --network dcgan"
                )
            return
        if len(shape) == 1:
            raise ConfigError(
                f"network '{self.name}' generates images; {data} holds {shape[0]}-D points: use --network mlp"
            )
        if len(shape) != 3:
            raise ConfigError(
                f"network '{self.name}' generates images; {data} holds samples of shape {shape}: "
                "expected (channels, height, width)"
            )
        _, height, width = shape
        allowed = ", ".join(str(size) for size in self.sizes)
        if height != width:
            raise ConfigError(
                f"network '{self.name}' generates square images; {data} holds {height}x{width}: "
                f"crop or pad it to one of the sizes {allowed}"
            )
        if height not in self.sizes:
            raise ConfigError(
                f"network '{self.name}' cannot generate {height}x{width} images ({data}); sizes: {allowed}"
            )

    def load(self) -> Build:
        """Import the module of ``build`` and return the function.

        Raises:
            PluginError: the module cannot be imported or has no such function.
        """
        module_name, _, function = self.build.partition(":")
        try:
            build: Build = getattr(importlib.import_module(module_name), function)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"network '{self.name}': cannot load '{self.build}': {error}") from error
        return build
