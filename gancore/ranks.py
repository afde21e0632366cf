"""Values of all ranks, where training runs on several devices; the identity where it runs on one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes that train together; 1 outside of a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(values: Tensor) -> Tensor:
    """Rows of all ranks, this rank's own first, then those of the ranks after it in a circle.

    Args:
        values: (B, …), of the same shape on every rank.

    Returns:
        (ranks * B, …). The gradient of a row reaches the rank that it came from, summed over the ranks that used
        it. ``values`` itself on one rank.
    """
    return values if world_size() == 1 else _Gather.apply(values)


@torch.no_grad()
def reduce_sum(values: Tensor) -> Tensor:
    """The sum over all ranks, detached; a new tensor, or ``values`` detached on one rank."""
    if world_size() == 1:
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        own = values.contiguous()
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        rank = dist.get_rank()
        return torch.cat(parts[rank:] + parts[:rank])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        ranks, rank = dist.get_world_size(), dist.get_rank()
        # In the order of ranks before the sum, so that each rank's part lies at the same place everywhere.
        parts = gradient.chunk(ranks)
        ordered = torch.stack(parts[ranks - rank :] + parts[: ranks - rank])
        dist.all_reduce(ordered)
        return ordered[rank]
