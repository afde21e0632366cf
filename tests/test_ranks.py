"""Gathering and summing over ranks: the identity on one, exact on several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gancore.ranks import gather, reduce_sum, world_size

RANKS = 3


def test_one_rank_is_the_identity() -> None:
    values = torch.randn(3, 2, requires_grad=True)
    assert world_size() == 1
    assert gather(values) is values
    assert torch.equal(reduce_sum(values), values)
    assert not reduce_sum(values).requires_grad


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


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_three_ranks(tmp_path: Path) -> None:
    mp.start_processes(work, args=(str(tmp_path),), nprocs=RANKS, start_method="spawn")
