"""``gan interp``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gancore.atomic import make_folder
from gancore.cli.console import Reporter
from gancore.cli.options import truncation_option
from gancore.cli.sample import parse_classes, parse_seeds, reference
from gancore.cli.sample_files import default_path, refuse_folder, require_writable
from gancore.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from gancore.interpolation import Walk
    from gancore.run import Run

STOPS = 8
"""Seeds of a walk when nobody says; a tile of several gets half of them."""

POINTS = 1000
"""Points of a 2-D run that walk together."""

FRAMES, TILES = 24, 8
"""Pictures from one stop to the next when nobody says: of a moving picture, of a strip."""

FPS = 24.0
SLOWEST, FASTEST = 0.01, 240
"""Pictures a second: both formats can say the slowest."""

MOST_PICTURES, MOST_TILES = 20_000, 1024
"""Of a walk, which is kept in memory until it is written, and of a picture."""

KINDS = (".gif", ".mp4", ".png")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--seeds",
    metavar="LIST",
    help="The stops, such as 0-7 or 1,4,9,1; those of gan sample --seeds.  [default: 0-7; with --grid 4 a tile]",
)
@click.option(
    "--class",
    "label",
    metavar="CLASS",
    help="Name or index; several with commas, one a stop in turn.  [default: one class a tile]",
)
@truncation_option
@click.option(
    "--path",
    "way",
    type=click.Choice(["slerp", "lerp"]),
    default="slerp",
    help="Between latents: on the sphere, or straight through its less likely inside.  [default: slerp]",
)
@click.option("--loop/--no-loop", default=None, help="Go back to the first stop.  [default: on, off for a strip]")
@click.option(
    "--grid", metavar="RxC", help="So many walks in one picture; the seeds are shared out.  [default: 1x1]"
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    metavar="N",
    help="Pictures from one stop to the next.  [default: 24, 8 for a strip]",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, FASTEST, min_open=True),
    metavar="N",
    help="Pictures a second; a GIF shows at most 50.  [default: 24]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .gif, an .mp4 (needs gancore[video]) or a .png, a strip of tiles.  [default: a GIF in RUN/samples]",
)
@click.option("--device", default="cpu", metavar="NAME", help="auto, cpu, cuda or cuda:N.  [default: cpu]")
def interp(
    run: Path,
    seeds: str | None,
    label: str | None,
    trunc: float,
    way: str,
    loop: bool | None,
    grid: str | None,
    frames: int | None,
    fps: float | None,
    out: Path | None,
    device: str,
) -> None:
    """A walk from sample to sample of RUN's averaged generator; prints the path of what it wrote.

    It slows down at every stop, so that it is smooth, and ends where it began. Several classes are walked between
    as well, if the generator embeds them. Of a 2-D run, a whole cloud of points walks.

    \b
      gan interp RUN --seeds 0-7                             a loop past eight samples
      gan interp RUN --seeds 3 --class cat,dog --out a.mp4   one latent, from class to class and back
      gan interp RUN --grid 2x4 --frames 48                  eight slow walks side by side
      gan interp RUN --seeds 0-3 --out strip.png             for a page: one row from each stop to the next
    """
    kind = out.suffix.lower() if out is not None else ".gif"
    strip = kind == ".png"
    _refuse(out, kind, fps)
    rows, columns = parse_grid(grid)
    tiles = rows * columns
    chosen = seeds if seeds is not None else f"0-{(STOPS if tiles == 1 else tiles * STOPS // 2) - 1}"
    stops = parse_seeds(chosen)
    each = frames or (TILES if strip else FRAMES)
    _refuse_long(len(stops) // tiles, each)
    with Reporter() as reporter:
        reporter.stage("loading")
        from gancore import pictures, video
        from gancore import run as library
        from gancore.compute import choose_device
        from gancore.interpolation import WAYS, Walk, render

        loaded = library.load(run)
        points = len(loaded.sample(1).shape) == 2
        if points and (strip or tiles > 1):
            raise ConfigError(
                "this run generates 2-D points, whose walk is one scatter picture: no --grid, no .png"
            )
        latents, labels = _stops(loaded, stops, label, tiles, points)
        walk = Walk(
            latents * trunc,
            labels,
            each,
            closed=loop if loop is not None else not strip,
            way=WAYS[way],
            smooth=not strip,
        )
        for note in loaded.notes:
            reporter.say(note)
        if labels is not None and label is None and not points:
            held = [loaded.class_names[index] for index in dict.fromkeys(labels[0].tolist())]
            shown = ", ".join(held[:10]) + (", …" if len(held) > 10 else "")
            reporter.say(f"one class a tile: {shown}; --class names others, or several to walk between")
        name = f"interp-{loaded.step:08d}-seeds-{chosen}"
        name += f"-grid-{rows}x{columns}" if tiles > 1 else ""
        name += f"-{way}" if way != "slerp" else ""
        name += f"-frames-{frames}" if frames is not None else ""
        name += f"-fps-{fps:g}" if fps is not None else ""
        name += "-open" if loop is False and not strip else ""
        target = out or default_path(loaded, name, label, trunc, kind)
        make_folder(target.parent)
        where = choose_device(device)
        images = _counted(render(loaded.generator.to(where), walk, where), len(walk), reporter)
        if strip:
            pictures.save_png(_strip(list(images), walk), target)
        else:
            moving = _clouds(loaded, images) if points else _sheets(images, columns)
            if kind == ".gif":
                video.save_gif(moving, target, fps or FPS, repeat=walk.closed)
            else:
                video.save_mp4(moving, target, fps or FPS)
    click.echo(target)


def parse_grid(text: str | None) -> tuple[int, int]:
    """``"2x4"`` as (2, 4): rows and columns; (1, 1) without it.

    Raises:
        ConfigError: it is not two whole numbers of at least 1, or too many tiles.
    """
    match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text or "1x1")
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        raise ConfigError(f"--grid {text!r}: expected rows and columns, such as 2x4")
    rows, columns = int(match[1]), int(match[2])
    if rows * columns > MOST_TILES:
        raise ConfigError(f"--grid {text}: {rows * columns:,} tiles; expected at most {MOST_TILES:,}")
    return rows, columns


def _refuse(out: Path | None, kind: str, fps: float | None) -> None:
    """What can be told from the command line alone."""
    if out is not None:
        refuse_folder(out)
        require_writable(out.parent)
    if kind not in KINDS:
        raise ConfigError(f"--out '{out}': expected a name that ends in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if kind == ".png" and fps is not None:
        raise ConfigError("--fps is for a moving picture, and a .png is a strip of tiles: leave it out")
    if fps is not None and not SLOWEST <= fps <= FASTEST:  # click lets NaN pass
        raise ConfigError(f"--fps {fps:g}: expected a number from {SLOWEST} to {FASTEST}")
    from gancore import video

    if kind == ".gif" and fps is not None:
        video.refuse_fast_gif(fps)
    if kind == ".mp4":
        video.require_av()


def _refuse_long(stops: int, frames: int) -> None:
    if stops * frames > MOST_PICTURES:
        raise ConfigError(
            f"{stops:,} stops with {frames:,} pictures from one to the next are {stops * frames:,} pictures; "
            f"expected at most {MOST_PICTURES:,}: lower --frames, or give fewer --seeds"
        )


def _stops(
    run: Run, seeds: list[int], label: str | None, tiles: int, points: bool
) -> tuple[Tensor, Tensor | None]:
    """Latents (K, P, D) and classes (K, P) of K stops of P walkers: tiles, or points of a 2-D run.

    A walker's latent at a stop is that of ``gan sample``: the first sample of the seed, or all points of it.
    """
    import torch

    from gancore.interpolation import share_out
    from gancore.sampling import class_of, latent

    named = parse_classes(run, label) if label is not None else None
    parts = share_out(seeds, tiles, least=2 if named is None or len(named) < 2 else 1)
    number = max(len(parts[0]), len(named or ()))
    width = run.generator.latent_dim
    walkers = POINTS if points else tiles

    def at(stop: int, walker: int) -> Tensor:
        if points:
            return latent(width, parts[0][stop % len(parts[0])], walker)
        return latent(width, parts[walker][stop % len(parts[walker])], 0)

    latents = torch.stack(
        [torch.stack([at(stop, walker) for walker in range(walkers)]) for stop in range(number)]
    )
    if not run.num_classes:
        return latents, None
    if named is None:
        held = torch.tensor([class_of(walker, run.num_classes) for walker in range(walkers)])
        return latents, held.expand(number, walkers)
    turns = torch.tensor([named[stop % len(named)] for stop in range(number)])
    return latents, turns[:, None].expand(number, walkers)


def _counted(images: Iterator[Tensor], total: int, reporter: Reporter) -> Iterator[Tensor]:
    """The same pictures, and progress as they pass."""
    for done, image in enumerate(images, start=1):
        yield image
        reporter.counting("rendering", done, total, "pictures")


def _sheets(images: Iterator[Tensor], columns: int) -> Iterator[Image.Image]:
    from gancore import pictures

    for tiles in images:
        alone = len(tiles) == 1
        yield pictures.grid(tiles, columns, gap=0 if alone else 2, least_width=256 if alone else 512)


def _clouds(run: Run, images: Iterator[Tensor]) -> Iterator[Image.Image]:
    from gancore import pictures

    data = reference(run)
    for points in images:
        yield pictures.scatter(points, data)


def _strip(images: list[Tensor], walk: Walk) -> Image.Image:
    """A row of tiles from each stop to the next, both of them shown, for one walker after the other."""
    import torch

    from gancore import pictures

    starts = range(0, len(images) - (not walk.closed), walk.frames)
    rows = [[images[(start + k) % len(images)] for k in range(walk.frames + 1)] for start in starts]
    tiles = [image[walker] for walker in range(walk.latents.shape[1]) for row in rows for image in row]
    return pictures.grid(torch.stack(tiles), walk.frames + 1)
