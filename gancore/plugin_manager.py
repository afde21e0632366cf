"""Discovery of plugins through entry points, and the per-run manager that holds only the methods a run names."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from gancore import hookspecs
from gancore.errors import ConfigError, PluginError, nearest
from gancore.method import Method
from gancore.networks.spec import NetworkSpec
from gancore.ops.library import OpLibrary
from gancore.sections import SECTIONS
from gancore.sinks import SinkSpec
from gancore.specs import MethodSpec

ENTRY_POINT_GROUP = "gancore.plugins"
RESERVED = frozenset({"plugins", "methods", "network", "optimizer", "origin", "versions", *SECTIONS})


@dataclass(frozen=True)
class Origin:
    """Where a method or network comes from."""

    distribution: str
    version: str


@dataclass
class Registry:
    """All methods, networks, operations and sinks that are installed, and the plugins that could not be loaded.

    ``broken`` maps an entry point's name to the reason.
    """

    methods: dict[str, MethodSpec] = field(default_factory=dict)
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    libraries: dict[str, OpLibrary] = field(default_factory=dict)
    sinks: dict[str, SinkSpec] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def method(self, name: str) -> MethodSpec:
        """The spec of a method, or :class:`PluginError` with the nearest name or the way to install it."""
        if name in self.methods:
            self.methods[name].check_api()
            return self.methods[name]
        if name in self.broken:
            raise PluginError(f"plugin '{name}' is installed but broken: {self.broken[name]}")
        hint = nearest(name, self.methods)
        raise PluginError(f"unknown plugin '{name}'{hint}; to install it: pip install gancore-{name}")

    def observes(self, name: str) -> bool:
        """Whether this is an installed method that only measures."""
        return name in self.methods and self.methods[name].observer

    def network(self, name: str) -> NetworkSpec:
        """The spec of a network, or :class:`PluginError` with the nearest name."""
        if name in self.networks:
            return self.networks[name]
        known = ", ".join(sorted(self.networks))
        raise PluginError(f"unknown network '{name}'{nearest(name, self.networks)}; networks: {known}")

    def sink(self, name: str) -> SinkSpec:
        """The spec of a sink, or :class:`ConfigError` with the nearest name."""
        if name in self.sinks:
            return self.sinks[name]
        known = ", ".join(sorted(self.sinks))
        raise ConfigError(f"output.sinks: unknown sink '{name}'{nearest(name, self.sinks)}; sinks: {known}")

    def register(self, module: Any, origin: Origin) -> None:
        """Call a plugin module's discovery hooks."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs.DiscoveryHooks)
        manager.register(module)
        manager.check_pending()
        manager.hook.register_methods(register=lambda spec: self._add(self.methods, spec, origin))
        manager.hook.register_networks(register=lambda spec: self._add(self.networks, spec, origin))
        manager.hook.register_ops(register=lambda library: self._add(self.libraries, library, origin))
        manager.hook.register_sinks(register=lambda spec: self._add(self.sinks, spec, origin))

    def _add(self, table: dict[str, Any], spec: Any, origin: Origin) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", spec.name):
            raise PluginError(
                f"'{origin.distribution}' registers the name {spec.name!r}; expected lower-case letters, "
                "digits, '-' and '_'"
            )
        if spec.name in RESERVED:
            raise PluginError(f"'{origin.distribution}' registers the name '{spec.name}', which is a section's")
        if spec.name in self.origins:
            raise PluginError(
                f"'{spec.name}' is registered by both '{self.origins[spec.name].distribution}' and "
                f"'{origin.distribution}'; uninstall one of them"
            )
        table[spec.name] = spec
        self.origins[spec.name] = origin


def discover(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Registry:
    """Everything installed. Entry points are loaded one by one; a broken one is recorded, never raised.

    Args:
        entry_points: for tests; by default those of the group ``gancore.plugins``.
    """
    from gancore import __version__, builtins

    registry = Registry()
    registry.register(builtins, Origin("gancore", __version__))
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    tables: list[dict[str, Any]] = [
        registry.methods,
        registry.networks,
        registry.libraries,
        registry.sinks,
        registry.origins,
    ]
    for entry_point in sorted(entry_points, key=lambda entry: entry.name):
        before = [dict(table) for table in tables]
        try:
            distribution = entry_point.dist
            origin = Origin(
                distribution.name if distribution else entry_point.name,
                distribution.version if distribution else "0",
            )
            registry.register(entry_point.load(), origin)
        except Exception as error:
            for table, held in zip(tables, before, strict=True):
                table.clear()
                table.update(held)
            registry.broken[entry_point.name] = f"{type(error).__name__}: {error}"
    return registry


@dataclass(frozen=True)
class HookCall:
    """One implementation of a hook."""

    method: str
    hook: str
    call: Callable[..., Any]


class RunManager:
    """The methods of one run.

    Args:
        methods: instances, in the order of ``-p``.

    Raises:
        PluginError: a misspelt hook, a wrapper on a training hook, arguments that a hook does not have.
    """

    def __init__(self, methods: Iterable[Method]) -> None:
        self.methods: dict[str, Method] = {method.name: method for method in methods}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs.RunHooks)
        for name, method in self.methods.items():
            _check_marked(method)
            _check_observer(method)
            try:
                self._manager.register(method, name=name)
                self._manager.check_pending()
            except pluggy.PluginValidationError as error:
                raise PluginError(f"plugin '{name}': {error}") from None
        self._calls = {hook: tuple(self._collect(hook)) for hook in hookspecs.TRAINING_HOOKS}

    def calls(self, hook: str) -> tuple[HookCall, ...]:
        """The implementations of a hook, sorted by method name; each takes the hook's arguments by name."""
        return self._calls[hook]

    def in_given_order(self, hook: str) -> tuple[HookCall, ...]:
        """The implementations of a hook in the order of ``-p``; for the augmentation chain."""
        order = list(self.methods)
        return tuple(sorted(self._calls[hook], key=lambda call: order.index(call.method)))

    def _collect(self, hook: str) -> list[HookCall]:
        calls = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(
                    f"plugin '{name}' wraps the training hook '{hook}'; wrappers could edit another method's "
                    "loss unseen, so they are refused"
                )
            calls.append(HookCall(name, hook, _bind(implementation.function, implementation.argnames)))
        return sorted(calls, key=lambda call: call.method)


def _check_marked(method: Method) -> None:
    for hook in hookspecs.TRAINING_HOOKS:
        function = getattr(type(method), hook, None)
        if callable(function) and not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(
                f"plugin '{method.name}' defines '{hook}' without @hookimpl, so it would never be called; mark "
                "it, or give it another name"
            )
    for name in dir(type(method)):
        if name not in hookspecs.TRAINING_HOOKS and hasattr(
            getattr(type(method), name), f"{hookspecs.PROJECT}_impl"
        ):
            raise PluginError(
                f"plugin '{method.name}' marks '{name}' with @hookimpl, and no hook has that name"
                f"{nearest(name, hookspecs.TRAINING_HOOKS)}; hooks: {', '.join(hookspecs.TRAINING_HOOKS)}"
            )


def _check_observer(method: Method) -> None:
    extra = [
        hook
        for hook in hookspecs.TRAINING_HOOKS
        if hook != "evaluate" and hasattr(getattr(type(method), hook, None), f"{hookspecs.PROJECT}_impl")
    ]
    if method.spec.observer and extra:
        raise PluginError(
            f"plugin '{method.name}' is an observer, and has the hook '{extra[0]}'; an observer has 'evaluate' "
            "alone: drop the hook, or observer=True"
        )


def _bind(function: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """``function`` called with those of the given keyword arguments that it takes."""
    wanted = tuple(names)

    def call(**available: Any) -> Any:
        return function(**{name: available[name] for name in wanted})

    return call


def build_methods(registry: Registry, options: Mapping[str, Any]) -> list[Method]:
    """Instances of the named methods, in order.

    Args:
        options: validated options by method name.
    """
    methods = []
    for name, chosen in options.items():
        spec = registry.method(name)
        loaded = spec.load()
        try:
            methods.append(loaded(spec, chosen))
        except Exception as error:
            raise PluginError(f"plugin '{name}' cannot be built: {type(error).__name__}: {error}") from error
    return methods
