"""``gan sample``."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.atomic import make_folder
from gancore.cli.console import Reporter
from gancore.cli.options import truncation_option
from gancore.cli.sample_files import (
    Sink,
    default_path,
    each_in,
    refuse_folder,
    refuse_huge_grid,
    require_writable,
    zip_at,
)
from gancore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.run import Run

IMAGES, POINTS = 64, 2000
"""How many samples there are when nobody says."""

MOST_SEEDS = 100_000

MOST_COLUMNS = 16
"""Classes that have a column each; of more, every tile has its class written below."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--n", "count", type=click.IntRange(1), metavar="N", help="How many.  [default: 64, 2000 for points]"
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of the latents.  [default: 0]")
@click.option("--seeds", metavar="LIST", help="One sample a seed, such as 0-7 or 1,4,9.")
@click.option(
    "--class",
    "label",
    metavar="CLASS",
    help="Name or index; several with commas, taken in turn.  [default: all classes in turn]",
)
@truncation_option
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Write class names, and the numbers of --seeds, on the grid.  [default: with several classes]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The grid, a PNG.  [default: below RUN/samples]",
)
@click.option("--each", type=click.Path(path_type=Path), metavar="DIR", help="One PNG a sample into this folder.")
@click.option(
    "--zip", "archive", type=click.Path(path_type=Path), metavar="FILE", help="One PNG a sample into a zip."
)
@click.option("--device", default="cpu", metavar="NAME", help="auto, cpu, cuda or cuda:N.  [default: cpu]")
def sample(
    run: Path,
    count: int | None,
    seed: int | None,
    seeds: str | None,
    label: str | None,
    trunc: float,
    labels: bool | None,
    out: Path | None,
    each: Path | None,
    archive: Path | None,
    device: str,
) -> None:
    """Images from the averaged generator of RUN; prints the path of what it wrote.

    A grid, unless only --each or --zip is asked for; a scatter picture for 2-D sets.
    """
    if seeds is not None and (seed is not None or count is not None):
        raise click.UsageError("--seeds gives one sample a seed; leave out --seed and --n")
    if labels is not None and out is None and (each or archive):
        raise click.UsageError(
            "--labels and --no-labels are for the grid, and none is written: give --out as well"
        )
    chosen = list(dict.fromkeys(parse_seeds(seeds))) if seeds is not None else None
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out '{out}': the grid is a PNG; end the name in .png")
    for path in (out, archive):
        if path is not None:
            refuse_folder(path)
            require_writable(path.parent)
    if each is not None:
        require_writable(each)
    with Reporter() as reporter:
        reporter.stage("sampling")
        import torch

        from gancore import pictures
        from gancore import run as library

        loaded = library.load(run)
        shape = _shape(loaded)
        points = len(shape) == 1
        if points and (each or archive or labels):
            raise ConfigError(
                "--each, --zip and --labels are for images, and this run generates 2-D points: use --out alone"
            )
        number = len(chosen) if chosen is not None else count or (POINTS if points else IMAGES)
        classes = parse_classes(loaded, label)
        grid = out is not None or not (each or archive)
        if grid and not points:
            refuse_huge_grid(number, *shape[1:])
        for note in loaded.notes:
            reporter.say(note)
        kept: list[Tensor] = []
        drawn = 0
        with contextlib.ExitStack() as stack:
            sinks: list[Sink] = [each_in(each)] if each is not None else []
            if archive is not None:
                sinks.append(stack.enter_context(zip_at(archive)))
            if grid:
                sinks.append(lambda images, names, labels: kept.append(images))
            for images in _batches(loaded, number, chosen, seed or 0, classes, trunc, device):
                batch = range(drawn, drawn + len(images))
                names = [f"{index:06d}" if chosen is None else f"seed-{chosen[index]:06d}" for index in batch]
                for sink in sinks:
                    sink(images, names, in_turn(classes, batch))
                drawn = batch.stop
                reporter.counting("sampling", drawn, number, "samples")
        written = [path for path in (each, archive) if path is not None]
        if grid:
            reporter.stage("writing")
            which = f"seeds-{seeds}" if chosen is not None else f"seed-{seed or 0}-n-{number}"
            path = out or default_path(loaded, f"sample-{loaded.step:08d}-{which}", label, trunc, ".png")
            samples = torch.cat(kept)
            if points:
                sheet = pictures.scatter(samples, reference(loaded))
            else:
                columns, titles, captions = _text(loaded, number, chosen, classes, labels)
                sheet = pictures.grid(samples, columns, titles=titles, captions=captions)
            make_folder(path.parent)
            pictures.save_png(sheet, path)
            written.append(path)
    for path in written:
        click.echo(path)


def parse_seeds(text: str) -> list[int]:
    """``"0-3,9"`` as ``[0, 1, 2, 3, 9]``.

    Raises:
        ConfigError: it is no such list, or one of more than :data:`MOST_SEEDS`.
    """
    ranges: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise ConfigError(f"--seeds {text!r}: expected seeds such as 0-7 or 1,4,9")
        ranges.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    number = sum(span.stop - span.start for span in ranges)
    if number > MOST_SEEDS:
        raise ConfigError(f"--seeds {text!r}: {number:,} seeds; expected at most {MOST_SEEDS:,}")
    return [seed for span in ranges for seed in span]


def parse_classes(run: Run, text: str | None) -> list[int] | None:
    """The classes that ``--class`` names, in order; all classes without it; None for an unconditional run.

    A class whose name has a comma is found by its whole name.

    Raises:
        ConfigError: a class that the run does not have.
    """
    if text is None:
        return list(range(run.num_classes)) or None
    if "," not in text or text in run.class_names:
        return [run.label_index(text)]
    return [run.label_index(part.strip()) for part in text.split(",")]


def in_turn(classes: list[int] | None, samples: Iterable[int]) -> list[int] | None:
    """The classes of the samples of these indices; None without classes."""
    return None if classes is None else [classes[index % len(classes)] for index in samples]


def _batches(
    run: Run,
    number: int,
    seeds: list[int] | None,
    seed: int,
    classes: list[int] | None,
    trunc: float,
    device: str,
) -> Iterator[Tensor]:
    from gancore.compute import choose_device
    from gancore.sampling import generate, in_batches

    where = choose_device(device)
    generator = run.generator.to(where)
    labels = in_turn(classes, range(number))
    if seeds is None:
        yield from in_batches(generator, number, seed, where, labels, trunc)
        return
    for s, label in zip(seeds, labels or [0] * number, strict=True):
        yield generate(generator, 1, s, where, [label], trunc)


def _text(
    run: Run, number: int, seeds: list[int] | None, classes: list[int] | None, wanted: bool | None
) -> tuple[int, list[str], list[str]]:
    """Columns of the grid, what stands above them, and what stands below each tile."""
    several = classes is not None and len(set(classes[:number])) > 1
    if not (several if wanted is None else wanted):
        return 0, [], []
    from gancore.pictures import class_titles

    short = seeds is not None and max(seeds) < 10_000
    numbers = [f"seed {seed}" if short else str(seed) for seed in seeds or ()]
    if classes is None:
        return 0, [], numbers or [str(index) for index in range(number)]
    columns = min(len(classes), number) if several else math.ceil(math.sqrt(number))
    if not several or columns <= MOST_COLUMNS:
        return columns, class_titles(run.class_names, in_turn(classes, range(columns)) or []), numbers
    names = class_titles(run.class_names, in_turn(classes, range(number)) or [])
    return 0, [], [f"{seed}: {name}" for seed, name in zip(seeds, names, strict=True)] if seeds else names


def _shape(run: Run) -> tuple[int, ...]:
    return tuple(run.sample(1).shape[1:])


def reference(run: Run) -> Any:
    """Points of the data, to draw the generated ones over: (N, 2)."""
    import numpy as np

    from gancore.config import file_values
    from gancore.data import DataOptions, open_dataset
    from gancore.options import resolve_options

    given = {key[5:]: value for key, value in file_values(run.folder.config).items() if key[:5] == "data."}
    dataset = open_dataset(resolve_options(DataOptions, given, where="data.")[0])
    rows = dataset.read(np.arange(min(POINTS, len(dataset))))
    dataset.close()
    return rows
