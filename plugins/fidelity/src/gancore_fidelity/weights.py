"""Published weights of backbones: where they are looked for, how they are fetched, and that they are the ones.

A file is read into memory once, and its SHA-256 compared with the published one before anything else looks at it.
What is then parsed are the bytes in memory, so that a file cannot be exchanged in between.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gancore.api import DataError
from gancore_fidelity.storage import Storage, write_whole

_TIMEOUT = 30.0
"""Seconds without a byte."""


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        name: of the file in the cache folder.
        url: its public address.
        sha256: of the whole file, in hexadecimal.
        size: in bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


INCEPTION = Weights(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
)
"""Inception-v3 of 2015-12-05, which FID and IS were defined with, as torch-fidelity publishes it."""

DINOV2 = Weights(
    name="vit_small_patch14_dinov2.lvd142m.safetensors",
    url="https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/"
    "4476dc0c66daca2ef4a40d2625b4a7063f02b685/model.safetensors",
    sha256="04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
    size=88_240_510,
)
"""DINOv2 ViT-S/14, as timm publishes it."""


def find(weights: Weights, file: str, storage: Storage) -> Path | None:
    """The file that the user named, else the one in the cache folder if it is there.

    Raises:
        DataError: the user named a file that is not there.
    """
    if file:
        path = Path(file).expanduser()
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is not there"
            raise DataError(f"fidelity.weights = '{file}' {found}; {how_to_get(weights, storage)}")
        return path
    path = storage.folder / weights.name
    return path if path.is_file() else None


def read(weights: Weights, path: Path) -> bytes:
    """The verified content of ``path``.

    Raises:
        DataError: it cannot be read, or is not the published file; nothing has parsed it then.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(weights.size + 1)
    except OSError as error:
        raise DataError(f"cannot read the weights '{path}': {error.strerror or error}") from None
    _verify(weights, content, f"'{path}'")
    return content


def fetch(weights: Weights, storage: Storage) -> Path:
    """Download into the cache folder; the file appears there only after its hash was found right.

    Raises:
        DataError: no network, another answer than the file, or a folder that cannot be written; the message says
            which file to put where.
    """
    try:
        with urllib.request.urlopen(weights.url, timeout=_TIMEOUT) as answer:
            content = answer.read(weights.size + 1)  # never more than the file is long
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        why = getattr(error, "reason", None) or error
        raise DataError(
            f"{weights.name} could not be downloaded ({why}); {how_to_get(weights, storage)}"
        ) from None
    _verify(weights, content, f"what {weights.url} answered")
    path = storage.folder / weights.name
    try:
        write_whole(path, content)
    except OSError as error:
        raise DataError(
            f"cannot write '{path}': {error.strerror or error}; set fidelity.cache to another folder"
        ) from None
    return path


def how_to_get(weights: Weights, storage: Storage) -> str:
    """What a user without network does: which file, from where, to where."""
    return (
        f"on a machine with network fetch {weights.url} ({weights.size / 1e6:.0f} MB, SHA-256 "
        f"{weights.sha256[:12]}…) and put it into {storage.folder}, or set fidelity.weights to where it is"
    )


def _verify(weights: Weights, content: bytes, where: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found == weights.sha256:
        return
    if len(content) > weights.size:
        what = f"it is longer than {weights.size:,} bytes"
    elif len(content) < weights.size:
        what = f"it has {len(content):,} of {weights.size:,} bytes: cut off, or another file"
    else:
        what = f"its SHA-256 is {found}, expected {weights.sha256}: altered, or another file"
    raise DataError(
        f"{where} is not {weights.name}: {what}. It was not opened; fetch it again from {weights.url}"
    )
