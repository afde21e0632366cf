"""Moments against numpy; nothing grows; a NaN is remembered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gancore.telemetry import Telemetry


def test_moments_equal_numpys() -> None:
    telemetry = Telemetry(torch.device("cpu"))
    values = np.random.default_rng(0).normal(3, 2, size=(50, 3)).astype(np.float32)
    for index, (a, b, c) in enumerate(values):
        telemetry.record("a", torch.tensor(a))
        telemetry.record("b", torch.tensor(b))
        telemetry.commit()
        if index % 2:
            telemetry.record("b", torch.tensor(b))
            telemetry.record("c", torch.tensor(c))
            telemetry.commit()
    moments = telemetry.flush()
    expected = {
        "a": values[:, 0],
        "b": np.concatenate([values[:, 1], values[1::2, 1]]),
        "c": values[1::2, 2],
    }
    for name, drawn in expected.items():
        wide = drawn.astype(np.float64)
        assert moments[name]["count"] == len(drawn)
        assert moments[name]["mean"] == pytest.approx(wide.mean(), rel=1e-12)
        assert moments[name]["std"] == pytest.approx(wide.std(), rel=1e-9)
    assert telemetry.flush() == {}


def test_state_in_the_middle_of_a_tick() -> None:
    first, second = Telemetry(torch.device("cpu")), Telemetry(torch.device("cpu"))
    for telemetry in (first, second):
        telemetry.record("x", torch.tensor(1.0))
        telemetry.commit()
    third = Telemetry(torch.device("cpu"))
    third.load_state(*second.state())
    for telemetry in (first, third):
        telemetry.record("x", torch.tensor(4.0))
        telemetry.record("y", torch.tensor(2.0))
        telemetry.commit()
    assert first.flush() == third.flush()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_remembered_until_the_flush(bad: float) -> None:
    telemetry = Telemetry(torch.device("cpu"))
    for value in (1.0, bad, 1.0):
        telemetry.record("loss/d", torch.tensor(value))
        telemetry.commit()
    assert not telemetry.is_finite()
    telemetry.flush()
    assert telemetry.is_finite()
    telemetry.record("note", torch.tensor(bad))
    telemetry.commit()
    assert telemetry.is_finite()
