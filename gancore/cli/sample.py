"""``gan sample``."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.run import Run

IMAGES, POINTS = 64, 2000
"""How many samples there are when nobody says."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--n", "count", type=click.IntRange(1), metavar="N", help="How many.  [default: 64, 2000 for points]"
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of the latents.  [default: 0]")
@click.option("--seeds", metavar="LIST", help="One sample a seed, such as 0-7 or 1,4,9.")
@click.option("--class", "label", metavar="CLASS", help="Name or index.  [default: the classes in turn]")
@click.option(
    "--trunc",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    metavar="FACTOR",
    help="Factor on the latents; below 1 is less varied and more typical.  [default: 1]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The grid.  [default: below RUN/samples]"
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
    chosen = parse_seeds(seeds) if seeds is not None else None
    with Reporter() as reporter:
        reporter.stage("sampling")
        from gancore import run as library

        loaded = library.load(run)
        points = len(_shape(loaded)) == 1
        if points and (each or archive):
            raise ConfigError("--each and --zip write images, and this run generates 2-D points: use --out")
        number = len(chosen) if chosen is not None else count or (POINTS if points else IMAGES)
        labels = _labels(loaded, number, label)
        images = _generate(loaded, number, chosen, seed or 0, label, labels, trunc, device)
        for note in loaded.notes:
            reporter.say(note)
        which = f"seeds-{seeds}" if chosen is not None else f"seed-{seed or 0}-n-{number}"
        names = [f"seed-{s:06d}" for s in chosen] if chosen is not None else _numbered(number)
        reporter.stage("writing")
        written: list[Path] = []
        if each is not None:
            written.append(_write_each(images, each, names))
        if archive is not None:
            written.append(_write_zip(images, archive, names, labels))
        if out is not None or not written:
            written.append(_write_grid(loaded, images, out or _default(loaded, which, label, trunc), points))
    for path in written:
        click.echo(path)


def parse_seeds(text: str) -> list[int]:
    """``"0-3,9"`` as ``[0, 1, 2, 3, 9]``."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise ConfigError(f"--seeds {text!r}: expected seeds such as 0-7 or 1,4,9")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))


def _generate(
    run: Run,
    number: int,
    seeds: list[int] | None,
    seed: int,
    label: str | None,
    labels: list[int] | None,
    trunc: float,
    device: str,
) -> Tensor:
    if seeds is None:
        return run.sample(number, seed=seed, label=label, truncation=trunc, device=device)
    import torch

    classes = labels if labels is not None else [None] * number
    pairs = zip(seeds, classes, strict=True)
    return torch.cat([run.sample(1, seed=s, label=c, truncation=trunc, device=device) for s, c in pairs])


def _labels(run: Run, number: int, label: str | None) -> list[int] | None:
    """The class of every sample; None for an unconditional run."""
    if label is not None:
        return [run.label_index(label)] * number
    return [index % run.num_classes for index in range(number)] if run.num_classes else None


def _shape(run: Run) -> tuple[int, ...]:
    return tuple(run.sample(1).shape[1:])


def _default(run: Run, which: str, label: str | None, trunc: float) -> Path:
    # Not "step-…": these names belong to the sheets of training.
    parts = [f"sample-{run.step:08d}", which]
    parts += [f"class-{label}"] if label is not None else []
    parts += [f"trunc-{trunc:g}"] if trunc != 1 else []
    return run.folder.samples / (re.sub(r"[^\w.,-]", "_", "-".join(parts))[:120] + ".png")


def _numbered(number: int) -> list[str]:
    return [f"{index:06d}" for index in range(number)]


def _write_grid(run: Run, images: Tensor, path: Path, points: bool) -> Path:
    from gancore import pictures

    sheet = pictures.scatter(images, _reference(run)) if points else pictures.grid(images)
    _make_folder(path.parent)
    pictures.save_png(sheet, path)
    return path


def _reference(run: Run) -> Any:
    """Points of the data, to draw the generated ones over."""
    import numpy as np

    from gancore.config import file_values
    from gancore.data import DataOptions, open_dataset
    from gancore.options import resolve_options

    given = {key[5:]: value for key, value in file_values(run.folder.config).items() if key[:5] == "data."}
    dataset = open_dataset(resolve_options(DataOptions, given, where="data.")[0])
    rows = dataset.read(np.arange(min(POINTS, len(dataset))))
    dataset.close()
    return rows


def _write_each(images: Tensor, folder: Path, names: list[str]) -> Path:
    from gancore import pictures

    _make_folder(folder)
    pictures.save_each(images, folder, names)
    return folder


def _write_zip(images: Tensor, path: Path, names: list[str], labels: list[int] | None) -> Path:
    """PNGs, and the classes in dataset.json, as ``gan train --data`` reads them; equal bytes for equal images."""
    from PIL import Image

    from gancore.atomic import write_atomic
    from gancore.pictures import to_uint8

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for tile, name in zip(to_uint8(images), names, strict=True):
            picture = io.BytesIO()
            Image.fromarray(tile if tile.shape[2] == 3 else tile[:, :, 0]).save(picture, format="PNG")
            file.writestr(zipfile.ZipInfo(f"{name}.png"), picture.getvalue())
        if labels is not None:
            pairs = [[f"{name}.png", label] for name, label in zip(names, labels, strict=True)]
            file.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": pairs}))
    _make_folder(path.parent)
    write_atomic(path, buffer.getvalue())
    return path


def _make_folder(folder: Path) -> None:
    from gancore.errors import RunFolderError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write '{folder}': {error.strerror}") from None
