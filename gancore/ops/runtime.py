"""Which fused libraries this process uses: loaded once, said once, never built here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gancore.errors import DeviceError
from gancore.ops import library as files
from gancore.ops.library import DEVICES, Device, OpLibrary

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Types that every fused operation takes; other tensors take the reference path."""

LARGEST = 2**31 - 1
"""Elements of a tensor beyond which the reference path is taken."""


@dataclass(frozen=True)
class State:
    """Of a library on a device: the key of the file in use, or why there is none."""

    key: str = ""
    why: str = ""


_libraries: dict[str, OpLibrary] = {}
_states: dict[tuple[str, Device], State] = {}
_mode: str | None = None
_record: dict[str, State] | None = None


def define(
    library: OpLibrary,
    schema: str,
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register an operation with torch: its schema, shapes without data, and gradient.

    The kernels are in the built files. For double backward, ``backward`` calls operations that have a gradient
    themselves.

    Args:
        schema: ``"name(Tensor x, int n) -> Tensor"``, torch's own notation.
        fake, backward, setup_context: as for :func:`torch.library.register_fake` and ``register_autograd``.

    Returns:
        The operation, as ``torch.ops.LIBRARY.name``.
    """
    name, _, rest = schema.partition("(")
    qualified = f"{library.name}::{name}"
    _libraries[library.name] = library
    torch.library.define(qualified, f"({rest}")
    torch.library.register_fake(qualified, fake)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context)
    operation: Callable[..., Any] = getattr(getattr(torch.ops, library.name), name).default
    return operation


def ready(library: OpLibrary, *tensors: Tensor) -> bool:
    """Whether the fused path can be taken for these tensors: all on one device, of one type, not too large.

    Loads the built file at the first call.

    Raises:
        DeviceError: ``GAN_FUSED=require``, and the library is not built for the device or cannot be loaded.
    """
    first = tensors[0]
    device = first.device.type
    if device not in DEVICES or first.dtype not in TYPES:
        return False
    if any(t.device != first.device or t.dtype != first.dtype or t.numel() > LARGEST for t in tensors):
        return False
    return usable(library, device)


def usable(library: OpLibrary, device: Device) -> bool:
    """Whether a library's fused operations are used on a device."""
    if torch.compiler.is_compiling():
        return _usable_in_a_trace(library.name, device, _mode)
    return _usable(library, device, _mode)


def _usable(library: OpLibrary, device: Device, mode: str | None) -> bool:
    mode = mode or files.mode()
    if mode == "off":
        known = State(why="are off (GAN_FUSED=off)")
    else:
        known = _states.get((library.name, device)) or _load(library, device)
        _states[library.name, device] = known
    if _record is not None and library.sources(device):
        _record[f"{library.name} on {device}"] = known
    if mode == "require" and not known.key and library.sources(device):
        raise DeviceError(f"GAN_FUSED=require: operations '{library.name}' for {device} {known.why}")
    return bool(known.key)


def _usable_in_a_trace(name: str, device: Device, mode: str | None) -> bool:
    """The same for torch.compile, which calls it once, takes the answer as a constant, and so may load a file."""
    return _usable(_libraries[name], device, mode)


# What torch.compiler.assume_constant_result does, without its import of torch._dynamo, which takes seconds.
_usable_in_a_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]


def look_again(library: OpLibrary, device: Device) -> None:
    """Forget that a library was found missing; one that is loaded stays."""
    known = _states.get((library.name, device))
    if known is not None and not known.key:
        del _states[library.name, device]


@contextlib.contextmanager
def recording() -> Iterator[dict[str, State]]:
    """The libraries that are asked for in this block: ``"NAME on DEVICE"`` -> what is used, or why not."""
    global _record
    before, _record = _record, {}
    try:
        yield _record
    finally:
        _record = before


@contextlib.contextmanager
def using(mode: str) -> Iterator[None]:
    """For a while, another value of ``GAN_FUSED``; for tests and comparisons."""
    global _mode
    if mode not in files.MODES:
        raise ValueError(f"mode = {mode!r}; expected one of {files.MODES}")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def _load(library: OpLibrary, device: Device) -> State:
    if not library.sources(device):
        return State()
    path = library.path(device)  # reads all sources, for their digest
    if not path.is_file():
        return State(why="are not built for this torch and these sources; build them: gan ops build")
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        cause = str(error).splitlines()[0]
        return State(why=f"cannot be loaded ({cause}); build them anew: gan ops build --force")
    return State(key=path.stem.rpartition("-")[2])
