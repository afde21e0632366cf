"""Options of plugins, networks and the core: frozen dataclasses whose fields carry help and range.

Authors write a plain dataclass::

    @dataclass(frozen=True, kw_only=True)
    class FeatureMixOptions(Options):
        alpha: float = option(1.0, help="Both parameters of the Beta distribution.", above=0)

and get parsing, validation, nearest-name errors, presets and a rendered table for it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from gancore.errors import ConfigError, nearest

T = TypeVar("T")


def option(
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with help and a range.

    Args:
        default: value when nobody sets it; a callable (``dict``, a dataclass) is used as a factory.
        help: one sentence; state the equation or the unit.
        minimum, maximum: closed bounds. ``above``, ``below``: open bounds.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "below": below}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of a method's options.

    ``presets`` maps a preset name to the values it sets. A class with presets declares a field ``preset``;
    a value that is given explicitly wins over the preset, the preset over the default.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    weight: float = option(
        1.0, help="Factor on every term of the method; 0 is the same as leaving it out.", minimum=0
    )

    def check(self) -> None:
        """Raise ``ValueError`` when values that are valid one by one do not fit together."""


def option_fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The settable fields of an options class, by name, in order of declaration."""
    return {field.name: field for field in dataclasses.fields(cls)}


_types_of: Callable[[Any], Mapping[str, Any]] = functools.cache(typing.get_type_hints)


def option_types(cls: type) -> Mapping[str, Any]:
    """The type of every option, by name."""
    return _types_of(cls)


def resolve_options(
    cls: type[T], given: Mapping[str, Any], *, where: str, defaults: Mapping[str, Any] | None = None
) -> tuple[T, dict[str, str]]:
    """Validate ``given`` and build ``cls``.

    Args:
        cls: a frozen dataclass.
        given: values by field name, as TOML delivers them.
        where: prefix of the keys in messages, such as ``"adaptivemix."``.
        defaults: values that replace the class's defaults and yield to presets and to ``given``.

    Returns:
        The options and, for each field, where its value came from: ``"given"``, ``"preset NAME"``,
        ``"network default"`` (from ``defaults``) or ``"default"``.

    Raises:
        ConfigError: an unknown name (the nearest one is offered), a wrong type, a value out of range.
    """
    fields = option_fields(cls)
    hints = option_types(cls)
    for name in given:
        if name not in fields:
            known = ", ".join(fields)
            raise ConfigError(f"unknown option '{where}{name}'{nearest(name, fields)}; options: {known}")
    layers: list[tuple[str, Mapping[str, Any]]] = [("network default", defaults or {})]
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "presets", {})
    if presets:
        chosen = given.get("preset", (defaults or {}).get("preset", fields["preset"].default))
        if not isinstance(chosen, str) or chosen not in presets:
            raise ConfigError(
                f"unknown preset {chosen!r} for '{where}preset'{nearest(str(chosen), presets)}; "
                f"presets: {', '.join(presets)}"
            )
        layers.append((f"preset {chosen}", presets[chosen]))
    layers.append(("given", given))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for origin, layer in layers:
        for name, value in layer.items():
            values[name] = check_value(value, hints[name], fields[name], key=f"{where}{name}")
            origins[name] = origin
    built = cls(**values)
    if isinstance(built, Options):
        try:
            built.check()
        except ValueError as error:
            raise ConfigError(f"options of '{where.rstrip('.')}' do not fit together: {error}") from None
    return built, origins


def check_value(value: Any, hint: Any, field: dataclasses.Field[Any], *, key: str) -> Any:
    """``value`` as type ``hint`` within the field's range, or :class:`ConfigError` naming ``key``."""
    import pydantic

    if isinstance(value, list):
        value = tuple(value)
    if value is None and field.default is not None:
        raise ConfigError(f"{key} = None: a configuration cannot keep None; leave it out, or give a value")
    try:
        checked = pydantic.TypeAdapter(hint).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"{key} = {value!r}: {reason[0].lower()}{reason[1:]}") from None
    for number in checked if isinstance(checked, tuple) else (checked,):
        if isinstance(number, int | float) and not isinstance(number, bool):
            _check_range(number, field.metadata, key)
    return checked


def _check_range(number: float, limits: Mapping[str, Any], key: str) -> None:
    if not math.isfinite(number):
        raise ConfigError(f"{key} = {number}: expected a finite number")
    comparisons = (
        ("minimum", ">=", operator.ge),
        ("maximum", "<=", operator.le),
        ("above", ">", operator.gt),
        ("below", "<", operator.lt),
    )
    for name, symbol, holds in comparisons:
        bound = limits.get(name)
        if bound is not None and not holds(number, bound):
            raise ConfigError(f"{key} = {number}: expected a value {symbol} {bound}")


def describe_options(cls: type) -> list[dict[str, Any]]:
    """One row an option: name, type, default, range, help. For ``gan plugins show`` and the docs."""
    hints = option_types(cls)
    rows = []
    for name, field in option_fields(cls).items():
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        rows.append(
            {
                "name": name,
                "type": _type_name(hints[name]),
                "default": default,
                "range": _range_text(field.metadata),
                "help": field.metadata.get("help", ""),
            }
        )
    return rows


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def _range_text(limits: Mapping[str, Any]) -> str:
    symbols = {"above": ">", "minimum": ">=", "below": "<", "maximum": "<="}
    parts = [f"{s} {limits[name]}" for name, s in symbols.items() if limits.get(name) is not None]
    return ", ".join(parts)
