"""``gan sample``: what it writes, its labels, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gancore
from gancore.cli.sample import in_turn, parse_seeds
from gancore.errors import ConfigError
from gancore.pictures import LINE, grid, to_uint8


def tiles_of(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())])


def test_points(gan, trained, tmp_path):
    outcome = gan("sample", trained)
    assert outcome.code == 0
    with Image.open(outcome.last) as picture:
        assert picture.size == (640, 640)
    assert str(trained / "samples") in outcome.last
    for option in (("--each", tmp_path / "each"), ("--zip", tmp_path / "a.zip"), ("--labels",)):
        outcome = gan("sample", trained, *option)
        assert outcome.code == 2
        assert "this run generates 2-D points" in outcome.err
    assert not (tmp_path / "each").exists()


def test_where_there_is_no_run(gan, tmp_path):
    assert gan("sample", tmp_path).code == 6


def test_parse_seeds():
    assert parse_seeds("0-3,9,2") == [0, 1, 2, 3, 9, 2]
    for text in ("", "a", "5-2", "1,,2", "-1"):
        with pytest.raises(ConfigError, match="expected seeds such as"):
            parse_seeds(text)
    with pytest.raises(ConfigError, match="10,000,000,000 seeds; expected at most 100,000"):
        parse_seeds("0-9999999999")


def test_in_turn():
    assert in_turn([4, 1], range(1, 5)) == [1, 4, 1, 4]
    assert in_turn(None, range(5)) is None


def test_each_zip_and_names(gan, conditional, tmp_path):
    each, archive = tmp_path / "each", tmp_path / "new" / "a.zip"
    both = gan("sample", conditional, "--seeds", "0-2,7,2", "--each", each, "--zip", archive)
    assert both.out.splitlines() == [str(each), str(archive)]
    names = [f"seed-{seed:06d}.png" for seed in (0, 1, 2, 7)]
    assert sorted(path.name for path in each.iterdir()) == names
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [*names, "dataset.json"]
        assert json.loads(file.read("dataset.json"))["labels"] == [[n, i] for i, n in enumerate(names)]
        assert file.read(names[0]) == (each / names[0]).read_bytes()
        assert Image.open(io.BytesIO(file.read(names[0]))).size == (16, 16)
    again = tmp_path / "again.zip"
    gan("sample", conditional, "--seeds", "0-2,7", "--zip", again)
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (("--n", 5), [0, 1, 2, 3, 4]),
        (("--n", 5, "--class", "3"), [3] * 5),
        (("--n", 5, "--class", "3, 1"), [3, 1, 3, 1, 3]),
        (("--seeds", "4,9", "--class", "3,1,2"), [3, 1]),
        (("--seeds", "4,9", "--class", "8", "--trunc", 0.5), [8, 8]),
    ],
)
def test_classes_seeds_and_truncation(gan, conditional, tmp_path, options, labels):
    assert (
        gan("sample", conditional, *options, "--each", tmp_path / "each", "--zip", tmp_path / "a.zip").code == 0
    )
    run = gancore.load(conditional)
    trunc = 0.5 if "--trunc" in options else 1.0
    if "--seeds" in options:
        drawn = [run.sample(1, seed=s, label=c, truncation=trunc) for s, c in zip((4, 9), labels, strict=True)]
    else:
        drawn = [run.sample(5, label=label)[[index]] for index, label in enumerate(labels)]
    expected = to_uint8(torch.cat(drawn))[..., 0].astype(int)
    assert np.abs(tiles_of(tmp_path / "each").astype(int) - expected).max() <= 1
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert [label for _, label in json.loads(file.read("dataset.json"))["labels"]] == labels


@pytest.mark.parametrize(
    ("options", "columns", "titles", "captions"),
    [
        ((), 10, list("0123456789"), []),
        (("--no-labels",), 0, [], []),
        (("--class", "3,1,2"), 3, ["3", "1", "2"], []),
        (("--class", "3"), 0, [], []),
        (("--class", "3", "--labels"), 4, ["3"] * 4, []),
    ],
)
def test_the_grid_has_labels(gan, conditional, tmp_path, options, columns, titles, captions):
    assert gan("sample", conditional, "--n", 12, *options, "--out", tmp_path / "a.png").code == 0
    run = gancore.load(conditional)
    labels = [int(title) for title in titles[:columns]] or ([3] if "--class" in options else list(range(10)))
    images = torch.cat([run.sample(12, label=labels[k % len(labels)])[[k]] for k in range(12)])
    expected = grid(images, columns, titles=titles, captions=captions)
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == expected.size
        assert np.abs(np.array(sheet).astype(int) - np.array(expected)).max() <= 1


def test_seeds_stand_below_their_tiles(gan, conditional, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        "gancore.pictures.grid", lambda images, columns, **text: asked.append(text) or grid(images)
    )
    for options in (
        ("--seeds", "2,5"),
        ("--seeds", "2,50000", "--labels", "--class", "7"),
        ("--seeds", "2,5", "--class", "7"),
    ):
        assert gan("sample", conditional, *options, "--out", tmp_path / "a.png").code == 0
    assert asked == [
        {"titles": ["0", "1"], "captions": ["seed 2", "seed 5"]},
        {"titles": ["7", "7"], "captions": ["2", "50000"]},
        {"titles": [], "captions": []},
    ]


def test_many_classes_are_named_below_their_tiles(gan, conditional, monkeypatch, tmp_path):
    monkeypatch.setattr("gancore.cli.sample.MOST_COLUMNS", 2)
    asked = []
    monkeypatch.setattr(
        "gancore.pictures.grid", lambda images, columns, **text: asked.append(text) or grid(images)
    )
    for options in (("--n", 3), ("--seeds", "5-7")):
        assert gan("sample", conditional, *options, "--out", tmp_path / "a.png").code == 0
    assert asked == [
        {"titles": [], "captions": ["0", "1", "2"]},
        {"titles": [], "captions": ["5: 0", "6: 1", "7: 2"]},
    ]


def test_names_of_files_tell_what_is_in_them(gan, conditional):
    def name(*options: object) -> str:
        outcome = gan("sample", conditional, *options)
        assert outcome.code == 0
        return Path(outcome.last).name

    assert name("--n", 3, "--trunc", 0.7) == "sample-00000001-seed-0-n-3-trunc-0.7.png"
    assert name("--seeds", "0-2", "--class", "3,1") == "sample-00000001-seeds-0-2-class-3,1.png"
    long = [name("--seeds", ",".join(map(str, range(40, 100, 2))) + f",{last}") for last in (7, 8)]
    assert long[0] != long[1]
    assert all(len(text) < 140 for text in long)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "12"), "class 12 is outside 0 … 9"),
        (("--class", "3,cat"), "unknown class 'cat'; classes: 0, 1"),
        (("--class", ""), "unknown class ''"),
        (("--seeds", "0-3", "--n", 4), "--seeds gives one sample a seed"),
        (("--seeds", "3-0"), "expected seeds such as"),
        (("--trunc", 0), "0"),
        (("--trunc", "inf"), "--trunc inf: expected a finite number"),
        (("--out", "a.jpg"), "the grid is a PNG; end the name in .png"),
        (("--each", "a", "--labels"), "for the grid, and none is written"),
        (("--n", 10**9), "a grid of 1,000,000,000 images of"),
    ],
)
def test_wrong_options(gan, conditional, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    outcome = gan("sample", conditional, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_an_unconditional_run(gan, trained):
    outcome = gan("sample", trained, "--class", "3")
    assert outcome.code == 2
    assert "the run is unconditional (train with --cond)" in outcome.err


@pytest.mark.parametrize("option", ["--out", "--each", "--zip"])
def test_a_place_that_cannot_be_written_is_found_before_any_work(gan, conditional, tmp_path, monkeypatch, option):
    monkeypatch.setattr("gancore.sampling.in_batches", lambda *_: pytest.fail("samples were generated"))
    (tmp_path / "file").touch()
    outcome = gan("sample", conditional, option, tmp_path / "file" / "a.png")
    assert outcome.code == 8
    assert "is a file" in outcome.err


def test_any_number_passes_through_in_batches(gan, conditional, tmp_path):
    assert (
        gan("sample", conditional, "--n", 70, "--zip", tmp_path / "a.zip", "--each", tmp_path / "each").code == 0
    )
    images = to_uint8(gancore.load(conditional).sample(70))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        pairs = json.loads(archive.read("dataset.json"))["labels"]
        assert pairs == [[f"{index:06d}.png", index % 10] for index in range(70)]
        for name, index in (("000000.png", 0), ("000064.png", 64), ("000069.png", 69)):
            payload = archive.read(name)
            assert payload == (tmp_path / "each" / name).read_bytes()
            tile = np.atleast_3d(np.array(Image.open(io.BytesIO(payload))))
            assert np.abs(tile.astype(int) - images[index]).max() <= 1


def test_an_error_on_the_way_leaves_no_half_of_a_zip(gan, conditional, tmp_path, monkeypatch):
    images = gancore.load(conditional).sample(2)

    def break_off(*_: object) -> Iterator[torch.Tensor]:
        yield images
        raise ConfigError("no more")

    monkeypatch.setattr("gancore.sampling.in_batches", break_off)
    assert "no more" in gan("sample", conditional, "--n", 3, "--zip", tmp_path / "a.zip").err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_without_rights(gan, conditional, tmp_path):
    tmp_path.chmod(0o500)
    assert gan("sample", conditional, "--out", tmp_path / "a.png").code == 8


def test_the_sheets_of_training_name_their_columns(conditional):
    with Image.open(conditional / "samples" / "step-00000001.png") as sheet:
        title_line = np.array(sheet)[:LINE]
    tile = 66
    for column in range(10):
        assert (title_line[:, 2 + column * tile : 66 + column * tile] > 100).any()


def test_a_folder_in_the_place_of_a_file(gan, conditional, tmp_path):
    for name in ("a.png", "a.zip", "a.gif"):
        (tmp_path / name).mkdir()
    for words in (
        ("sample", conditional, "--out", tmp_path / "a.png"),
        ("sample", conditional, "--zip", tmp_path / "a.zip"),
        ("interp", conditional, "--out", tmp_path / "a.gif"),
    ):
        outcome = gan(*words)
        assert outcome.code == 8
        assert "it is a folder; give the name of a file" in outcome.err


def test_of_many_classes_a_message_names_some(gan, conditional, monkeypatch):
    monkeypatch.setattr("gancore.run.NAMED", 3)
    outcome = gan("sample", conditional, "--class", "cat")
    assert "unknown class 'cat'; classes: 0, 1, 2, … (10 in all)" in outcome.err
