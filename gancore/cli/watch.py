"""``gan watch``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gancore.cli.console import INTERVAL, Reporter

if TYPE_CHECKING:
    from gancore.report.reading import RunReader

POLL = 1.0
"""Seconds between looks at the folder."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--web", is_flag=True, help="Serve the report of the run on this machine, and keep it up to date.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port for --web.  [default: a free one]"
)
@click.option("--no-open", is_flag=True, help="With --web, open no browser.")
@click.option("--wait", is_flag=True, help="Wait until RUN exists and trains.")
def watch(run: Path, web: bool, port: int, no_open: bool, wait: bool) -> None:
    """Follow the run in the folder RUN while it trains; Ctrl-C leaves it alone.

    In a terminal: progress, curves, newest metrics and warnings, until the run ends; elsewhere plain lines.
    With --web a page on 127.0.0.1, whose address is printed, until Ctrl-C.
    """
    if not web and (port or no_open):
        raise click.UsageError("--port and --no-open belong to --web")
    try:
        if web:
            _serve(run, port, opening=not no_open, waiting=wait)
        else:
            _follow(run, waiting=wait)
    except KeyboardInterrupt:
        click.echo("no longer watching; the run is left alone", err=True)


def _follow(run: Path, *, waiting: bool) -> None:
    with Reporter() as reporter:
        reader = _reader(run, waiting, reporter)
    if not sys.stdout.isatty() or os.environ.get("TERM", "") == "dumb":
        _follow_in_lines(reader)
        return
    from rich.console import Console
    from rich.live import Live

    from gancore.cli.watch_view import view

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            record = reader.read()
            live.update(view(record, console.width, console.height), refresh=True)
            if record.state != "running":
                return
            time.sleep(POLL)


def _follow_in_lines(reader: RunReader) -> None:
    from gancore.cli.watch_view import Lines
    from gancore.report.sections import state_text

    lines = Lines()
    while True:
        record = reader.read()
        for line in lines.of(record):
            click.echo(line)
        if record.state != "running":
            click.echo(state_text(record))
            return
        time.sleep(INTERVAL)


def _serve(run: Path, port: int, *, opening: bool, waiting: bool) -> None:
    from gancore.report.page import require_extra

    require_extra()
    from gancore.report.server import LivePage, PageServer

    with Reporter() as reporter:
        _reader(run, waiting, reporter)
        with PageServer(LivePage(run), port) as server:
            reporter.close()
            click.echo(server.url)
            reporter.say(f"serving {run}; Ctrl-C ends this, and leaves the run alone")
            if opening and _has_display():
                import webbrowser

                webbrowser.open(server.url)
            server.serve_forever()


def _reader(run: Path, waiting: bool, reporter: Reporter) -> RunReader:
    """The run, once there is one that trains or has trained."""
    from gancore.errors import CheckpointError
    from gancore.report.reading import RunReader

    if waiting and not _begun(run):
        reporter.say(f"waiting for a run in {run}")
        reporter.stage("waiting")
        while not _begun(run):
            time.sleep(POLL)
    try:
        return RunReader(run)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; to wait for one: gan watch {run} --wait") from None


def _begun(run: Path) -> bool:
    from gancore.report.reading import RunReader

    return (run / "config.toml").is_file() and RunReader(run).read().state != "not started"


def _has_display() -> bool:
    """Whether a browser would open in a window; in a terminal it would hide what is printed here."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
