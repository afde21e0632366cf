"""``gan report``."""

from __future__ import annotations

from pathlib import Path

import click

from gancore.cli.console import Reporter


@click.command()
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The page.  [default: RUN/report.html]",
)
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """One HTML file that shows RUN, or compares several; prints its path.

    It holds its pictures and styles, and loads nothing: curves, samples over time, metrics with their
    protocols, step plan, cost, what happened, configuration, environment. A run may still be training.
    """
    if len(runs) > 1 and out is None:
        raise click.UsageError("several runs make one page: say where with --out FILE")
    with Reporter() as reporter:
        reporter.stage("reading")
        from gancore.report.page import require_extra

        require_extra()
        from gancore.report.build import check_count
        from gancore.report.build import report as build
        from gancore.report.reading import RunReader

        check_count(len(runs))
        path = out or runs[0] / "report.html"
        records = [RunReader(run).read() for run in dict.fromkeys(runs)]
        reporter.stage("drawing")
        page = build(records).encode()
        write(path, page)
        for record in records:
            for problem in record.problems:
                reporter.say(f"warning: {record.path}: {problem}")
    click.echo(path)


def write(path: Path, page: bytes) -> None:
    """Write a page whole or not at all; its folder is made.

    Raises:
        RunFolderError: no rights, disk full.
    """
    from gancore.atomic import write_atomic
    from gancore.errors import RunFolderError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write '{path}': {error.strerror}") from None
    write_atomic(path, page)
