"""The options that ``train`` and ``plan`` share, and the layers of configuration they become.

Type, range, choices and help of a flag are those of the configuration key that it sets.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from gancore.config import Layer, load_file, parse_override
from gancore.errors import ConfigError
from gancore.options import option_fields, option_types
from gancore.sections import PRESETS, SECTIONS

F = TypeVar("F", bound=Callable[..., Any])

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Flag:
    """A flag that stands for one configuration key."""

    name: str
    key: str
    metavar: str | None = None

    @property
    def parameter(self) -> str:
        """Its name as a Python argument."""
        return self.name.strip("-").replace("-", "_")


FLAGS = (
    Flag("--data", "data.source", "SOURCE"),
    Flag("--network", "network.name", "NAME"),
    Flag("--image-size", "data.image_size", "PIXELS"),
    Flag("--batch", "train.batch", "N"),
    Flag("--steps", "train.steps", "N"),
    Flag("--seed", "train.seed", "N"),
    Flag("--snap", "output.snap", "STEPS"),
    Flag("--mirror", "data.mirror"),
    Flag("--cond", "data.conditional"),
    Flag("--fit", "data.fit"),
    Flag("--bad-files", "data.bad_files"),
    Flag("--fraction", "data.fraction", "SHARE"),
    Flag("--device", "compute.device", "NAME"),
    Flag("--precision", "compute.precision"),
    Flag("--memory-format", "compute.memory_format"),
    Flag("--threads", "compute.threads", "N"),
    Flag("--max-hours", "output.max_hours", "HOURS"),
    Flag("--keep", "output.keep", "N"),
    Flag("--eval-every", "output.evaluate_every", "STEPS"),
)
"""Flags of ``train`` and ``plan``, in the order of ``--help``."""

_HELP = {"network.name": "Networks, see: gan plugins list.  [default: dcgan, mlp for 2-D sets]"}


def flag_option(flag: Flag, *, as_saved: bool = False) -> Callable[[F], F]:
    """A click option whose help, type and choices come from the configuration key.

    Args:
        as_saved: the default is what the run was started with.
    """
    if flag.key in _HELP:
        return click.option(flag.name, flag.parameter, metavar=flag.metavar, help=_HELP[flag.key])
    section, _, name = flag.key.rpartition(".")
    cls = SECTIONS[section]
    field = option_fields(cls)[name]
    hint = option_types(cls)[name]
    default = "as the run was started" if as_saved else _shown(field.default)
    text = f"{field.metadata['help']}  [default: {default}]"
    if hint is bool:
        declaration = f"{flag.name}/--no-{flag.name[2:]}"
        return click.option(declaration, flag.parameter, default=None, help=text)
    kind: Any = hint
    if typing.get_origin(hint) is typing.Literal:
        kind = click.Choice(list(typing.get_args(hint)))
    return click.option(flag.name, flag.parameter, type=kind, metavar=flag.metavar, help=text)


def _shown(default: object) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def add_options(function: F, options: Iterable[Callable[[F], F]]) -> F:
    """Decorate with several options, in the order given."""
    for option in reversed(tuple(options)):
        function = option(function)
    return function


def set_option(function: F) -> F:
    """``-o key=value``."""
    return click.option(
        "-o",
        "--option",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any key of the configuration, such as r1.gamma=1 or optimizer.d.lr=1e-4; repeatable.",
    )(function)


def refuse_infinite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A callback of options with a number: click lets infinity and NaN pass."""
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{parameter.opts[0]} {value}: expected a finite number")
    return value


def truncation_option(function: F) -> F:
    """``--trunc`` of the commands that show samples."""
    return click.option(
        "--trunc",
        type=click.FloatRange(0, min_open=True),
        callback=refuse_infinite,
        default=1.0,
        metavar="FACTOR",
        help="Factor on the latents; below 1 is less varied and more typical.  [default: 1]",
    )(function)


def config_options(function: F) -> F:
    """The arguments of ``train`` and ``plan``: ``[CONFIG.toml]``, the flags, ``-p``, ``-o``."""
    length = FLAGS[: _index("train.steps") + 1], FLAGS[_index("train.steps") + 1 :]
    return add_options(
        function,
        [
            click.argument("config", required=False, metavar="[CONFIG.toml]", type=click.Path()),
            click.option(
                "-p",
                "--plugin",
                "plugin",
                multiple=True,
                metavar="NAME",
                help="A method, see: gan plugins list; repeatable. The order is the order of augmentations.",
            ),
            set_option,
            click.option(
                "--preset", metavar="NAME", default="", help=f"A bundle of settings: {', '.join(PRESETS)}."
            ),
            *(flag_option(flag) for flag in length[0]),
            click.option("--kimg", type=float, metavar="N", help="Length in thousand images, not in --steps."),
            *(flag_option(flag) for flag in length[1]),
        ],
    )


def _index(key: str) -> int:
    return next(index for index, flag in enumerate(FLAGS) if flag.key == key)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """All ``-o`` as a layer; later ones win."""
    return dict(parse_override(text) for text in overrides)


def flag_values(given: Mapping[str, Any], flags: Iterable[Flag] = FLAGS) -> dict[str, Any]:
    """Configuration keys of the flags that were given; the others add nothing."""
    return {flag.key: given[flag.parameter] for flag in flags if given.get(flag.parameter) is not None}


def layers(config: str | None, plugin: tuple[str, ...], overrides: tuple[str, ...], **given: Any) -> list[Layer]:
    """What the command line says, weakest first: the file, the flags, ``-o``.

    Raises:
        ConfigError: an unreadable file, ``--steps`` together with ``--kimg``, an ``-o`` without a value.
    """
    if given.get("steps") is not None and given.get("kimg") is not None:
        raise ConfigError("--steps and --kimg are two ways to give the length; keep one of them")
    flags = flag_values(given)
    if given.get("kimg") is not None:
        flags["train.kimg"] = given["kimg"]
    if plugin:
        flags["plugins"] = list(plugin)
    found = load_file(config) if config else []
    found += [(COMMAND_LINE, flags), (COMMAND_LINE, parse_overrides(overrides))]
    return [layer for layer in found if layer[1]]
