"""Sinks: where metrics and pictures of a run go beside its folder, such as TensorBoard.

Importing this module imports no torch. A run works without its sinks: one that fails in training gets nothing
more, and training goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gancore.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry


@dataclass(frozen=True)
class SinkRun:
    """What a sink is told of the run that it will hear of.

    Attributes:
        folder: the run folder; a sink keeps what it has to know again in files of its own there.
        step: where this session begins. What comes is later; what an earlier session sent of later steps is void.
        config: every value of the configuration by dotted key.
    """

    folder: Path
    step: int
    config: Mapping[str, Any]


class Sink(Protocol):
    """What a sink has to have. Any exception ends it for this session, and is shown once."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a line of metrics, each finite, by name."""

    def evaluation(
        self, step: int, values: Mapping[str, float], protocols: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Metrics by name, each with the protocol it was measured under."""

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """A picture as PNG: the sample sheet, ``"samples"``, or one of an evaluation."""

    def close(self) -> None:
        """The session ends, however it does."""


@dataclass(frozen=True)
class SinkSpec:
    """What is known of a sink before it is loaded.

    Attributes:
        name: as in ``output.sinks``. summary: one line.
        target: ``"module:callable"``; called with a :class:`SinkRun`, it returns a :class:`Sink`.
        requires: modules that have to be installed. install: what brings them, for pip.
    """

    name: str
    summary: str
    target: str
    requires: Sequence[str] = field(default=())
    install: str = ""

    def missing(self) -> list[str]:
        """Required modules that are not installed."""
        return [module for module in self.requires if not _is_installed(module)]

    def load(self) -> Callable[[SinkRun], Sink]:
        """Import what opens the sink.

        Raises:
            PluginError: it cannot be imported.
        """
        module, _, attribute = self.target.partition(":")
        try:
            found: Callable[[SinkRun], Sink] = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(f"sink '{self.name}' cannot be loaded: {type(error).__name__}: {error}") from error
        return found


def refuse_missing(registry: Registry, names: Sequence[str]) -> None:
    """Find out, before any data is read, that a sink cannot work.

    Raises:
        ConfigError: unknown, or something that it needs is not installed.
    """
    for name in names:
        spec = registry.sink(name)
        missing = spec.missing()
        if missing:
            raise ConfigError(
                f"sink '{name}' needs '{missing[0]}', which is not installed: pip install '{spec.install}', "
                f"or leave '{name}' out of output.sinks"
            )


class Sinks:
    """The sinks of a session.

    Args:
        registry: what is installed. names: of ``output.sinks``. run: what they are told.

    Raises:
        ConfigError: a sink is unknown or not installed, or refuses to open.
    """

    def __init__(self, registry: Registry, names: Sequence[str], run: SinkRun) -> None:
        self._open: dict[str, Sink] = {}
        self._failures: list[str] = []
        refuse_missing(registry, names)
        for name in dict.fromkeys(names):
            try:
                self._open[name] = registry.sink(name).load()(run)
            except Exception as error:
                self.close()
                raise ConfigError(
                    f"sink '{name}' cannot be opened: {type(error).__name__}: {error}; mend it, or leave "
                    f"'{name}' out of output.sinks"
                ) from error

    def row(self, row: Mapping[str, Any]) -> None:
        """A line of metrics, or of an evaluation with the pictures that it names."""
        if "metrics" in row:
            self._tell(row["step"], "evaluation", row["metrics"], row["protocols"])
        else:
            plain = {name: value for name, value in row.items() if name != "step" and _is_plain(value)}
            self._tell(row["step"], "scalars", plain)

    def picture(self, step: int, name: str, file: Path, caption: str = "") -> None:
        """A picture that was saved."""
        self._tell(step, "picture", name, file, caption)

    def failures(self) -> list[str]:
        """What went wrong since the last call, one line each."""
        said, self._failures = self._failures, []
        return said

    def close(self) -> None:
        """End all sinks; what goes wrong is kept for :meth:`failures`."""
        for name, sink in self._open.items():
            try:
                sink.close()
            except Exception as error:
                self._failures.append(f"sink '{name}' failed at its end: {type(error).__name__}: {error}")
        self._open = {}

    def _tell(self, step: int, what: str, *arguments: Any) -> None:
        for name, sink in list(self._open.items()):
            try:
                getattr(sink, what)(step, *arguments)
            except Exception as error:
                del self._open[name]
                self._failures.append(
                    f"sink '{name}' failed at step {step} and gets nothing more: {type(error).__name__}: {error}"
                )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def _is_plain(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
