"""What methods tell the user of the numbers of a run, each warning once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gancore.errors import PluginError
from gancore.plugin_manager import RunManager


class Advisor:
    """Asks the ``advise`` hooks after each tick.

    Args:
        manager: the methods of the run.
        rows: the run's lines of metrics so far; what was said there is not said again after a resume.
    """

    def __init__(self, manager: RunManager, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._manager = manager
        self._said = {(row["method"], row["name"]) for row in rows if row.get("event") == "warning"}

    def warnings(self, step: int, moments: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
        """New warnings as lines of metrics: ``step``, ``event``, ``method``, ``name``, ``what``.

        Args:
            moments: of the tick, by full name.

        Raises:
            PluginError: a method raised, or returned something else than texts by name.
        """
        found = []
        for call in self._manager.calls("advise"):
            prefix = f"{call.method}/"
            values = {n.removeprefix(prefix): m["mean"] for n, m in moments.items() if n.startswith(prefix)}
            where = f"plugin '{call.method}', hook 'advise' (step {step})"
            try:
                advice = call.call(values=values)
            except Exception as error:
                raise PluginError(f"{where} raised: {type(error).__name__}: {error}") from error
            if advice is None:
                continue
            if not isinstance(advice, Mapping) or any(not isinstance(text, str) for text in advice.values()):
                raise PluginError(f"{where} returned {advice!r}; expected texts by name, or None")
            for name, text in advice.items():
                if (call.method, name) not in self._said:
                    self._said.add((call.method, name))
                    found.append(
                        {"step": step, "event": "warning", "method": call.method, "name": name, "what": text}
                    )
        return found
