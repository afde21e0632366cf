"""The options of ``gan ablate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from gancore.cli.options import FLAGS, add_options, flag_option, set_option
from gancore.errors import ConfigError
from gancore.sections import PRESETS

SEEDS = "3"
OWN = ("train.seed", "compute.threads", "output.max_hours")
"""Keys that the queue sets for its runs, or has a flag of its own for."""

TRAIN_FLAGS = tuple(flag for flag in FLAGS if flag.key not in OWN)


class Recording(click.Command):
    """A command that keeps its arguments as they were given, so that results can say how they came about."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)


def options(function: Any) -> Any:
    """The argument and the options of the command."""
    return add_options(
        function,
        [
            click.argument("source", required=False, metavar="[FILE.toml|DIR]", type=click.Path(path_type=Path)),
            click.option(
                "-p",
                "--plugin",
                "plugin",
                multiple=True,
                metavar="NAME",
                help="A method to compare with and without; or one that measures, such as fidelity. Repeatable.",
            ),
            click.option(
                "--always", multiple=True, metavar="NAME", help="A method that is in every arm; repeatable."
            ),
            click.option(
                "--subsets",
                type=click.Choice(["all", "each", "leave-one-out"]),
                help="Arms: every subset of the plugins; each alone; or all but one.  [default: all]",
            ),
            click.option(
                "--seeds",
                metavar="N|LIST",
                help=f"A number of seeds, or a list such as 0-4 or 1,7.  [default: {SEEDS}]",
            ),
            set_option,
            click.option(
                "--preset", metavar="NAME", default="", help=f"A bundle of settings: {', '.join(PRESETS)}."
            ),
            *(flag_option(flag) for flag in TRAIN_FLAGS),
            click.option("--kimg", type=float, metavar="N", help="Length in thousand images, not in --steps."),
            click.option(
                "--outdir",
                metavar="DIR",
                type=click.Path(path_type=Path),
                help="The folder of the ablation.  [default: ablations/, then its data, network and plugins]",
            ),
            click.option(
                "--jobs", type=click.IntRange(1), default=1, metavar="N", help="Runs side by side.  [default: 1]"
            ),
            click.option(
                "--devices", metavar="LIST", help="One run at a time on each of these, such as cuda:0,cuda:1."
            ),
            click.option(
                "--threads",
                type=click.IntRange(1, 1024),
                metavar="N",
                help="CPU threads of a run.  [default: torch's choice, or an equal share of the CPUs]",
            ),
            click.option(
                "--max-hours", type=click.FloatRange(0), default=0.0, help="Save and stop after so many hours."
            ),
            click.option(
                "--metric", "chosen", multiple=True, metavar="NAME", help="Show this metric alone; repeatable."
            ),
            click.option("--skip-conflicts", is_flag=True, help="Leave out arms whose plugins cannot be mixed."),
            click.option("--retry-failed", is_flag=True, help="Run jobs again that have failed."),
            click.option(
                "--allow-inexact", is_flag=True, help="Resume runs that were started on another machine."
            ),
            click.option("--dry-run", is_flag=True, help="Show the queue; train and write nothing."),
            click.option(
                "--no-run", is_flag=True, help="Show the results so far, and write table and page of them."
            ),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        ],
    )


def parse_seeds(given: object) -> list[int]:
    """A count, ``"5"`` or 5; a list, ``"0-4,9"`` or ``[0, 1]``.

    Raises:
        ConfigError: it is neither, names a seed twice, or more seeds than :data:`~gancore.cli.sample.MOST_SEEDS`.
    """
    from gancore.cli.sample import MOST_SEEDS
    from gancore.cli.sample import parse_seeds as parse_list

    counted = not isinstance(given, list)
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if isinstance(given, list):
        given = ",".join(map(str, given))
    if not isinstance(given, str):
        raise ConfigError(f"seeds = {given!r}: expected a count such as 5, or a list such as 0-4")
    if counted and re.fullmatch(r"\s*[0-9]+\s*", given):
        if len(given) > 9 or not 1 <= int(given) <= MOST_SEEDS:
            raise ConfigError(
                f"--seeds {given}: expected a count from 1 to {MOST_SEEDS:,}, or a list such as 0-4"
            )
        return list(range(int(given)))
    found = parse_list(given)
    if len(set(found)) < len(found):
        raise ConfigError(f"--seeds {given}: a seed stands there twice")
    return found
