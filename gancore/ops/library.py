"""A library of fused operations: which sources, and where its built file lies. No torch here."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gancore.errors import ConfigError, PluginError, nearest

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

MODES = ("auto", "off", "require")
"""Values of ``GAN_FUSED``: what is built, nothing, or everything that a run could use, else an error."""

STABLE_ABI = "0x020b000000000000"
"""Torch's stable ABI as of 2.11, the oldest torch that gancore runs on."""

COMMON = Path(__file__).parent / "csrc"
"""Headers that every library may include as ``<gancore/…>``."""


@dataclass(frozen=True, kw_only=True)
class OpLibrary:
    """Operations that are built into one file a device.

    Args:
        name: namespace of the operations in ``torch.ops``, and name of the built file; by custom the package's.
        package: import name of the package that holds the sources.
        cpu: C++ sources, relative to the package. cuda: sources for nvcc and for the C++ compiler (by suffix).
        ops: operation -> one sentence, for ``gan ops list``.
    """

    name: str
    package: str
    cpu: tuple[str, ...] = ("csrc/cpu.cpp",)
    cuda: tuple[str, ...] = ()
    ops: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the package lies; it is found, not imported.

        Raises:
            PluginError: it is not installed.
        """
        try:
            found = importlib.util.find_spec(self.package)
        except ModuleNotFoundError:
            found = None
        if found is None or not found.submodule_search_locations:
            raise PluginError(f"operations '{self.name}': package '{self.package}' is not installed")
        return Path(next(iter(found.submodule_search_locations)))

    def sources(self, device: Device) -> tuple[Path, ...]:
        """The files to compile; empty when the library has no path for the device."""
        return tuple(self.folder / name for name in (self.cpu if device == "cpu" else self.cuda))

    def key(self, device: Device) -> str:
        """Of everything that decides what is built: sources and headers, torch, kind of processor, flags."""
        digest = hashlib.sha256()
        folders = dict.fromkeys(path.parent for path in self.sources(device))
        places = [COMMON / "gancore", *folders]
        headers = (path for folder in places for path in sorted(folder.glob("**/*.*h")))  # .h, .cuh
        files = [*self.sources(device), *headers]
        for path in files:
            try:
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
            except OSError as error:
                raise PluginError(
                    f"operations '{self.name}': source {path} cannot be read ({error.strerror}); reinstall "
                    f"'{self.package}'"
                ) from None
        system = (device, STABLE_ABI, sys.platform, platform.machine(), _torch_version(), *_flags(device))
        digest.update("\0".join(system).encode())
        return digest.hexdigest()[:16]

    def path(self, device: Device) -> Path:
        """Where the built file belongs: a place for every state of the sources, so that no stale one is found."""
        return cache() / f"{self.name}-{device}-{self.key(device)}.so"

    def built(self, device: Device) -> bool:
        """Whether there is something to build for a device, and it is built."""
        return bool(self.sources(device)) and self.path(device).is_file()


def cache() -> Path:
    """The folder of built files: ``GAN_OPS_DIR``, else ``gancore/ops`` in the user's cache folder."""
    chosen = os.environ.get("GAN_OPS_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gancore" / "ops"


def mode() -> str:
    """The value of ``GAN_FUSED``.

    Raises:
        ConfigError: it is none of :data:`MODES`.
    """
    chosen = os.environ.get("GAN_FUSED", "") or "auto"
    if chosen not in MODES:
        raise ConfigError(f"GAN_FUSED = {chosen!r}{nearest(chosen, MODES)}; expected {', '.join(MODES)}")
    return chosen


@functools.cache
def _torch_version() -> str:
    return importlib.metadata.version("torch")


def _flags(device: Device) -> tuple[str, ...]:
    from gancore.ops.build import ARCHITECTURES, CPU_FLAGS, CUDA_FLAGS

    return CPU_FLAGS if device == "cpu" else (*CUDA_FLAGS, *ARCHITECTURES)
