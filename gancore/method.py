"""The base class of every method. Hooks are ordinary methods marked with ``@hookimpl``."""

from __future__ import annotations

import json
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


def method_state(method: Method) -> dict[str, Any]:
    """A copy of a method's :meth:`~Method.state_dict`, as JSON will hold it.

    Raises:
        PluginError: the method raised, or returned what JSON cannot hold.
    """
    try:
        state = method.state_dict()
        if any(not isinstance(key, str) for key in state):
            raise TypeError("keys must be strings")
        copied: dict[str, Any] = json.loads(json.dumps(state))
    except Exception as error:
        raise PluginError(
            f"plugin '{method.name}': state_dict must return plain numbers, strings and booleans by name "
            f"({type(error).__name__}: {error}); tensors belong into run.add_module"
        ) from error
    return copied


def load_method_state(method: Method, state: Mapping[str, Any]) -> None:
    """Hand a saved state back to a method that keeps one.

    Raises:
        PluginError: the method raised.
    """
    if not state and type(method).load_state_dict is Method.load_state_dict:
        return
    try:
        method.load_state_dict(state)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"plugin '{method.name}' raised in load_state_dict: {type(error).__name__}: {error}"
        ) from error


def merge_reads(*reads: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The union of several ``{view: outputs}`` maps."""
    merged: dict[str, tuple[str, ...]] = {}
    for part in reads:
        for view, outputs in part.items():
            merged[view] = tuple(dict.fromkeys((*merged.get(view, ()), *outputs)))
    return merged
