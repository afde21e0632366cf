"""Gathering and summing over ranks: the identity on one, exact on several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ranks_for_tests import RANKS, work

from gancore.ranks import gather, reduce_sum, world_size


def test_one_rank_is_the_identity() -> None:
    values = torch.randn(3, 2, requires_grad=True)
    assert world_size() == 1
    assert gather(values) is values
    assert torch.equal(reduce_sum(values), values)
    assert not reduce_sum(values).requires_grad


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_three_ranks(tmp_path: Path) -> None:
    mp.start_processes(work, args=(str(tmp_path),), nprocs=RANKS, start_method="spawn")
