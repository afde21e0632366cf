"""Entry point of ``gan``: a group whose commands are imported only when they are invoked.

``gan --help`` imports click and nothing heavier, so the one-line help of every command stands in ``COMMANDS``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from gancore import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("gancore.cli.train:train", "Train a generator; prints the path of its run folder."),
    "resume": ("gancore.cli.resume:resume", "Continue a run exactly where its last checkpoint left it."),
    "plan": ("gancore.cli.plan:plan", "Show what a run would compute and what a step costs; writes nothing."),
    "bench": ("gancore.cli.bench:bench", "Measure a step, the share of each plugin, the distance to the limits."),
    "sample": ("gancore.cli.sample:sample", "Images from a run: a grid, single files or a zip."),
    "interp": ("gancore.cli.interp:interp", "A walk between samples of a run: GIF, MP4 or a strip."),
    "eval": ("gancore.cli.eval:evaluate", "Measure a run or a folder of images; every score with its protocol."),
    "compare": ("gancore.cli.compare:compare", "Rank what was measured; refuses unlike protocols."),
    "ablate": ("gancore.cli.ablate:ablate", "Is it better: methods times seeds, differences with intervals."),
    "report": ("gancore.cli.report:report", "A run, or several compared, as one HTML file."),
    "watch": ("gancore.cli.watch:watch", "Follow a run in the terminal, or as a page on this machine."),
    "plugins": ("gancore.cli.plugins:plugins", "Methods and networks: what is installed, and what mixes."),
    "ops": ("gancore.cli.ops:ops", "Fused operations: what is built, and build it."),
    "doctor": ("gancore.cli.doctor:doctor", "Check this machine and installation."),
}


class SuggestingGroup(click.Group):
    """A group that names the nearest command in its error, on every version of click."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, after a look at the name."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from gancore.errors import nearest

            raise click.UsageError(f"no such command '{args[0]}'{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A group that knows its commands by name, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module that holds a command."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="GAN_DEBUG=1 shows the traceback of an error. Exit codes: 0 ok, 1 the answer is no, 2 usage or "
    "configuration, 3 plugin, 4 data, 5 diverged, 6 checkpoint, 7 device or memory, 8 run folder, "
    "75 saved after SIGTERM, 130 interrupted.",
)
@click.version_option(__version__, prog_name="gancore", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train GANs with methods that mix: every training method is a plugin."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run ``gan`` and exit with the documented code; every error becomes one message on stderr."""
    arguments = list(sys.argv[1:] if args is None else args)
    from gancore.cli.exits import BROKEN_PIPE, debugging, prepare_streams, report

    prepare_streams()
    debug = debugging(arguments)
    try:
        code = cli.main(args=arguments, prog_name="gan", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit:  # click leaves like this, and only when the reader of stdout went away
        code = BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        code = report(error, debug=debug)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
