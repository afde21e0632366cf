"""``gan interp``: GIF, MP4 and strips of a walk, and what it refuses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import gancore
from gancore.cli.interp import parse_grid
from gancore.errors import ConfigError
from gancore.pictures import to_uint8


def shown(path: Path) -> np.ndarray:
    with Image.open(path) as gif:
        return np.stack([np.array(frame.convert("L")) for frame in ImageSequence.Iterator(gif)]).astype(int)


def sample(run: Path, seed: int, label: int, **options: float) -> np.ndarray:
    """A sample, enlarged as in the pictures."""
    return (
        to_uint8(gancore.load(run).sample(1, seed=seed, label=label, **options))[0, :, :, 0]
        .repeat(16, 0)
        .repeat(16, 1)
    )


def test_a_gif_by_default(gan, conditional):
    outcome = gan("interp", conditional, "--seeds", "3,5", "--frames", 4)
    assert outcome.code == 0
    assert outcome.out == f"{conditional / 'samples' / 'interp-00000001-seeds-3,5-frames-4.gif'}\n"
    assert "one class a tile: 0; --class names others" in outcome.err
    frames = shown(Path(outcome.last))
    assert frames.shape == (8, 256, 256)
    for index, seed in ((0, 3), (4, 5)):
        assert np.abs(frames[index] - sample(conditional, seed, 0)).max() <= 1
    np.testing.assert_array_equal(frames[1:4], frames[:4:-1])  # there and back


def test_an_open_way_ends_at_its_last_stop(gan, conditional, tmp_path):
    out = tmp_path / "new" / "a.gif"
    outcome = gan(
        "interp",
        conditional,
        "--seeds",
        "3,5",
        "--frames",
        4,
        "--no-loop",
        "--class",
        "6",
        "--trunc",
        0.5,
        "--out",
        out,
    )
    assert outcome.code == 0
    assert outcome.err == ""
    frames = shown(out)
    assert len(frames) == 5
    for index, seed in ((0, 3), (4, 5)):
        assert np.abs(frames[index] - sample(conditional, seed, 6, truncation=0.5)).max() <= 1


def test_an_mp4_of_a_class_walk(gan, conditional, tmp_path):
    av = pytest.importorskip("av")
    out = tmp_path / "a.mp4"
    options = ("--seeds", "3", "--class", "2,7,4", "--frames", 5, "--fps", 12)
    assert gan("interp", conditional, *options, "--out", out).code == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, float(stream.average_rate)) == ("h264", "yuv420p", 12)
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(stream)]).astype(int)
    assert frames.shape == (15, 256, 256)
    for index, label in ((0, 2), (5, 7), (10, 4)):
        assert np.abs(frames[index] - sample(conditional, 3, label)).mean() < 6


def test_a_strip_has_a_row_from_each_stop_to_the_next(gan, conditional, tmp_path):
    out = tmp_path / "a.png"
    assert gan("interp", conditional, "--seeds", "3,5,8", "--frames", 2, "--class", "1", "--out", out).code == 0
    with Image.open(out) as sheet:
        pixels = np.array(sheet.convert("L")).astype(int)
    scale = (pixels.shape[1] - 8) // 48
    tile = 16 * scale
    assert pixels.shape == (2 * tile + 6, 3 * tile + 8)
    run = gancore.load(conditional)
    for (row, column), seed in {(0, 0): 3, (0, 2): 5, (1, 0): 5, (1, 2): 8}.items():
        found = pixels[2 + row * (tile + 2) :, 2 + column * (tile + 2) :][:tile:scale, :tile:scale]
        assert np.abs(found - to_uint8(run.sample(1, seed=seed, label=1))[0, :, :, 0]).max() <= 1


def test_a_grid_shares_out_seeds_and_classes(gan, conditional, tmp_path):
    out = tmp_path / "a.gif"
    assert gan("interp", conditional, "--grid", "1x2", "--seeds", "3-6", "--frames", 1, "--out", out).code == 0
    frames = shown(out)
    scale = (frames.shape[2] - 6) // 32
    tile = 16 * scale
    assert frames.shape == (2, tile + 4, 2 * tile + 6)
    run = gancore.load(conditional)
    for stop, column, seed in ((0, 0, 3), (1, 0, 4), (0, 1, 5), (1, 1, 6)):
        found = frames[stop, 2:, 2 + column * (tile + 2) :][:tile:scale, :tile:scale]
        assert np.abs(found - to_uint8(run.sample(1, seed=seed, label=column))[0, :, :, 0]).max() <= 1


def test_points_walk_as_a_cloud(gan, trained, tmp_path):
    out = tmp_path / "a.gif"
    assert gan("interp", trained, "--seeds", "0,1", "--frames", 1, "--out", out).code == 0
    frames = shown(out)
    assert frames.shape == (2, 640, 640)
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "3"), "1 seed: a walk needs at least 2"),
        (("--seeds", "3", "--class", "1"), "1 seed: a walk needs at least 2"),
        (("--seeds", "0-4", "--grid", "1x2"), "5 seeds: each of the 2 tiles needs at least 2"),
        (("--seeds", "x"), "expected seeds such as"),
        (("--class", "12"), "class 12 is outside 0 … 9"),
        (("--class", "1,cat"), "unknown class 'cat'"),
        (("--grid", "2"), "expected rows and columns, such as 2x4"),
        (("--grid", "0x3"), "expected rows and columns"),
        (("--out", "a.avi"), "expected a name that ends in .gif, .mp4 or .png"),
        (("--out", "a"), "expected a name that ends in"),
        (("--out", "a.gif", "--fps", 60), "a GIF shows at most 50"),
        (("--fps", 51), "a GIF shows at most 50"),
        (("--out", "a.png", "--fps", 10), "a .png is a strip of tiles"),
        (("--trunc", "inf"), "--trunc inf: expected a finite number"),
        (("--frames", 0), "frames"),
        (("--frames", 10**30), "expected at most 20,000: lower --frames"),
        (("--seeds", "0-20", "--frames", 1000), "21,000 pictures"),
        (("--seeds", ""), "expected seeds such as"),
        (("--grid", "40x40"), "1,600 tiles; expected at most 1,024"),
        (("--fps", "nan"), "expected a number from 0.01 to 240"),
        (("--fps", 0.001), "--fps 0.001: expected a number from 0.01"),
    ],
)
def test_wrong_options(gan, conditional, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    outcome = gan("interp", conditional, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--grid", "1x2"), ("--out", "a.png")])
def test_points_have_one_picture(gan, trained, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    outcome = gan("interp", trained, *options)
    assert outcome.code == 2
    assert "2-D points, whose walk is one scatter picture" in outcome.err


def test_a_class_of_an_unconditional_run(gan, trained):
    outcome = gan("interp", trained, "--class", "3")
    assert outcome.code == 2
    assert "the run is unconditional (train with --cond)" in outcome.err


def test_where_there_is_no_run(gan, tmp_path):
    assert gan("interp", tmp_path).code == 6


def test_an_mp4_without_pyav_is_refused_before_anything_is_loaded(gan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    outcome = gan("interp", tmp_path / "no-run", "--out", tmp_path / "a.mp4")
    assert outcome.code == 2
    assert 'pip install "gancore[video]"' in outcome.err


def test_a_place_that_cannot_be_written_is_found_before_any_work(gan, conditional, tmp_path):
    (tmp_path / "file").touch()
    outcome = gan("interp", conditional, "--out", tmp_path / "file" / "a.gif")
    assert outcome.code == 8
    assert "is a file" in outcome.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_without_rights(gan, conditional, tmp_path):
    tmp_path.chmod(0o500)
    assert gan("interp", conditional, "--out", tmp_path / "a.gif").code == 8


def test_parse_grid():
    assert parse_grid("2x4") == (2, 4)
    assert parse_grid(None) == (1, 1)
    with pytest.raises(ConfigError, match="expected rows and columns"):
        parse_grid("2x-4")
