"""Device, number type and layout of a run, where the configuration leaves the choice to the machine."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gancore.errors import ConfigError, DeviceError
from gancore.sections import ComputeOptions

Precision = Literal["float32", "bf16", "float64"]
Layout = Literal["contiguous", "channels_last"]


@dataclass(frozen=True)
class Compute:
    """What a run computes on and in.

    Attributes:
        precision: of the networks; losses are float32 with ``"bf16"``. layout: of convolution weights.
    """

    device: torch.device
    precision: Precision
    layout: Layout

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters, images and losses."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def product_type(self) -> torch.dtype:
        """The type of the networks' matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else self.dtype


def choose(options: ComputeOptions, kind: Literal["image", "points"]) -> Compute:
    """Fill in what the configuration leaves open.

    ``auto`` is bf16 for images where the machine has units for it (:func:`has_fast_bf16`), else float32; and
    channels_last for images except in float64, which is for checks.

    Raises:
        ConfigError, DeviceError: as :func:`choose_device`.
    """
    device = choose_device(options.device)
    precision, layout = options.precision, options.memory_format
    if precision == "auto":
        precision = "bf16" if kind == "image" and has_fast_bf16(device) else "float32"
    if layout == "auto":
        layout = "channels_last" if kind == "image" and precision != "float64" else "contiguous"
    return Compute(device, precision, layout)


def choose_device(name: str) -> torch.device:
    """The device a configuration names.

    Raises:
        ConfigError: there is no such kind of device. DeviceError: it is not in this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"compute.device = {name!r}: expected auto, cpu, cuda or cuda:N") from None
    # torch keeps the index in a signed byte: cuda:999 becomes a device below 0.
    if device.type == "cuda" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device '{name}' was asked for; this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"compute.device = {name!r}: expected auto, cpu, cuda or cuda:N")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth it: tensor cores that take it (compute 8.0 and later), or a CPU with AMX.

    A CPU that has bf16 in its vector units alone was not measured.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return library and "amx_bf16" in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """What Linux says the CPU can do; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of the device's allocator, or the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
