"""From the bytes of one image file to a square uint8 array, and what was met on the way."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImagePalette, UnidentifiedImageError

from gancore.errors import ConfigError

SMALLEST_SIZE = 16
LARGEST_AUTO_SIZE = 128
LARGEST_SIZE = 1024
PAD_GREY = 128
RESIZE_FILTER = "lanczos"

# The formats a training set comes in. Pillow knows more, and some of those start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I"})
_ORIENTATION = 0x0112


class BadImage(Exception):
    """This image cannot be used; the message is the reason in a few words."""


@dataclass(frozen=True)
class Facts:
    """What one decoded image was: its upright width and height, and how it was stored."""

    width: int
    height: int
    grey: bool
    transparent: bool
    deep: bool
    rotated: bool


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(content: bytes) -> Image.Image:
    """The image in ``content``, its pixels not yet decoded. Raises whatever Pillow raises, or BadImage."""
    if not content:
        raise BadImage("empty file")
    image = Image.open(io.BytesIO(content), formats=_formats())
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImage(f"{image.width}x{image.height} pixels, more than the limit of {limit}")
    return image


def reason(error: BaseException) -> str:
    """One line for the list of bad files."""
    if isinstance(error, BadImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels, may be a decompression bomb"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return text[:120] if text else type(error).__name__


def normalise(image: Image.Image) -> tuple[Image.Image, Facts]:
    """Decode fully; give mode L or RGB at 8 bits, upright, composited on white."""
    image.load()
    orientation = _orientation(image)
    if orientation > 1:
        image = ImageOps.exif_transpose(image)
    deep = image.mode == "I" or image.mode.startswith("I;16")
    transparent = image.has_transparency_data and not deep
    grey = image.mode in _GREY_MODES or deep or (image.mode in {"P", "PA"} and _grey_palette(image.palette))
    facts = Facts(image.width, image.height, grey, transparent, deep, orientation > 1)
    return _to_8_bits(image, facts), facts


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata does not make the pixels bad
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _grey_palette(palette: ImagePalette.ImagePalette | None) -> bool:
    if palette is None:
        return True
    channels = len(palette.mode)
    content = np.frombuffer(bytes(palette.palette), dtype=np.uint8)
    colours = content[: len(content) // channels * channels].reshape(-1, channels)[:, :3]
    return bool((colours == colours[:, :1]).all())


def _to_8_bits(image: Image.Image, facts: Facts) -> Image.Image:
    if image.mode == "F":
        raise BadImage("floating-point pixels, which have no known range")
    if facts.deep:
        # 65535 = 257 * 255. Mode I is what 16-bit files open as in some formats.
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if facts.transparent:
        coloured = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(backdrop, coloured).convert("L" if facts.grey else "RGB")
    mode = "L" if facts.grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


@dataclass(frozen=True)
class Preparation:
    """How an image becomes a (channels, size, size) uint8 array."""

    size: int
    channels: int
    fit: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)

    def record(self) -> dict[str, Any]:
        """Everything that decides the pixels, as JSON; part of the digest."""
        return {
            "size": self.size,
            "channels": self.channels,
            "fit": self.fit,
            "filter": RESIZE_FILTER,
            "pad_grey": PAD_GREY,
            "alpha": "white",
        }

    def apply(self, image: Image.Image) -> np.ndarray:
        """uint8 (C, H, W) of an image in mode L or RGB."""
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        pixels = np.asarray(self._square(image))
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)

    def _square(self, image: Image.Image) -> Image.Image:
        size, (width, height) = self.size, image.size
        if (width, height) == (size, size):
            return image
        if self.fit == "stretch":
            return image.resize((size, size), Image.Resampling.LANCZOS)
        if self.fit == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = PAD_GREY if image.mode == "L" else (PAD_GREY,) * 3
        canvas = Image.new(image.mode, (size, size), grey)
        small = image.resize(inner, Image.Resampling.LANCZOS)
        canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return canvas


def decode(image: Image.Image, preparation: Preparation) -> tuple[np.ndarray, Facts]:
    """uint8 (C, H, W) of an opened image, and its facts. Raises whatever Pillow raises, or BadImage."""
    upright, facts = normalise(image)
    return preparation.apply(upright), facts


def nearest_size(side: float) -> int:
    """The power of two from 16 to 128 nearest to ``side``; a tie goes up (24 becomes 32)."""
    size = SMALLEST_SIZE
    while size < LARGEST_AUTO_SIZE and side >= 1.5 * size:
        size *= 2
    return size


def check_size(size: int) -> None:
    """ConfigError unless ``size`` is 0 (automatic) or a power of two from 16 to 1024."""
    if size == 0 or (SMALLEST_SIZE <= size <= LARGEST_SIZE and size & (size - 1) == 0):
        return
    if size < SMALLEST_SIZE or size > LARGEST_SIZE:
        offer = str(SMALLEST_SIZE if size < SMALLEST_SIZE else LARGEST_SIZE)
    else:
        below = 1 << (size.bit_length() - 1)
        offer = f"{below} or {2 * below}"
    raise ConfigError(
        f"image size {size}: expected a power of two from {SMALLEST_SIZE} to {LARGEST_SIZE}, such as {offer}"
    )
