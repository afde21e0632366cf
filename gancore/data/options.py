"""What to train on and how it is prepared. Importable without torch, numpy or pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancore.options import option

BUILT_IN = ("digits", "gaussians", "circles", "circles:concentric")
"""Sources that need no files."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data set and its preprocessing. ``open_dataset`` checks the values once more."""

    source: str = option(
        "digits",
        help="digits, gaussians, circles, circles:concentric, torchvision:NAME, or a folder or .zip.",
    )
    image_size: int = option(
        0,
        help="Side in pixels, a power of two from 16; 0 is the nearest to the typical image, at most 128.",
        minimum=0,
        maximum=1024,
    )
    channels: Literal["auto", "grey", "rgb"] = option(
        "auto", help="Colour channels; auto is rgb as soon as one image has colour."
    )
    conditional: bool = option(
        False, help="Use labels: sub-folders, dataset.json, or the labels that a built-in set comes with."
    )
    mirror: bool = option(False, help="Flip every image left to right with probability 1/2.")
    fit: Literal["crop", "pad", "stretch"] = option(
        "crop", help="To a square by cropping the centre, by padding with mid grey, or by stretching."
    )
    bad_files: Literal["stop", "skip", "quarantine"] = option(
        "stop", help="Unreadable images: stop, leave them out, or move them to the folder FOLDER-quarantine."
    )
    fraction: float = option(1.0, help="Use this first part of every class, in file order.", above=0, maximum=1)
    memory_gib: float = option(
        4.0,
        help="Sets up to this decoded size (GiB) stay in memory; larger ones are read on demand.",
        minimum=0,
    )
    held_out: str = option(
        "", help="A source that is never trained on, prepared like the set; for measures such as D's gap."
    )
    root: str = option("", help="Folder of torchvision sets; empty is a cache folder of the user.")
    download: bool = option(True, help="Download a torchvision set that is not in root yet.")
