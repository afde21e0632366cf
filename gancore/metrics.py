"""What an ``evaluate`` hook receives, and how its results are gathered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gancore.data.dataset import Dataset
from gancore.errors import PluginError


@dataclass(frozen=True)
class Samples:
    """A source of generated samples and the data they are compared with.

    Attributes:
        generate: ``generate(count, seed) -> (count, C, H, W)`` in [-1, 1] or points, from the averaged
            generator; the same arguments give the same samples.
        dataset: the training set.
        step, images_seen: where in the run this is.
    """

    generate: Callable[[int, int], Tensor]
    dataset: Dataset
    step: int
    images_seen: int


def gather(results: Mapping[str, Mapping[str, float] | None]) -> dict[str, float]:
    """All metrics of all methods in one table.

    Raises:
        PluginError: two methods return one name, or a value is not a finite number.
    """
    owners: dict[str, str] = {}
    table: dict[str, float] = {}
    for method in sorted(results):
        returned = results[method]
        if returned is not None and not isinstance(returned, Mapping):
            raise PluginError(
                f"plugin '{method}' returned {type(returned).__name__} from evaluate; expected a dict"
            )
        for name, given in (returned or {}).items():
            value = _number(given)
            if name in owners:
                raise PluginError(f"metric '{name}' returned by both '{owners[name]}' and '{method}'")
            if not math.isfinite(value):
                raise PluginError(f"plugin '{method}' returned metric '{name}' = {given!r}; expected a number")
            owners[name] = method
            table[name] = value
    return table


def _number(given: object) -> float:
    """Any number as a float, a tensor or numpy scalar too; NaN for what is none."""
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
