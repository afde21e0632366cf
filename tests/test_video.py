from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gancore import video
from gancore.errors import ConfigError, RunFolderError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
SOLID = [Image.new("RGB", (63, 65), colour) for colour in COLOURS for _ in range(3)]


def noise(seed: int) -> Image.Image:
    shades = np.random.default_rng(seed).integers(0, 256, (24, 32), dtype=np.uint8)
    return Image.fromarray(np.stack([shades] * 3, axis=2))


def test_a_gif_of_greys_is_exact(tmp_path):
    frames = [noise(seed) for seed in range(5)]
    video.save_gif(iter(frames), tmp_path / "a.gif", 10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    np.testing.assert_array_equal(np.stack(shown), np.stack([np.array(frame) for frame in frames]))


def test_a_gif_of_colours_has_a_palette_for_each_picture(tmp_path):
    video.save_gif(SOLID[::3], tmp_path / "a.gif", 10, repeat=False)
    with Image.open(tmp_path / "a.gif") as gif:
        assert "loop" not in gif.info
        shown = [frame.convert("RGB").getpixel((30, 30)) for frame in ImageSequence.Iterator(gif)]
    assert shown == COLOURS


@pytest.mark.parametrize("rate", [7, 24, 29.97, 50])
def test_delays_of_a_gif_do_not_drift(tmp_path, rate):
    count = 60
    video.save_gif([noise(seed) for seed in range(count)], tmp_path / "a.gif", rate)
    with Image.open(tmp_path / "a.gif") as gif:
        delays = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert len(delays) == count
    assert min(delays) >= 20
    assert sum(delays) == pytest.approx(1000 * count / rate, abs=5)
    assert max(delays) - min(delays) <= 10


def test_a_gif_that_no_viewer_shows_so_fast(tmp_path):
    with pytest.raises(ConfigError, match=r"60 pictures a second: a GIF shows at most 50"):
        video.save_gif(SOLID, tmp_path / "a.gif", 60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", video.CODECS)
@pytest.mark.parametrize(("rate", "seconds"), [(24, 18 / 24), (23.976, 18 / 23.976)])
def test_an_mp4_decodes_to_its_pictures(tmp_path, monkeypatch, codec, rate, seconds):
    av = pytest.importorskip("av")
    monkeypatch.setattr(video, "CODECS", (codec,))
    video.save_mp4(iter(SOLID), tmp_path / "a.mp4", rate)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"libx264": "h264"}.get(codec, codec)
        assert stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (64, 66)
        assert float(stream.average_rate) == pytest.approx(rate, rel=1e-4)
        assert float(stream.duration * stream.time_base) == pytest.approx(seconds, rel=1e-3)
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert shown.shape == (18, 66, 64, 3)
    expected = np.array([colour for colour in COLOURS for _ in range(3)])[:, None, None]
    assert np.abs(shown.astype(int) - expected).max() <= 8


def test_an_mp4_has_the_same_bytes_again(tmp_path):
    pytest.importorskip("av")
    for name in ("a.mp4", "b.mp4"):
        video.save_mp4(SOLID, tmp_path / name, 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_odd_picture_gets_the_colour_of_its_edge():
    picture = noise(0).crop((0, 0, 5, 3))
    even = np.array(video._even(picture))
    assert even.shape == (4, 6, 3)
    for y, x in np.ndindex(4, 6):
        assert tuple(even[y, x]) == picture.getpixel((min(x, 4), min(y, 2)))


def test_an_mp4_that_is_too_large(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ConfigError, match="4100 x 2 pixels: an MP4 has at most 4096 a side"):
        video.save_mp4([Image.new("RGB", (4100, 2))], tmp_path / "a.mp4", 24)
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r'pip install "gancore\[video\]"; or write a \.gif'):
        video.save_mp4(SOLID, tmp_path / "a.mp4", 24)


@pytest.mark.parametrize("save", [video.save_gif, video.save_mp4])
def test_a_file_that_cannot_be_written(tmp_path, save):
    if save is video.save_mp4:
        pytest.importorskip("av")
    target: Path = tmp_path / "nowhere" / "a"
    with pytest.raises(RunFolderError, match="cannot write"):
        save(SOLID[:2], target, 24)
