"""``gan resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gancore.cli.follow import following
from gancore.cli.options import FLAGS, add_options, flag_option, flag_values, parse_overrides, set_option
from gancore.text import plural

RESUME_KEYS = ("train.steps", "output.snap", "output.max_hours", "compute.threads", "compute.device")
RESUME_FLAGS = tuple(flag for flag in FLAGS if flag.key in RESUME_KEYS)


def _resume_flags(function: Any) -> Any:
    return add_options(function, [*(flag_option(flag, as_saved=True) for flag in RESUME_FLAGS), set_option])


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@_resume_flags
@click.option("--allow-inexact", is_flag=True, help="Go on where the result would not be bit-equal.")
@click.option("--allow-drift", multiple=True, metavar="KEY", help="Accept that this key changed; repeatable.")
@click.option("--drop-plugin", multiple=True, metavar="NAME", help="Go on without this method; repeatable.")
def resume(
    run: Path,
    overrides: tuple[str, ...],
    allow_inexact: bool,
    allow_drift: tuple[str, ...],
    drop_plugin: tuple[str, ...],
    **given: Any,
) -> None:
    """Continue the run in the folder RUN from its newest whole checkpoint.

    The result is bit-equal to that of a run which was never interrupted. Where that cannot be, because the
    configuration, a plugin or the machine changed, resuming is refused, with everything that differs.
    """
    changes = {**flag_values(given, RESUME_FLAGS), **parse_overrides(overrides)}
    with following(resuming=True) as (reporter, follower):
        from gancore import run as library

        if not drop_plugin and set(changes) <= {"train.steps"}:
            finished = finished_at(run, changes.get("train.steps"))
            if finished is not None:
                reporter.close()
                reporter.say(
                    f"the run is complete ({plural(finished, 'step')}); to train on: "
                    f"gan resume {run} --steps {2 * finished}"
                )
                follower.path = run
                return
        library.resume(
            run,
            overrides=changes,
            allow_inexact=allow_inexact,
            allow_drift=allow_drift,
            drop_plugins=drop_plugin,
            report=follower.tick,
            data_progress=reporter.reading,
            started=follower.started,
        )
        follower.finished()


def finished_at(run: Path, steps: int | None) -> int | None:
    """The length of a run whose last checkpoint is whole and lies at its end, else None."""
    from gancore import checkpoint
    from gancore.config import file_values
    from gancore.errors import CheckpointError
    from gancore.run_folder import RunFolder

    folder = RunFolder.open(run)
    target = steps or file_values(folder.config).get("train.steps")
    saved = checkpoint.steps(folder.checkpoints)
    if not saved or saved[-1] != target:
        return None
    try:
        return checkpoint.load(folder.checkpoints, saved[-1]).step
    except CheckpointError:
        return None
