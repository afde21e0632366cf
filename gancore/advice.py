"""What methods tell the user of the numbers of a run, each warning once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gancore.attribution import CORE
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

    def warnings(
        self, step: int, moments: Mapping[str, Mapping[str, float]], own: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """New warnings as lines of metrics: ``step``, ``event``, ``method``, ``name``, ``what``.

        Args:
            moments: of the tick, by full name.
            own: what the core has to say.

        Raises:
            PluginError: a method raised, or returned something else than texts by name.
        """
        found = [self._line(step, CORE, text, text) for text in own if self._is_new(CORE, text)]
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
            found += [
                self._line(step, call.method, name, text)
                for name, text in advice.items()
                if self._is_new(call.method, name)
            ]
        return found

    def _is_new(self, method: str, name: str) -> bool:
        new = (method, name) not in self._said
        self._said.add((method, name))
        return new

    @staticmethod
    def _line(step: int, method: str, name: str, text: str) -> dict[str, Any]:
        return {"step": step, "event": "warning", "method": method, "name": name, "what": text}
