"""The base class of every method. Hooks are ordinary methods marked with ``@hookimpl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gancore.errors import PluginError
from gancore.specs import MethodSpec

if TYPE_CHECKING:
    from torch import Tensor


class LossTerms(dict[str, "Tensor"]):
    """Named raw terms of one method in one phase; 0-d tensors, before any weight."""

    def __init__(self, method: str, terms: Mapping[str, Tensor]) -> None:
        super().__init__(terms)
        self.method = method


class Method:
    """A training method: hooks around pure functions.

    Attributes:
        spec: what it said of itself at registration.
        options: its validated options.
    """

    def __init__(self, spec: MethodSpec, options: Any) -> None:
        self.spec = spec
        self.options = options

    @property
    def name(self) -> str:
        """The name that the user writes after ``-p``."""
        return self.spec.name

    def terms(self, **terms: Tensor) -> LossTerms:
        """The return value of a loss hook: raw terms by declared name."""
        return LossTerms(self.name, terms)

    def state_dict(self) -> dict[str, int | float | str | bool]:
        """Plain counters to save beside the modules; tensors belong into ``run.add_module``."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        if state:
            raise PluginError(
                f"checkpoint holds state {sorted(state)} for '{self.name}', which has no load_state_dict"
            )


def merge_reads(*reads: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The union of several ``{view: outputs}`` maps."""
    merged: dict[str, tuple[str, ...]] = {}
    for part in reads:
        for view, outputs in part.items():
            merged[view] = tuple(dict.fromkeys((*merged.get(view, ()), *outputs)))
    return merged
