"""Moments of logged values, accumulated on the device; read by the host once a tick.

Nothing here waits for the device inside a step, and memory does not grow with the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Telemetry:
    """Mean and spread of named scalars since the last flush, and whether any loss was not finite.

    Args:
        device: where the values live.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._index: dict[str, int] = {}
        self._sums = torch.zeros(0, 3, dtype=torch.float64, device=device)
        self._pending: dict[str, Tensor] = {}
        self._bad = torch.zeros((), dtype=torch.bool, device=device)

    def record(self, name: str, value: Tensor) -> None:
        """Remember a detached 0-d tensor until :meth:`commit`."""
        self._pending[name] = value

    def check_finite(self, loss: Tensor) -> None:
        """Note, on the device, whether a loss was infinite or NaN."""
        self._bad |= ~torch.isfinite(loss)

    def commit(self) -> None:
        """Add what was recorded in a phase to the moments."""
        if not self._pending:
            return
        names = list(self._pending)
        new = [name for name in names if name not in self._index]
        if new:
            for name in new:
                self._index[name] = len(self._index)
            grown = torch.zeros(len(self._index), 3, dtype=torch.float64, device=self._device)
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        values = torch.stack([self._pending[name].to(self._device, torch.float64) for name in names])
        rows = torch.stack([values, values.square(), torch.ones_like(values)], 1)
        order = [self._index[name] for name in names]
        if order == list(range(order[0], order[0] + len(order))):
            self._sums[order[0] : order[0] + len(order)] += rows  # a plain slice: the usual case
        else:
            self._sums.index_add_(0, torch.tensor(order, device=self._device), rows)
        self._pending.clear()

    def is_finite(self) -> bool:
        """Whether all losses so far were finite. Waits for the device."""
        return not bool(self._bad)

    def flush(self) -> dict[str, dict[str, float]]:
        """``{name: {mean, std, count}}`` since the last flush, sorted by name. Waits for the device."""
        table = self._sums.cpu().tolist()
        moments = {}
        for name in sorted(self._index):
            total, squares, count = table[self._index[name]]
            if count:
                mean = total / count
                variance = max(squares / count - mean * mean, 0.0) if math.isfinite(mean) else math.nan
                moments[name] = {"mean": mean, "std": math.sqrt(variance), "count": int(count)}
        self._sums.zero_()
        return moments

    def state(self) -> tuple[dict[str, int], Tensor]:
        """Names and moments, for a checkpoint in the middle of a tick."""
        return dict(self._index), self._sums.clone()

    def load_state(self, index: Mapping[str, int], sums: Tensor) -> None:
        """Restore what :meth:`state` returned."""
        self._index = dict(index)
        self._sums = sums.to(self._device, torch.float64).clone()
