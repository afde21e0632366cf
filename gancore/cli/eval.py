"""``gan eval``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.cli.options import parse_overrides, refuse_infinite, set_option
from gancore.errors import ConfigError, RunFolderError
from gancore.text import facts, table

if TYPE_CHECKING:
    from gancore.evaluation import Evaluation

DATA = "data."


@click.command("eval")
@click.argument("target", metavar="RUN|DIR", type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME",
    help="A plugin that measures; repeatable.  [default: those that the run names, else all that are installed]",
)
@set_option
@click.option("--data", metavar="SOURCE", help="The reference.  [default: the set that the run was trained on]")
@click.option("--held-out", metavar="SOURCE", help="Data that D was not trained on.  [default: as the run says]")
@click.option("--step", type=click.IntRange(0), metavar="N", help="Checkpoint to measure.  [default: the newest]")
@click.option("--raw", is_flag=True, help="Measure the generator as it is trained, not its average.")
@click.option(
    "--trunc",
    type=click.FloatRange(0, min_open=True),
    callback=refuse_infinite,
    metavar="FACTOR",
    help="Factor on the latents.  [default: 1]",
)
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result as JSON, and its pictures beside it, in place of RUN/evaluations.jsonl.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    target: Path,
    plugins: tuple[str, ...],
    overrides: tuple[str, ...],
    data: str | None,
    held_out: str | None,
    step: int | None,
    raw: bool,
    trunc: float | None,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a run, or a folder or zip of generated images, against data.

    Every score is printed with the protocol it was measured under. Scores of a run are kept in its folder, for
    gan compare and gan report.

    \b
      gan eval runs/001-digits-dcgan-nonsaturating
      gan eval runs/001-digits-dcgan-nonsaturating --step 1000 --trunc 0.7
      gan eval ./generated --data ./photos --out scores.json
    """
    changes = parse_overrides(overrides)
    if out is not None:
        _refuse_out(out)
    is_run = (target / "config.toml").is_file()
    if not is_run:
        _refuse(target, data, {"--step": step, "--raw": raw or None, "--trunc": trunc, "--held-out": held_out})
    with Reporter() as reporter:
        reporter.stage("starting")
        from gancore.plugin_manager import discover

        registry = discover()
        from gancore import evaluation

        common: dict[str, Any] = {
            "plugins": plugins,
            "overrides": {key: value for key, value in changes.items() if not key.startswith(DATA)},
            "device": device,
            "progress": reporter.reading,
            "counting": reporter.counting,
        }
        given = {key.removeprefix(DATA): value for key, value in changes.items() if key.startswith(DATA)}
        if is_run:
            if given:
                raise ConfigError(
                    f"-o data.{next(iter(given))}: the reference is prepared as the run's own set was; choose it "
                    "with --data"
                )
            found = evaluation.evaluate_run(
                target,
                registry,
                step=step,
                averaged=not raw,
                truncation=1.0 if trunc is None else trunc,
                data=data or "",
                held_out=held_out or "",
                **common,
            )
        else:
            if "held_out" in given:
                raise ConfigError("-o data.held_out is for a run: what it is for looks at D; leave it out")
            options = _data_options({"source": data, **given})
            found = evaluation.evaluate_folder(str(target), registry, options, **common)
    try:  # kept first: whoever reads the output may have gone; shown in any case: the folder may be read-only
        if out is not None:
            _write(found, out)
        elif is_run:
            _keep(found, target)
    finally:
        click.echo(json.dumps(found.row(), indent=2) if as_json else "\n".join(as_text(target, found)))


def as_text(target: Path, found: Evaluation) -> list[str]:
    """A table of scores, then what they share of their protocols, then what is each one's own."""
    where = f" at step {found.step:,}, {found.images_seen:,} images seen" if found.images_seen else ""
    lines = [f"{target}{where}; reference: {found.data}", ""]
    rows = [(name, f"{score.value:.5g}", score.better or "-") for name, score in sorted(found.scores.items())]
    lines += [table(rows, ("METRIC", "VALUE", "BETTER")), ""]
    protocols = [dict(score.protocol) for score in found.scores.values()]
    shared = {
        key: value
        for key, value in (protocols[0] if protocols else {}).items()
        if all(protocol.get(key, _MISSING) == value for protocol in protocols)
    }
    if shared:
        lines.append(f"protocol: {facts(shared)}")
    for name, score in sorted(found.scores.items()):
        own = {key: value for key, value in score.protocol.items() if key not in shared}
        if own:
            lines.append(f"  {name}: {facts(own)}")
    return [*lines, *(f"note: {note}" for note in found.notes)]


_MISSING = object()


def _refuse(target: Path, data: str | None, flags: Mapping[str, object]) -> None:
    """What a folder of images, which has no generator and no D, cannot be asked."""
    if not target.exists():
        raise ConfigError(f"'{target}' not found: expected a run folder, or a folder or zip of generated images")
    for flag, value in flags.items():
        if value is not None:
            raise ConfigError(f"{flag} is for a run, and '{target}' holds no config.toml: leave it out")
    if data is None:
        raise ConfigError(
            f"'{target}' is no run (it holds no config.toml); to measure a folder of generated images, say what "
            "they are compared with: --data SOURCE"
        )


def _refuse_out(path: Path) -> None:
    """Find out before anything is measured that the result cannot be written."""
    if path.is_dir():
        raise ConfigError(
            f"--out {path} is a folder; expected the name of a file, such as {path / 'scores.json'}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: the folder '{path.parent}' is not there; make it, or choose another")
    if not os.access(path.parent, os.W_OK):
        raise RunFolderError(f"cannot write --out {path}: no rights to write in '{path.parent}'")


def _data_options(given: Mapping[str, Any]) -> Any:
    from gancore.data.options import DataOptions
    from gancore.options import resolve_options

    return resolve_options(DataOptions, given, where=DATA)[0]


def _keep(found: Evaluation, run: Path) -> None:
    from gancore.run_folder import RunFolder
    from gancore.training import keep_evaluation

    folder = RunFolder(run)
    folder.append_evaluation(keep_evaluation(folder, found, later=True))


def _write(found: Evaluation, path: Path) -> None:
    from gancore.atomic import write_atomic
    from gancore.pictures import save_png

    files = {}
    for name, (picture, _) in found.pictures.items():
        files[name] = f"{path.stem}-{name}.png"
        save_png(picture, path.with_name(files[name]))
    write_atomic(path, (json.dumps(found.row(files), indent=2) + "\n").encode())
