"""The configuration of a run: defaults, network preferences, a TOML file, the command line; validated once.

Every value knows where it came from. Later layers win: default < network default < preset of a method <
file < command line.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gancore.data.options import DataOptions
from gancore.errors import ConfigError, nearest
from gancore.options import option, option_fields, resolve_options
from gancore.specs import OBJECTIVE, check_claims

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Section ``train``: the length, size and seed of a run."""

    steps: int = option(2000, help="Steps of the run; a step is one update of G.", minimum=1)
    batch: int = option(64, help="Images a batch.", minimum=1)
    n_critic: int = option(1, help="Updates of D a step.", minimum=1)
    seed: int = option(0, help="Seed of every random draw.", minimum=0)
    lazy: Literal["merge", "separate"] = option(
        "merge", help="Due lazy terms join the main phase, or get a phase and optimiser step of their own."
    )
    spectral_norm: Literal["per_phase", "per_view"] = option(
        "per_phase", help="One power iteration a phase, or one a view (views then run one by one)."
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Section ``compute``: where and how it is computed."""

    device: str = option("auto", help="auto, cpu, cuda or cuda:N.")
    precision: Literal["float32", "bf16", "float64"] = option(
        "float32", help="bf16 is autocast with float32 losses; float64 is for checks."
    )
    memory_format: Literal["contiguous", "channels_last"] = option(
        "contiguous", help="Layout of images and convolution weights."
    )
    threads: int = option(0, help="CPU threads; 0 leaves the choice to torch.", minimum=0)
    execution: Literal["concat", "sequential"] = option(
        "concat", help="Views of a group in one forward pass, or one by one; same result."
    )
    micro_batch_d: int = option(
        0, help="Most rows of D that keep activations at once; 0 for no limit.", minimum=0
    )
    micro_batch_g: int = option(
        0, help="Most rows of G that keep activations at once; 0 for no limit.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Sections ``optimizer.g`` and ``optimizer.d``."""

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = option("adam", help="The algorithm.")
    lr: float = option(2e-4, help="Learning rate.", above=0)
    betas: tuple[float, float] = option((0.5, 0.999), help="Adam's decay rates.", minimum=0, below=1)
    momentum: float = option(0.0, help="Momentum of rmsprop and sgd.", minimum=0, below=1)
    eps: float = option(1e-8, help="Added to the denominator by adam and rmsprop.", above=0)
    weight_decay: float = option(0.0, help="Weight decay.", minimum=0)
    clip_norm: float = option(0.0, help="Largest norm of the whole gradient; 0 for no clipping.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class EmaOptions:
    """Section ``ema``: the averaged generator that samples come from."""

    half_life_kimg: float = option(10.0, help="Half-life of the average, in thousand images.", minimum=0)
    ramp: float = option(
        0.05, help="The half-life is at most this share of the images seen; 0 for no ramp.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Section ``output``: what is written, and how often. None of it changes the training."""

    log_every: int = option(50, help="Steps a line of metrics.jsonl.", minimum=1)
    snap: int = option(500, help="Steps between checkpoints and sample grids.", minimum=1)
    keep: int = option(3, help="Checkpoints to keep.", minimum=2)
    keep_best: str = option("", help="Metric whose best (lowest) checkpoint is kept too; empty for none.")
    grid: int = option(64, help="Images in a sample grid.", minimum=1, maximum=1024)
    evaluate_every: int = option(0, help="Steps between evaluations; 0 for none.", minimum=0)
    max_hours: float = option(0.0, help="Save and stop after so many hours; 0 for no limit.", minimum=0)


SECTIONS: dict[str, type] = {
    "train": TrainOptions,
    "data": DataOptions,
    "compute": ComputeOptions,
    "optimizer.g": OptimizerOptions,
    "optimizer.d": OptimizerOptions,
    "ema": EmaOptions,
    "output": OutputOptions,
}
"""The fixed sections. ``network`` and one section a method are added by name."""

RESERVED = ("plugins", "network", "methods", "optimizer", *SECTIONS)

FREE_KEYS = ("train.steps", "output.", "compute.threads", "compute.device")
"""Keys that may change on resume without changing what a step computes (``train.steps`` by extending)."""


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
        """The resolved configuration with the origin of each value; ``extra`` tables come last."""
        import tomli_w

        document = {**self.nested(), "origin": dict(self.origins), **extra}
        return tomli_w.dumps(document)


Layer = tuple[str, Mapping[str, Any]]
"""An origin and dotted keys with values."""


def resolve(
    registry: Registry,
    layers: Iterable[Layer],
    *,
    preset: str = "",
) -> Config:
    """Validate layers of dotted keys, later ones first in authority.

    Args:
        registry: what is installed.
        layers: from weakest to strongest. A key starts with a section, ``network``, ``methods.NAME`` or,
            for short, the name of a named plugin.

    Raises:
        ConfigError: unknown key, wrong type or value. PluginError: unknown plugin, conflicting claims.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = [*_preset_layers(preset), *layers]
    named = _named_plugins(layers)
    for name in named:
        registry.method(name)
    plugins = list(named)
    for origin, layer in layers:
        for key, value in layer.items():
            if key == "plugins":
                continue
            full = _full_key(key, plugins, registry)
            merged[full] = value
            origins[full] = origin
    network_name = merged.pop("network.name", None) or _default_network(merged.get("data.source", "digits"))
    origins.setdefault("network.name", "default")
    if not isinstance(network_name, str):
        raise ConfigError(f"network.name = {network_name!r}: expected a name")
    spec = registry.network(network_name)
    defaults = {_full_key(key, plugins, registry): value for key, value in _network_defaults(spec).items()}
    methods, found = _resolve_methods(registry, plugins, merged)
    origins = {**found, **{k: v for k, v in origins.items() if k in found or not k.startswith("methods.")}}

    sections: dict[str, Any] = {}
    for prefix, cls in {**SECTIONS, "network": spec.options}.items():
        given, preferred = _below(merged, prefix), _below(defaults, prefix)
        if prefix == "train" and "kimg" in given:
            given = _steps_from_kimg(given, preferred)
        sections[prefix], where = resolve_options(cls, given, where=f"{prefix}.", defaults=preferred)
        for name, origin in where.items():
            key = f"{prefix}.{name}"
            origins[key] = origins.get(key, "command line") if origin == "given" else origin
    origins.pop("train.kimg", None)
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


def load_file(path: str | Path) -> Layer:
    """A TOML file as a layer. A resolved ``config.toml`` of a run can be given again."""
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
    for table in ("origin", "versions", "run"):
        document.pop(table, None)
    return (f"file {path.name}", flatten(document))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


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


def _named_plugins(layers: Iterable[Layer]) -> list[str]:
    """The strongest layer that names plugins decides; command-line plugins are added to a file's."""
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
    registry: Registry, plugins: list[str], merged: Mapping[str, Any]
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
    check_claims(claims)
    return methods, found


def _below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) + 1 :]: value for key, value in values.items() if key.startswith(f"{prefix}.")}


def _network_defaults(spec: Any) -> dict[str, Any]:
    return {f"train.{key}" if "." not in key else key: value for key, value in spec.defaults.items()}


def _default_network(source: object) -> str:
    return "mlp" if str(source).split(":")[0] in ("gaussians", "circles") else "dcgan"


def _steps_from_kimg(given: dict[str, Any], preferred: Mapping[str, Any]) -> dict[str, Any]:
    kimg = given.pop("kimg")
    if not isinstance(kimg, int | float) or kimg <= 0:
        raise ConfigError(f"train.kimg = {kimg!r}: expected a number above 0")
    batch = given.get("batch", preferred.get("batch", option_fields(TrainOptions)["batch"].default))
    return {**given, "steps": max(1, round(kimg * 1000 / batch))}


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "data.source": "digits",
        "network.name": "dcgan",
        "network.g_width": 32,
        "network.d_width": 32,
        "train.batch": 64,
    },
}
"""Named bundles of configuration for ``--preset``; anything given wins over them."""


def _preset_layers(preset: str) -> list[Layer]:
    if not preset:
        return []
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset '{preset}'{nearest(preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    return [(f"preset {preset}", PRESETS[preset])]


def drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ in a way that changes what a step computes."""
    keys = sorted(set(before) | set(now))
    return [
        key
        for key in keys
        if before.get(key) != now.get(key) and not any(key == free or key.startswith(free) for free in FREE_KEYS)
    ]


def replace(config: Config, **changes: Any) -> Config:
    """``config`` with whole sections replaced."""
    return dataclasses.replace(config, **changes)
