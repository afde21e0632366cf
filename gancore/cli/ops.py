"""``gan ops list`` and ``build``. Neither imports torch."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.cli.exits import NO
from gancore.cli.main import SuggestingGroup
from gancore.errors import ConfigError, GancoreError, nearest
from gancore.ops.library import DEVICES, Device, cache, mode
from gancore.text import plural, table

if TYPE_CHECKING:
    from gancore.ops.library import OpLibrary

_names = click.argument("names", nargs=-1, metavar="[NAME]...")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def ops() -> None:
    """Fused operations: C++ and CUDA for what plugins compute, beside the reference in plain torch."""


@ops.command("list")
@_names
@_json_option
def list_ops(names: tuple[str, ...], as_json: bool) -> None:
    """Every library of operations, and for which devices it is built."""
    chosen = _libraries(names)
    rows = [describe(library) for library in chosen]
    if as_json:
        click.echo(json.dumps({"mode": mode(), "folder": str(cache()), "libraries": rows}, indent=2))
        return
    lines = [(row["name"], *(row["built"][device] for device in DEVICES)) for row in rows]
    click.echo(table(lines, ("LIBRARY", *(device.upper() for device in DEVICES))))
    for row in rows:
        for name, summary in row["ops"].items():
            click.echo(f"{row['name']}.{name}: {summary}")
    click.echo(f"GAN_FUSED={mode()}; built files are in {cache()}")


@ops.command()
@_names
@click.option(
    "--device",
    type=click.Choice(["auto", *DEVICES]),
    default="auto",
    help="auto: cpu, and cuda on a machine with a GPU.",
)
@click.option("--force", is_flag=True, help="Build what is built already.")
def build(names: tuple[str, ...], device: str, force: bool) -> None:
    """Compile the operations of NAME..., or of everything installed, once a machine.

    Exit code 0: all are built; 1: some could not be, with the cause.
    """
    chosen = _libraries(names)
    failed = False
    with Reporter() as reporter, ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for its compiler
        work = [(library, target) for target in _devices(device) for library in chosen if library.sources(target)]
        reporter.stage(f"building {plural(len(work), 'file')}")
        for built, text in pool.map(lambda each: _build(each[0], each[1], force), work):
            reporter.say(text)
            failed = failed or not built
    if failed:
        raise click.exceptions.Exit(NO)


def describe(library: OpLibrary) -> dict[str, Any]:
    """A library: its operations, and for each device ``"built"``, ``"not built"`` or ``"-"`` (no sources)."""
    state = {
        device: "built" if library.built(device) else "not built" if library.sources(device) else "-"
        for device in DEVICES
    }
    return {"name": library.name, "package": library.package, "ops": dict(library.ops), "built": state}


def _build(library: OpLibrary, device: Device, force: bool) -> tuple[bool, str]:
    """Whether it is there now, and what to say of it."""
    from gancore.ops import build as builder

    if library.built(device) and not force:
        return True, f"{library.name} for {device}: built already"
    began = time.monotonic()
    try:
        path = builder.build(library, device, force=force)
    except GancoreError as error:
        return False, f"{library.name} for {device}: not built: {error}"
    return True, f"{library.name} for {device}: built in {time.monotonic() - began:.0f} s: {path}"


def _devices(chosen: str) -> tuple[Device, ...]:
    if chosen != "auto":
        return tuple(device for device in DEVICES if device == chosen)
    has_gpu = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    return DEVICES if has_gpu else ("cpu",)


def _libraries(names: tuple[str, ...]) -> list[OpLibrary]:
    from gancore import plugin_manager

    found = plugin_manager.discover().libraries
    for name in names:
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise ConfigError(f"no operations '{name}'{nearest(name, found)}; libraries: {known}")
    return [found[name] for name in sorted(names or found)]
