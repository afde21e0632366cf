from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gancore.data.pixels import BadImage, Preparation, check_size, decode, nearest_size, open_image
from gancore.errors import ConfigError

GREY = Preparation(size=16, channels=1, fit="crop")
RGB = Preparation(size=16, channels=3, fit="crop")


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return open_image(stream.getvalue())


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (16, 16), colour)


@pytest.mark.parametrize(
    ("image", "kind", "expected", "grey"),
    [
        (flat("L", 70), "PNG", (70, 70, 70), True),
        (flat("RGB", (10, 20, 30)), "PNG", (10, 20, 30), False),
        (flat("1", 1), "PNG", (255, 255, 255), True),
        (flat("LA", (0, 0)), "PNG", (255, 255, 255), True),
        (flat("LA", (40, 255)), "PNG", (40, 40, 40), True),
        (flat("RGBA", (255, 0, 0, 0)), "PNG", (255, 255, 255), False),
        (flat("RGBA", (255, 0, 0, 255)), "PNG", (255, 0, 0), False),
        (flat("RGBA", (0, 0, 0, 128)), "PNG", (127, 127, 127), False),
        (flat("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0), False),
        (flat("RGB", (200, 10, 60)).quantize(4), "PNG", (200, 10, 60), False),
        (flat("L", 90).convert("P"), "PNG", (90, 90, 90), True),
        (flat("P", 0), "GIF", (0, 0, 0), True),
        (Image.fromarray(np.full((16, 16), 65535, np.uint16)), "PNG", (255, 255, 255), True),
        (Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)), "PNG", (100, 100, 100), True),
        (Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)), "TIFF", (100, 100, 100), True),
        (Image.fromarray(np.full((16, 16), 257 * 9, np.uint16)), "PPM", (9, 9, 9), True),
        (Image.fromarray(np.full((16, 16), 257 * 7, np.int32)), "TIFF", (7, 7, 7), True),
    ],
)
def test_every_mode_becomes_8_bit_grey_and_rgb(image, kind, expected, grey):
    pixels, facts = decode(stored(image, kind), RGB)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 16, 16)
    assert (pixels == np.array(expected, np.uint8)[:, None, None]).all()
    assert facts.grey is grey
    one = decode(stored(image, kind), GREY)[0]
    assert one.shape == (1, 16, 16)
    if grey:
        assert (one == expected[0]).all()


def test_a_transparent_palette_is_composited_on_white():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 8, 16))
    for kind in ("PNG", "GIF"):
        pixels, facts = decode(stored(image, kind, transparency=0), RGB)
        assert pixels[:, 3, 3].tolist() == [0, 0, 255]
        assert pixels[:, 3, 12].tolist() == [255, 255, 255]
        assert facts.transparent


def test_the_first_frame_of_an_animation():
    frames = [flat("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    pixels, _ = decode(stored(frames[0], "GIF", save_all=True, append_images=frames[1:]), RGB)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied():
    image = flat("RGB", (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    pixels, facts = decode(stored(image, "PNG", exif=exif), RGB)
    assert facts.rotated
    assert (pixels[:, :, 8:] == 255).all()
    assert (pixels[:, :, :8] == 0).all()


def test_damaged_exif_does_no_harm(encode):
    stream = io.BytesIO()
    Image.open(io.BytesIO(encode())).save(stream, "JPEG", exif=b"Exif\x00\x00nonsense")
    assert not decode(open_image(stream.getvalue()), RGB)[1].rotated


def test_floating_point_pixels_are_refused():
    with pytest.raises(BadImage, match="floating-point"):
        decode(stored(flat("F", 0.5), "TIFF"), RGB)


def test_crop_keeps_the_centre_pad_adds_grey_stretch_keeps_all():
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (16, 0, 48, 32))
    shown = {fit: Preparation(16, 1, fit).apply(image)[0] for fit in ("crop", "pad", "stretch")}
    # Scaled, then cropped: the filter sees what lies beyond the crop.
    assert (shown["crop"][:, 3:-3] >= 254).all()
    assert (shown["crop"] >= 230).all()
    assert (shown["pad"][:4] == 128).all()
    assert (shown["pad"][12:] == 128).all()
    assert shown["pad"][8, [0, 8, 15]].tolist() == [0, 255, 0]
    assert shown["stretch"][[0, 15]][:, [0, 8, 15]].tolist() == [[0, 255, 0]] * 2


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_shapes(size, fit):
    assert Preparation(16, 3, fit).apply(Image.new("RGB", size)).shape == (3, 16, 16)


def test_downscaling_is_antialiased():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    pixels = Preparation(16, 1, "crop").apply(Image.fromarray(stripes))
    assert abs(pixels[0, :, 2:-2].astype(int) - 127).max() < 8


@pytest.mark.parametrize(
    ("side", "size"), [(1, 16), (8, 16), (23, 16), (24, 32), (28, 32), (47, 32), (48, 64), (500, 128)]
)
def test_nearest_size(side, size):
    assert nearest_size(side) == size


@pytest.mark.parametrize(("size", "offer"), [(48, "32 or 64"), (8, "16"), (2048, "1024"), (100, "64 or 128")])
def test_a_size_that_is_no_power_of_two(size, offer):
    with pytest.raises(ConfigError, match=f"image size {size}: expected a power of two .*such as {offer}"):
        check_size(size)


def test_sizes_that_are_allowed():
    for size in (0, 16, 32, 64, 128, 256, 512, 1024):
        check_size(size)
