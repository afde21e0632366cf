"""``gan train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.follow import following
from gancore.cli.options import config_options, layers
from gancore.run_folder import RunFolder

if TYPE_CHECKING:
    from gancore.config import Config
    from gancore.plugin_manager import Registry


@click.command()
@config_options
@click.option(
    "--outdir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The run folder, new or empty.  [default: the next free one below runs/]",
)
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: JSON instead of TOML.")
def train(preset: str, outdir: Path | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Train a generator.

    CONFIG.toml holds the same keys as the config.toml of a run; flags win over it, and -o wins over flags.
    The last line on stdout is the path of the run folder.

    \b
      gan train                                  a small set of real digits, nothing to download
      gan train --data ./photos --mirror         your own folder of images
      gan train -p hinge -p r1 -o r1.every=16    other methods, together
    """
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    if dry_run:
        click.echo(describe_config(*resolve_config(preset, given), as_json=as_json), nl=False)
        return
    if outdir is not None:
        RunFolder.refuse_taken(outdir)
    config, registry = resolve_config(preset, given)
    with following() as (reporter, follower):
        from gancore import run  # imports torch, which takes seconds

        run.train(
            config,
            outdir=outdir,
            registry=registry,
            report=follower.tick,
            data_progress=reporter.reading,
            started=follower.started,
        )
        follower.finished()


def resolve_config(preset: str, given: dict[str, Any]) -> tuple[Config, Registry]:
    """The validated configuration of a command line. Imports no torch."""
    from gancore.config import resolve
    from gancore.plugin_manager import discover

    found = layers(**given)
    registry = discover()
    return resolve(registry, found, preset=preset), registry


def describe_config(config: Config, registry: Registry, *, as_json: bool) -> str:
    """The resolved configuration with origins and versions, as TOML (which ``gan train`` reads) or JSON."""
    from gancore import __version__

    names = sorted({*config.plugins, config.network_name})
    plugins = {
        name: {
            "distribution": registry.origins[name].distribution,
            "version": registry.origins[name].version,
        }
        for name in names
    }
    versions = {"gancore": __version__, "plugins": plugins}
    if as_json:
        document = {"config": config.nested(), "origin": config.origins, "versions": versions}
        return json.dumps(document, indent=2) + "\n"
    return config.to_toml(versions=versions)
