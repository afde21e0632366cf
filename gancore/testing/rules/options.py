"""The rule about options: valid, explained, unchanged by a trip through text, refused where they should be."""

from __future__ import annotations

import dataclasses
import inspect
import math
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gancore.config import file_values, parse_override, resolve
from gancore.errors import ConfigError, GancoreError
from gancore.options import Options, check_value, option_fields, option_types, resolve_options
from gancore.specs import Claims
from gancore.testing import tiny_config
from gancore.testing.bench import Bench
from gancore.testing.subject import Breach


def options_round_trip(bench: Bench) -> str | None:
    """Defaults are valid and explained; every option survives TOML and `-o` text; presets resolve; unknown names,
    values out of range, and a weight that is negative or NaN are refused."""
    cls, name = bench.spec.options, bench.name
    if not (inspect.isclass(cls) and issubclass(cls, Options) and _is_frozen(cls)):
        raise Breach(
            f"its options are {cls!r}",
            expected="a frozen dataclass derived from gancore.api.Options",
            fix="@dataclass(frozen=True, kw_only=True) class …(Options)",
        )
    fields, hints = option_fields(cls), option_types(cls)
    silent = [option for option, field in fields.items() if not field.metadata.get("help", "").strip()]
    if silent:
        raise Breach(
            f"no help for {', '.join(silent)}",
            expected="one sentence for every option, with the equation or the unit",
            fix='option(default, help="…")',
        )
    defaults = _resolved(bench, {}, "its defaults")
    for option, field in fields.items():
        try:
            check_value(getattr(defaults, option), hints[option], field, key=f"{name}.{option}")
        except ConfigError as error:
            raise Breach(
                f"the default is refused: {error}",
                expected="a default of the option's own type and within its own range",
                fix="change the default, the type or the range",
            ) from error
    presets: Mapping[str, Any] = getattr(cls, "presets", {})
    chosen = [_resolved(bench, {"preset": preset}, f"its preset '{preset}'") for preset in presets]
    _check_preset_names(hints, presets)
    for values in (defaults, *chosen, bench.options):
        _check_claims(bench, values)
    for values in (defaults, *chosen, bench.options):
        _check_writable(values, fields)
    _check_text(bench, [defaults, *chosen, bench.options])
    _check_file(bench)
    _check_refusals(bench, fields)
    return None


def _is_frozen(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _resolved(bench: Bench, given: Mapping[str, Any], what: str) -> Any:
    try:
        return resolve_options(bench.spec.options, given, where=f"{bench.name}.")[0]
    except Exception as error:
        raise Breach(
            f"{what} cannot be resolved: {type(error).__name__}: {error}",
            expected="valid options",
            fix="values within their ranges and types, that pass check()",
        ) from error


def _check_preset_names(hints: Mapping[str, Any], presets: Mapping[str, Any]) -> None:
    choices = typing.get_args(hints.get("preset"))
    if presets and choices and set(choices) != set(presets):
        raise Breach(
            f"the option 'preset' can be {', '.join(choices)}, and the presets are {', '.join(presets)}",
            expected="the same names",
            fix="preset: Literal[…] with the keys of presets",
        )


def _check_claims(bench: Bench, values: Any) -> None:
    try:
        claims: object = bench.spec.claims(values)
    except Exception as error:
        claims = error
    if not isinstance(claims, Claims):
        raise Breach(
            f"its claims for {values} are {claims!r}",
            expected="Claims",
            fix="claims(options) returns Claims for all options that are valid",
        )


def _check_writable(values: Any, fields: Mapping[str, object]) -> None:
    """TOML has no None, among other things."""
    for name in fields:
        try:
            _toml(getattr(values, name))
        except TypeError as error:
            raise Breach(
                f"{name} = {getattr(values, name)!r} cannot be written to config.toml: {error}",
                expected="numbers, booleans, text, and tuples of these",
                fix="say 'none' with a number that means nothing else, such as 0, or with a text; the help says "
                "what it means",
            ) from error


def _variants(cls: type, hints: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Other values of each option, whatever its range."""
    for name, field in option_fields(cls).items():
        hint, default = hints[name], field.default
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if choices:
            yield from ((name, choice) for choice in choices)
        elif hint is bool:
            yield from ((name, value) for value in (False, True))
        elif hint in (int, float) and not callable(default) and default is not dataclasses.MISSING:
            scale = hint(1) if hint is int else 0.1234567890123
            yield from ((name, hint(value)) for value in (default + scale, default - scale, default / 2))
            if hint is float:
                yield name, 1e-5


def _check_text(bench: Bench, kinds: list[Any]) -> None:
    """Each value, written as ``-o`` takes it, is read back as it was."""
    cls = bench.spec.options
    hints = option_types(cls)
    pairs = [(name, getattr(values, name)) for values in kinds for name in option_fields(cls)]
    for name, value in (*pairs, *_variants(cls, hints)):
        try:
            given = resolve_options(cls, {name: value}, where=f"{bench.name}.")[0]
        except ConfigError:
            continue  # out of range, or it does not fit with the defaults
        value = getattr(given, name)
        text = f"{bench.name}.{name}={_toml(value)}"
        key, parsed = parse_override(text)
        try:
            back = resolve_options(cls, {name: parsed}, where=f"{bench.name}.")[0]
            same = _equal(getattr(back, name), value)
            shown: object = getattr(back, name)
        except ConfigError as error:
            same, shown = False, error
        if key != f"{bench.name}.{name}" or not same:
            raise Breach(
                f"`-o {text}` gives {shown!r}",
                expected=f"{value!r}",
                fix="options of types that TOML has: numbers, booleans, text, and tuples of these; no conversion "
                "in __post_init__",
            )


def _check_file(bench: Bench) -> None:
    """The resolved configuration, written and read again, is the same one."""
    given = tiny_config(bench.plugins, bench.overrides)
    config = resolve(bench.registry, [("test", given)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(config.to_toml(), encoding="utf-8")
        again = resolve(bench.registry, [("file", file_values(path))])
    first, second = config.methods[bench.name], again.methods[bench.name]
    wrong = [
        name for name in option_fields(type(first)) if not _equal(getattr(first, name), getattr(second, name))
    ]
    if wrong:
        name = wrong[0]
        raise Breach(
            f"{bench.name}.{name} = {getattr(first, name)!r} comes back from config.toml as "
            f"{getattr(second, name)!r}",
            expected="the same value, or a resumed run would be another one",
            fix="options of types that TOML has; no conversion in __post_init__",
        )


def _check_refusals(bench: Bench, fields: Mapping[str, dataclasses.Field[Any]]) -> None:
    cls, name = bench.spec.options, bench.name
    option = next((f for f in fields if f != "weight"), "weight")
    misspelt = f"{option}x"
    while misspelt in fields:
        misspelt += "x"
    message = _refusal(cls, name, {misspelt: 1})
    if message is None or option not in message:
        raise Breach(
            f"the unknown option '{misspelt}' is answered with: {message or 'nothing'}",
            expected=f"a ConfigError that suggests '{option}'",
            fix="leave the resolution of options to gancore",
        )
    for value in (-1.0, math.nan, math.inf):
        if _refusal(cls, name, {"weight": value}) is None:
            raise Breach(
                f"weight = {value} is accepted",
                expected="a ConfigError: a weight is a finite number from 0 up",
                fix="do not declare 'weight' anew, or with minimum=0",
            )
    for key, field in fields.items():
        for bound, outside in (("minimum", -1), ("maximum", 1), ("above", 0), ("below", 0)):
            limit = field.metadata.get(bound)
            if limit is None:
                continue
            value = _like(field.default, limit + outside)
            if _refusal(cls, name, {key: value}) is None:
                raise Breach(
                    f"{key} = {value} is accepted, beyond {bound} = {limit}",
                    expected="a ConfigError that names the range",
                    fix="do not replace the range check of gancore",
                )


def _refusal(cls: type, name: str, given: Mapping[str, Any]) -> str | None:
    try:
        resolve_options(cls, given, where=f"{name}.")
    except GancoreError as error:
        return str(error)
    return None


def _like(default: Any, number: float) -> Any:
    """A number of the type of an option: integers stay integers, tuples are filled with it."""
    if isinstance(default, tuple):
        return tuple(_like(item, number) for item in default) or (number,)
    return int(number) if isinstance(default, int) else float(number)


def _toml(value: Any) -> str:
    import tomli_w

    return tomli_w.dumps({"value": list(value) if isinstance(value, tuple) else value}).partition("=")[2].strip()


def _equal(first: Any, second: Any) -> bool:
    return type(first) is type(second) and first == second
