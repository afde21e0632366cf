"""Moments of logged values, accumulated on the device; read by the host once a tick.

Nothing here waits for the device inside a step, and memory does not grow with the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Telemetry:
    """Mean and spread of named scalars since the last flush.

    Args:
        device: where the values live.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._index: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._sums = torch.zeros(2, 0, dtype=torch.float64, device=device)
        self._pending: dict[str, Tensor] = {}
        self._layouts: dict[tuple[str, ...], slice | Tensor] = {}

    def record(self, name: str, value: Tensor) -> None:
        """Remember a detached 0-d tensor until :meth:`commit`."""
        self._pending[name] = value

    def peek(self) -> dict[str, Tensor]:
        """What waits for :meth:`commit`."""
        return dict(self._pending)

    def take(self) -> dict[str, Tensor]:
        """What waits for :meth:`commit`, which will not see it."""
        taken, self._pending = self._pending, {}
        return taken

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Remember several values until :meth:`commit`."""
        self._pending.update(values)

    def commit(self) -> None:
        """Add what was recorded in a phase to the moments."""
        if not self._pending:
            return
        names = tuple(self._pending)
        place = self._layouts.get(names)
        if place is None:
            place = self._layouts[names] = self._place(names)
        values = torch.stack(list(self._pending.values())).double()
        both = torch.stack((values, values.square()))
        if isinstance(place, slice):
            self._sums[:, place] += both
        else:
            self._sums.index_add_(1, place, both)
        for name in names:
            self._counts[name] += 1
        self._pending.clear()

    def is_finite(self) -> bool:
        """Whether all losses since the last flush were finite; a NaN stays in a sum. Waits for the device."""
        losses = [place for name, place in self._index.items() if name.startswith("loss/")]
        return bool(torch.isfinite(self._sums[:, losses]).all())

    def flush(self) -> dict[str, dict[str, float]]:
        """``{name: {mean, std, count}}`` since the last flush, sorted by name. Waits for the device."""
        totals, squares = self._sums.cpu().tolist()
        moments = {}
        for name in sorted(self._index):
            count, place = self._counts[name], self._index[name]
            if count:
                mean = totals[place] / count
                variance = max(squares[place] / count - mean * mean, 0.0) if math.isfinite(mean) else math.nan
                moments[name] = {"mean": mean, "std": math.sqrt(variance), "count": count}
                self._counts[name] = 0
        self._sums.zero_()
        return moments

    def state(self) -> tuple[dict[str, list[int]], Tensor]:
        """Place and count by name, and the sums, for a checkpoint in the middle of a tick."""
        return {name: [place, self._counts[name]] for name, place in self._index.items()}, self._sums.clone()

    def load_state(self, index: Mapping[str, list[int]], sums: Tensor) -> None:
        """Restore what :meth:`state` returned."""
        self._index = {name: place for name, (place, _) in index.items()}
        self._counts = {name: count for name, (_, count) in index.items()}
        self._sums = sums.to(self._device, torch.float64).clone()
        self._layouts.clear()

    def _place(self, names: tuple[str, ...]) -> slice | Tensor:
        """Where these names lie in the sums; a plain slice when they are neighbours, as they usually are."""
        for name in names:
            if name not in self._index:
                self._index[name] = len(self._index)
                self._counts[name] = 0
        missing = len(self._index) - self._sums.shape[1]
        if missing:
            room = torch.zeros(2, missing, dtype=torch.float64, device=self._device)
            self._sums = torch.cat((self._sums, room), 1)
        order = [self._index[name] for name in names]
        if order == list(range(order[0], order[0] + len(order))):
            return slice(order[0], order[0] + len(order))
        return torch.tensor(order, device=self._device)
