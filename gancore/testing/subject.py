"""Who is tested against the contract, and what a rule raises when it is broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gancore.errors import ConfigError

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry


@dataclass(frozen=True)
class Subject:
    """A method as the contract tests it.

    Args:
        name: of the method, as after ``-p``.
        options: dotted keys, ``"NAME.alpha"`` for its own, and any other key of a configuration.
        companions: methods that run with it. The default gives an objective to a method that has none; it steps
            back for an objective, and for a method that refuses it.
        network: an included or installed network; None takes the first that has what the method needs, with the
            data that goes with it.
        registry: methods that a test defines, see :func:`~gancore.testing.registry_with`; None takes what is
            installed.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    companions: tuple[str, ...] = ("hinge",)
    network: str | None = None
    registry: Registry | None = None

    def key(self) -> object:
        """What two subjects share that may use each other's runs."""
        options = tuple(sorted((key, repr(value)) for key, value in self.options.items()))
        # The bench of a subject holds its registry, so that the identity of a live one is not used again.
        return self.name, options, tuple(self.companions), self.network, id(self.registry)

    def circumstances(self) -> str:
        """Options and companions, for a message."""
        given = [f"{key}={value!r}" for key, value in self.options.items()]
        given += [f"with {name}" for name in self.companions if self.companions != ("hinge",)]
        given += [f"on {self.network}"] if self.network else []
        return f" ({', '.join(given)})" if given else ""


class UnfitSubject(ConfigError):
    """The method cannot be tested like this: the message names the companion or the network that is missing."""


class Breach(Exception):
    """What a rule raises; :func:`~gancore.testing.contract.check` adds the names of rule and plugin."""

    def __init__(self, found: str, *, expected: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.fix = fix
