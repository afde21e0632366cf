"""What each process of the test of ranks does; a new process finds it whatever else is called ``tests``."""

from __future__ import annotations

import torch
import torch.distributed as dist

from gancore.ranks import gather, reduce_sum

RANKS = 3


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    try:
        everyone = [torch.arange(4.0, dtype=torch.float64).reshape(2, 2) + 10 * r for r in range(RANKS)]
        weights = [torch.linspace(1, 2, 6, dtype=torch.float64)[:, None] * (r + 1) for r in range(RANKS)]
        values = everyone[rank].clone().requires_grad_()
        gathered = gather(values)
        assert torch.equal(gathered, torch.cat(everyone[rank:] + everyone[:rank]))
        (gathered * weights[rank]).sum().backward()
        # Rows of this rank lie at block (rank - r) mod RANKS of what rank r gathered.
        expected = sum(weights[r].chunk(RANKS)[(rank - r) % RANKS] for r in range(RANKS)).expand(2, 2)
        torch.testing.assert_close(values.grad, expected)
        assert torch.equal(reduce_sum(torch.tensor(float(rank))), torch.tensor(float(sum(range(RANKS)))))
    finally:
        dist.destroy_process_group()
