"""Slow forms of the densities, and steps to look at."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def slow_ratio(point, own_row, real, fake, tau, *, own_side, divisor="rows") -> float:
    """log p^_r - log p^_g at one point, one kernel after the other."""
    values = {}
    for side, anchors in (("real", real), ("fake", fake)):
        total, rows = 0.0, 0
        for index, anchor in enumerate(anchors):
            if side == own_side and index == own_row:
                continue
            total += math.exp(sum(float(a) * float(b) for a, b in zip(anchor, point, strict=True)) / tau)
            rows += 1
        values[side] = math.log(total / (rows if divisor == "rows" else len(anchors)))
    return values["real"] - values["fake"]


def slow_ratios(real, fake, at_real, at_fake, tau, divisor="rows", memory=None):
    """At the first rows of both sides; ``memory`` are the real anchors, if given."""
    real, fake = (tensor.detach().double().numpy() for tensor in (real, fake))
    anchors = real if memory is None else memory.detach().double().numpy()
    more = {"divisor": divisor}
    return (
        np.array([slow_ratio(real[i], i, anchors, fake, tau, own_side="real", **more) for i in range(at_real)]),
        np.array([slow_ratio(fake[i], i, anchors, fake, tau, own_side="fake", **more) for i in range(at_fake)]),
    )


def slow_hinge(real, fake) -> float:
    return float(np.mean([max(0.0, 1 - r) for r in real]) + np.mean([max(0.0, 1 + r) for r in fake]))


def forwarded(session, phase="d"):
    """A step of a phase with all of its terms, and the sum of its loss."""
    trainer = session.trainer
    step = trainer.new_step(trainer.plan.full_program(phase), 0)
    return step, trainer.loss(step)


def unit_rows(features):
    """phi of phi_UN, row by row."""
    return torch.stack([row / row.square().sum().sqrt() for row in features.flatten(1)])


@pytest.fixture
def slow() -> SimpleNamespace:
    """The functions of this file, for tests."""
    return SimpleNamespace(
        ratio=slow_ratio, ratios=slow_ratios, hinge=slow_hinge, forwarded=forwarded, unit=unit_rows
    )
