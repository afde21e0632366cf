"""Pictures inside of a page: as data: URIs, small enough that the page stays one that opens at once."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

KEPT, SCALED = 640, 512
"""A longest side up to the first is kept, since scaling a little only blurs; a longer one becomes the second."""

THUMBNAIL = 160
QUALITY = 85
"""Of JPEG, which stands in where it is smaller than PNG."""

T = TypeVar("T")


@dataclass(frozen=True)
class Embedded:
    """A picture as a data: URI, with its size in pixels, so that a page can keep its place."""

    src: str
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """A picture of a timeline, at its step."""

    step: int
    picture: Embedded


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, the first and the last among them, at equal distances."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[-1:])
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def embed(path: Path, *, kept: int = KEPT, scaled: int = SCALED) -> Embedded | None:
    """A picture for a page, or None where it cannot be read.

    Args:
        kept: longest side that is left as it is, in pixels. scaled: what a longer one becomes.
    """
    try:
        status = path.stat()
        return _encoded(path, status.st_mtime_ns, status.st_size, kept, scaled)
    except (OSError, ValueError, SyntaxError):  # Pillow raises all of them for damaged files
        return None


def timeline(frames: Sequence[tuple[int, Path]], budget: int, most: int = 48) -> list[Frame]:
    """Pictures at equal distances, as many as fit: at most ``most``, of ``budget`` bytes together.

    The newest is always among them; one that cannot be read is left out.
    """
    newest = embed(frames[-1][1]) if frames else None
    fit = budget // len(newest.src) if newest is not None else most
    count = min(most, len(frames), max(fit, 1))
    while True:
        found = [(step, embed(path)) for step, path in evenly(frames, count)]
        made = [Frame(step, picture) for step, picture in found if picture is not None]
        if count <= 1 or sum(len(frame.picture.src) for frame in made) <= budget:
            return made
        count = count * 2 // 3


def thumbnails(frames: Sequence[tuple[int, Path]], count: int = 6) -> list[Frame]:
    """Small pictures at equal distances."""
    found = [(s, embed(p, kept=THUMBNAIL, scaled=THUMBNAIL)) for s, p in evenly(frames, count)]
    return [Frame(step, picture) for step, picture in found if picture is not None]


@functools.lru_cache(maxsize=512)
def _encoded(path: Path, modified: int, size: int, kept: int, scaled: int) -> Embedded:
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    formats: dict[str, dict[str, Any]] = {"JPEG": {"quality": QUALITY, "subsampling": 0}}
    if max(picture.size) > kept:
        picture.thumbnail((scaled, scaled), Image.Resampling.LANCZOS)
    else:
        formats["PNG"] = {}  # enlarged pixels and scatter pictures are small in it, and stay sharp
    made = []
    for name, options in formats.items():
        buffer = io.BytesIO()
        picture.save(buffer, format=name, **options)
        made.append((len(buffer.getvalue()), name.lower(), buffer.getvalue()))
    _, kind, payload = min(made)
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(payload).decode()}", *picture.size)
