"""Moving pictures: GIF by Pillow, MP4 by PyAV."""

from __future__ import annotations

import importlib
import io
import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from gancore.atomic import write_atomic
from gancore.errors import ConfigError

GIF_RATE = 50
"""Pictures a second that viewers of GIFs show; a delay below 2/100 s they replace by a slower one."""

WIDEST = 4096
"""Pixels a side of an MP4 that players show."""

CODECS = ("libx264", "mpeg4")
"""From the best to what every build has."""

MISSING_AV = 'an MP4 needs PyAV, which is not installed: pip install "gancore[video]"; or write a .gif'


def require_av() -> Any:
    """The module ``av``; also to find out, before any work, whether an MP4 can be written.

    Raises:
        ConfigError: PyAV is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError:
        raise ConfigError(MISSING_AV) from None


def refuse_fast_gif(rate: float) -> None:
    """Find out, before any work, whether a GIF can be shown so fast.

    Raises:
        ConfigError: it cannot.
    """
    if rate > GIF_RATE:
        raise ConfigError(
            f"{rate:g} pictures a second: a GIF shows at most {GIF_RATE}; use less, or write an .mp4"
        )


def save_gif(frames: Iterable[Image.Image], path: Path, rate: float, *, repeat: bool = True) -> None:
    """Write a GIF atomically, each picture with its own 256 colours.

    Args:
        frames: at least one, of one size. rate: pictures a second, at most :data:`GIF_RATE`. repeat: for ever,
            or once.

    Raises:
        ConfigError: too many a second. RunFolderError: the file cannot be written.
    """
    refuse_fast_gif(rate)
    shown = [_with_palette(frame) for frame in frames]
    # Delays are whole hundredths of a second; each picture ends at the nearest one, so that they do not drift.
    ends = [round(100 * (index + 1) / rate) for index in range(len(shown))]
    delays = [10 * (end - start) for start, end in itertools.pairwise([0, *ends])]
    buffer = io.BytesIO()
    loop = {"loop": 0} if repeat else {}
    shown[0].save(buffer, "GIF", save_all=True, append_images=shown[1:], duration=delays, disposal=1, **loop)
    write_atomic(path, buffer.getvalue())


def save_mp4(frames: Iterable[Image.Image], path: Path, rate: float) -> None:
    """Write an MP4 atomically, as players and browsers everywhere read it: H.264, 4:2:0, BT.709.

    4:2:0 needs even sides: an odd picture gets one more row or column, of the colour of its edge.

    Args:
        frames: at least one, of one size, at most :data:`WIDEST` pixels a side. rate: pictures a second.

    Raises:
        ConfigError: PyAV is missing, a picture is too large. RunFolderError: the file cannot be written.
    """
    av = require_av()
    codec = next(name for name in CODECS if name in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = None
        for frame in frames:
            even = _even(frame)
            if stream is None:
                stream = _stream(container, codec, even.size, rate)
            picture = av.VideoFrame.from_image(even).reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            container.mux(stream.encode(picture))
        assert stream is not None, "no picture was given"
        container.mux(stream.encode())
    write_atomic(path, buffer.getvalue())


def _stream(container: Any, codec: str, size: tuple[int, int], rate: float) -> Any:
    if max(size) > WIDEST:
        raise ConfigError(
            f"a picture of {size[0]} x {size[1]} pixels: an MP4 has at most {WIDEST} a side; fewer tiles"
        )
    options = {"crf": "18", "preset": "medium"} if codec == "libx264" else {"qscale": "3"}
    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000), options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # the same bytes on every machine, and these pictures are small
    bt709, limited = 1, 1
    context.colorspace = context.color_primaries = context.color_trc = bt709
    context.color_range = limited
    return stream


def _with_palette(frame: Image.Image) -> Image.Image:
    """At most 256 colours; greys, and what has no more, stay as they are."""
    red, green, blue = frame.convert("RGB").split()
    if ImageChops.difference(red, green).getbbox() is None and ImageChops.difference(red, blue).getbbox() is None:
        return red
    return frame.quantize(256)


def _even(frame: Image.Image) -> Image.Image:
    """A picture with even sides."""
    pixels = np.asarray(frame.convert("RGB"))
    height, width, _ = pixels.shape
    return Image.fromarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
