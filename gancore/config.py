"""The configuration of a run: defaults, network preferences, a TOML file, the command line; validated once.

Every value knows where it came from. Later layers win: default < network default < preset of a method <
file < command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancore.data.options import BUILT_IN
from gancore.errors import ConfigError, nearest
from gancore.options import option_fields, resolve_options
from gancore.sections import (
    PRESETS,
    SECTIONS,
    ComputeOptions,
    DataOptions,
    EmaOptions,
    OptimizerOptions,
    OutputOptions,
    TrainOptions,
)
from gancore.specs import OBJECTIVE, check_claims

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry


@dataclass(frozen=True, kw_only=True)
class Config:
    """A validated configuration.

    Attributes:
        plugins: the named methods in order, the default objective included when none was named.
        network_name, network: the networks and their options.
        methods: options by method name, in the order of ``plugins``.
        origins: dotted key -> where its value came from.
    """

    train: TrainOptions
    data: DataOptions
    compute: ComputeOptions
    optimizers: dict[str, OptimizerOptions]
    ema: EmaOptions
    output: OutputOptions
    plugins: tuple[str, ...]
    network_name: str
    network: Any
    methods: dict[str, Any]
    origins: dict[str, str]

    def flat(self) -> dict[str, Any]:
        """Every value by dotted key, in the order of the sections."""
        values: dict[str, Any] = {"plugins": list(self.plugins), "network.name": self.network_name}
        sections: dict[str, Any] = {
            "train": self.train,
            "data": self.data,
            "network": self.network,
            "compute": self.compute,
            **{f"optimizer.{network}": self.optimizers[network] for network in ("g", "d")},
            "ema": self.ema,
            "output": self.output,
            **{f"methods.{name}": chosen for name, chosen in self.methods.items()},
        }
        for prefix, section in sections.items():
            for name in option_fields(type(section)):
                value = getattr(section, name)
                values[f"{prefix}.{name}"] = list(value) if isinstance(value, tuple) else value
        return values

    def nested(self) -> dict[str, Any]:
        """The same, nested as TOML tables."""
        tree: dict[str, Any] = {}
        for key, value in self.flat().items():
            *path, last = key.split(".")
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        return tree

    def to_toml(self, **extra: Mapping[str, Any]) -> str:
        """The resolved configuration with the origin of each value; ``extra`` tables come last.

        TOML has no None: such a value is left out, and reads as the option's default.
        """
        import tomli_w

        document = {**_without_none(self.nested()), "origin": dict(self.origins), **extra}
        return tomli_w.dumps(document)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


Layer = tuple[str, Mapping[str, Any]]
"""An origin and dotted keys with values."""


def resolve(
    registry: Registry,
    layers: Iterable[Layer],
    *,
    preset: str = "",
    check: bool = True,
) -> Config:
    """Validate layers of dotted keys, later ones first in authority.

    Args:
        registry: what is installed.
        layers: from weakest to strongest. A key starts with a section, ``network``, ``methods.NAME`` or,
            for short, the name of a named plugin.
        check: refuse methods that cannot share a run.

    Raises:
        ConfigError: unknown key, wrong type or value. PluginError: unknown plugin, conflicting claims.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = [*_preset_layers(preset), *layers]
    named = named_plugins(layers)
    for name in named:
        registry.method(name)
    plugins = list(named)
    for origin, layer in layers:
        for key, value in layer.items():
            if key == "plugins":
                continue
            full = _full_key(key, plugins, registry)
            other = _LENGTHS.get(full)
            if other is not None and other not in layer:  # a stronger layer replaces the length, however given
                merged.pop(other, None)
            if merged.get(full, value) != value:
                _supersede(full, merged, origins)
            merged[full] = value
            origins[full] = origin
    _make_absolute(merged)
    network_name = merged.pop("network.name", None) or _default_network(merged.get("data.source", "digits"))
    origins.setdefault("network.name", "default")
    if not isinstance(network_name, str):
        raise ConfigError(f"network.name = {network_name!r}: expected a name")
    spec = registry.network(network_name)
    defaults = {_full_key(key, plugins, registry): value for key, value in _network_defaults(spec).items()}
    methods, found = _resolve_methods(registry, plugins, merged, check)
    origins = {**found, **{k: v for k, v in origins.items() if k in found or not k.startswith("methods.")}}

    sections: dict[str, Any] = {}
    for prefix, cls in {**SECTIONS, "network": spec.options}.items():
        given, preferred = _below(merged, prefix), _below(defaults, prefix)
        if prefix == "train" and "kimg" in given:
            given = _steps_from_kimg(given, preferred)
            origins["train.steps"] = origins.pop("train.kimg")
        sections[prefix], where = resolve_options(cls, given, where=f"{prefix}.", defaults=preferred)
        for name, origin in where.items():
            key = f"{prefix}.{name}"
            origins[key] = origins.get(key, origin) if origin == "given" else origin
    for name in sections["output"].sinks:
        registry.sink(name)
    if sections["output"].keep_best and not sections["output"].evaluate_every:
        raise ConfigError("output.keep_best needs metrics: set output.evaluate_every (--eval-every) too")
    return Config(
        train=sections["train"],
        data=sections["data"],
        compute=sections["compute"],
        optimizers={"g": sections["optimizer.g"], "d": sections["optimizer.d"]},
        ema=sections["ema"],
        output=sections["output"],
        plugins=tuple(methods),
        network_name=network_name,
        network=sections["network"],
        methods=methods,
        origins=dict(sorted({**origins, "plugins": _plugins_origin(layers, named, methods)}.items())),
    )


def load_file(path: str | Path) -> list[Layer]:
    """A TOML file as layers.

    A resolved ``config.toml`` of a run can be given again: its values keep the origins it recorded, so that a
    preset or network named later still brings its own values.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration '{path}' is not UTF-8 text") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration '{path}' is not valid TOML: {error}") from None
    origins = document.pop("origin", {})
    if not isinstance(origins, dict):
        raise ConfigError(f"the configuration '{path}' has origin = {origins!r}; expected a table")
    document.pop("versions", None)
    layers: dict[str, dict[str, Any]] = {}
    for key, value in flatten(document).items():
        recorded = str(origins.get(key, ""))
        layers.setdefault(recorded if _is_weak(recorded) else f"file {path.name}", {})[key] = value
    return sorted(layers.items(), key=lambda layer: not _is_weak(layer[0]))


def _is_weak(origin: str) -> bool:
    """Whether a recorded value was nobody's wish: a default, or what a preset or network brought."""
    return origin in ("default", "network default") or origin.startswith("preset ")


def _supersede(key: str, merged: dict[str, Any], origins: dict[str, str]) -> None:
    """Forget what another preset, or another network, had brought."""
    if key.startswith("methods.") and key.endswith(".preset"):
        prefix, brought = key.removesuffix("preset"), _is_weak
    elif key == "network.name":
        prefix, brought = "", lambda origin: origin == "network default"
        for name in [name for name in merged if name.startswith("network.") and _is_weak(origins[name])]:
            del merged[name], origins[name]
    else:
        return
    for name in [name for name in merged if name.startswith(prefix) and brought(origins[name])]:
        del merged[name], origins[name]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def file_values(path: str | Path) -> dict[str, Any]:
    """All dotted keys of a TOML file, whatever their origin."""
    return {key: value for _, layer in load_file(path) for key, value in layer.items()}


def parse_override(text: str) -> tuple[str, Any]:
    """``"key=value"`` of ``-o``; the value is read as TOML and otherwise as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {text!r}: expected key=value, such as -o adaptivemix.alpha=0.5")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return key.strip(), parsed


def named_plugins(layers: Iterable[Layer]) -> list[str]:
    """Plugins of all layers in order: those of the command line are added to a file's."""
    named: list[str] = []
    for _, layer in layers:
        if "plugins" in layer:
            value = layer["plugins"]
            if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
                raise ConfigError(f"plugins = {value!r}: expected a list of names")
            for name in value:
                if name not in named:
                    named.append(name)
    return named


def _plugins_origin(layers: Iterable[Layer], named: list[str], methods: Mapping[str, Any]) -> str:
    origins = [origin for origin, layer in layers if layer.get("plugins")]
    if len(methods) > len(named):
        origins.append("default objective")
    return " + ".join(origins) or "default"


def _full_key(key: str, plugins: list[str], registry: Registry) -> str:
    first, _, rest = key.partition(".")
    if first in plugins and rest:
        return f"methods.{key}"
    if key in ("network", "data"):
        return f"{key}.name" if key == "network" else f"{key}.source"
    if first in ("network", "methods") and rest:
        if first == "methods" and "." not in rest:
            raise ConfigError(f"'{key}' names a method and no option of it; expected {key}.OPTION")
        if first == "methods" and rest.split(".")[0] not in plugins:
            name = rest.split(".")[0]
            raise ConfigError(f"'{key}' sets an option of '{name}', which the run does not name: add -p {name}")
        return key
    for section in SECTIONS:
        if key.startswith(f"{section}."):
            return key
    if first in registry.methods and rest:
        raise ConfigError(f"'{key}' sets an option of '{first}', which the run does not name: add -p {first}")
    candidates = [*SECTIONS, "network", *plugins]
    if not rest:
        candidates = [f"{s}.{name}" for s, cls in SECTIONS.items() for name in option_fields(cls)]
        near = next((c for c in candidates if c.endswith(f".{key}")), None)
        hint = f" (did you mean '{near}'?)" if near else nearest(key, candidates)
        raise ConfigError(f"unknown key '{key}'{hint}")
    raise ConfigError(f"unknown section '{first}' in '{key}'{nearest(first, candidates)}")


def _resolve_methods(
    registry: Registry, plugins: list[str], merged: Mapping[str, Any], check: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    from gancore.builtins import DEFAULT_OBJECTIVE

    def one(name: str) -> Any:
        given = _below(merged, f"methods.{name}")
        chosen, where = resolve_options(registry.method(name).options, given, where=f"{name}.")
        found.update({f"methods.{name}.{key}": origin for key, origin in where.items()})
        return chosen

    found: dict[str, str] = {}
    methods = {name: one(name) for name in plugins}
    claims = {name: registry.method(name).claims(chosen) for name, chosen in methods.items()}
    if not any(OBJECTIVE in claim.exclusive for claim in claims.values()):
        methods = {DEFAULT_OBJECTIVE: one(DEFAULT_OBJECTIVE), **methods}
        claims[DEFAULT_OBJECTIVE] = registry.method(DEFAULT_OBJECTIVE).claims(methods[DEFAULT_OBJECTIVE])
    if check:
        check_claims({name: claim for name, claim in claims.items() if methods[name].weight})
    return methods, found


def _below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) + 1 :]: value for key, value in values.items() if key.startswith(f"{prefix}.")}


def _network_defaults(spec: Any) -> dict[str, Any]:
    return {f"train.{key}" if "." not in key else key: value for key, value in spec.defaults.items()}


def _make_absolute(merged: dict[str, Any]) -> None:
    """A path is kept as an absolute one, so that a run resumes from any folder."""
    source = merged.get("data.source")
    if isinstance(source, str) and source not in ("", *BUILT_IN) and Path(source).expanduser().exists():
        merged["data.source"] = str(Path(source).expanduser().absolute())


def _default_network(source: object) -> str:
    return "mlp" if source in BUILT_IN and source != "digits" else "dcgan"


_LENGTHS = {"train.steps": "train.kimg", "train.kimg": "train.steps"}


def _steps_from_kimg(given: dict[str, Any], preferred: Mapping[str, Any]) -> dict[str, Any]:
    kimg = given.pop("kimg")
    if "steps" in given:
        raise ConfigError("train.steps and train.kimg are both given; they say the same thing: drop one")
    if not isinstance(kimg, int | float) or kimg <= 0:
        raise ConfigError(f"train.kimg = {kimg!r}: expected a number above 0")
    batch = given.get("batch", preferred.get("batch", option_fields(TrainOptions)["batch"].default))
    return {**given, "steps": max(1, round(kimg * 1000 / batch))}


def _preset_layers(preset: str) -> list[Layer]:
    if not preset:
        return []
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset '{preset}'{nearest(preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    return [(f"preset {preset}", PRESETS[preset])]
