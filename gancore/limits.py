"""What a machine can do at best, and what a piece of work asks of it: products and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

RESERVED = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
SIDE = {"cpu": 2048, "cuda": 8192}
COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}
ROUNDS = 9


@dataclass(frozen=True)
class Limits:
    """Best of several tries.

    Attributes:
        products: floating-point operations a second of a large matrix product.
        bytes: read and written a second by a large copy.
    """

    products: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """Floating-point operations of matrix products and convolutions, bytes that operators read and write."""

    products: float
    bytes: float
    operators: int

    def seconds(self, limits: Limits) -> float:
        """Both at the machine's best, one after the other."""
        return self.products / limits.products + self.bytes / limits.bytes


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes, operators and floating-point operations of products of what runs inside.

    Every tensor that goes into or comes out of an operator counts; an expanded one as often as it is read, views
    and memory that is only reserved not at all.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.operators = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.overloadpacket in flop_registry:
            self.products += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        shares = bool(made) and all(tensor.untyped_storage().data_ptr() in places for tensor in made)
        is_view = shares and not func._schema.is_mutable
        if name not in RESERVED and not is_view:
            self.operators += 1
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made))
        return out


def work_of(call: Callable[[], object]) -> Work:
    """Run ``call`` once and count what it does."""
    with Traffic() as traffic:
        call()
    return Work(float(traffic.products), float(traffic.bytes), traffic.operators)


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Time a matrix product and a copy that are large enough for the device.

    Args:
        dtype: of the product.
    """
    side = SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=dtype)
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device)
    source.zero_()
    target = torch.empty_like(source)
    return Limits(
        2.0 * side**3 / best(lambda: torch.mm(left, right, out=product), device),
        2.0 * source.numel() / best(lambda: target.copy_(source), device),
    )


def best(call: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Fewest seconds of several calls, after one to warm up."""
    call()
    seconds = []
    for _ in range(rounds):
        began = now(device)
        call()
        seconds.append(now(device) - began)
    return min(seconds)


def now(device: torch.device) -> float:
    """Seconds of a clock, when all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
