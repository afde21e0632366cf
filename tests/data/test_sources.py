"""Folders and archives that are in order: what is found, how it is labelled, what the digest covers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gancore.data import DataOptions, open_dataset
from gancore.errors import ConfigError, DataError


def opened(path, **options):
    return open_dataset(DataOptions(source=str(path), **options))


def everything(dataset):
    return dataset.read(np.arange(len(dataset)))


@pytest.fixture
def animals(encode):
    return {
        f"{kind}/{part}/{n}.png": encode(10 * len(kind) + n)
        for kind in ("cat", "horse")
        for part, n in (("a", 0), ("a", 1), ("b", 2))
    }


def test_folder_and_zip_of_the_same_files_are_the_same_set(animals, write_folder, write_zip):
    folder, archive = opened(write_folder(animals)), opened(write_zip(animals))
    assert folder.name == "pictures"
    assert archive.name == "pictures.zip"
    assert folder.digest == archive.digest
    assert (everything(folder) == everything(archive)).all()
    assert folder.shape == (3, 16, 16)
    assert folder.labels is None
    first = np.asarray(Image.open(io.BytesIO(animals["cat/a/0.png"])))
    assert (everything(folder)[0] == first.transpose(2, 0, 1)).all()
    assert folder.notes == []


def test_the_summary_is_json(animals, write_folder):
    summary = json.loads(json.dumps(opened(write_folder(animals), conditional=True).describe()))
    assert summary["images"] == 6
    assert summary["classes"] == ["cat", "horse"]
    assert summary["resize_filter"] == "lanczos"
    assert len(summary["digest"]) == 64


def test_first_level_folders_are_the_classes(animals, write_folder, write_zip):
    for path in (write_folder(animals), write_zip(animals)):
        dataset = opened(path, conditional=True)
        assert dataset.class_names == ("cat", "horse")
        assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert dataset.labels.dtype == np.int64


def test_one_folder_around_everything_in_a_zip_is_no_class(animals, write_zip):
    wrapped = write_zip({f"animals/{name}": content for name, content in animals.items()})
    assert opened(wrapped, conditional=True).class_names == ("cat", "horse")


def test_other_files_are_ignored_and_counted(animals, write_folder, write_zip):
    more = {".DS_Store": b"x", "cat/.hidden.png": b"x", "readme.txt": b"x", "cat/notes.md": b"x"}
    folder = opened(write_folder({**animals, **more, ".git/a.png": b"x"}))
    assert folder.notes == ["ignored: 3 hidden entries and 2 files without an image extension"]
    archive = opened(write_zip({**animals, **more, "__MACOSX/cat/._0.png": b"x"}))
    assert archive.notes == folder.notes
    assert len(folder) == len(archive) == 6


def test_links_are_followed_and_loops_are_not(animals, write_folder, tmp_path):
    folder = write_folder({name: animals[name] for name in list(animals)[:3]})
    elsewhere = write_folder({"x.png": animals["horse/a/0.png"]}, name="elsewhere")
    (folder / "zebra").symlink_to(elsewhere)
    (folder / "cat" / "loop").symlink_to(folder)
    dataset = opened(folder, conditional=True)
    assert dataset.class_names == ("cat", "zebra")
    assert len(dataset) == 4
    assert "1 link to a folder above itself not followed" in dataset.notes


def test_a_name_with_spaces_and_accents(encode, write_folder, write_zip):
    files = {"ü b/é 1.PNG": encode(1), "ü b/é 2.JpG": encode(2, kind="JPEG")}
    for path in (write_folder(files), write_zip(files)):
        assert opened(path, conditional=True).class_names == ("ü b",)


def test_mixed_sizes_and_modes_are_converted_and_noted(encode, write_folder):
    dataset = opened(
        write_folder(
            {
                "a.png": encode(1, (20, 30)),
                "b.png": encode(2, (40, 30), "L"),
                "c.png": encode(3, (32, 32), "RGBA"),
                "d.gif": encode(4, (50, 50), "P", "GIF"),
            }
        )
    )
    assert dataset.shape == (3, 32, 32)
    assert dataset.notes == [
        "3 of 4 images resized to 32x32 (lanczos, crop); sizes found: 20x30 to 50x50",
        "1 of 4 images are grey and were converted to RGB",
        "1 image with transparency composited on white",
    ]


def test_grey_sets_stay_grey_unless_asked(encode, write_folder):
    folder = write_folder({f"{n}.png": encode(n, (28, 28), "L") for n in range(3)})
    assert opened(folder).shape == (1, 32, 32)
    assert opened(folder, channels="rgb").shape == (3, 32, 32)
    assert opened(write_folder({"3.png": encode(3)}), channels="grey").shape == (1, 32, 32)


def test_a_wrong_first_guess_is_corrected(encode, write_folder):
    files = {f"{n:03d}.png": encode(n, (8, 8), "L") for n in range(40)}
    files["001.png"] = encode(1, (8, 8))
    dataset = opened(write_folder(files))
    assert dataset.shape == (3, 16, 16)
    assert "39 of 40 images are grey and were converted to RGB" in dataset.notes


def test_the_digest_covers_pixels_labels_size_fit_and_channels(animals, encode, write_folder):
    folder = write_folder(animals)
    seen = {
        opened(folder).digest,
        opened(folder, conditional=True).digest,
        opened(folder, image_size=32).digest,
        opened(folder, image_size=32, fit="pad").digest,
        opened(folder, channels="grey").digest,
        opened(folder, fraction=0.4).digest,
    }
    image = Image.open(io.BytesIO(animals["cat/a/0.png"]))
    image.putpixel((3, 3), (1, 2, 3))
    image.save(folder / "cat/a/0.png")
    seen.add(opened(folder).digest)
    assert len(seen) == 7


def test_the_digest_does_not_cover_times_or_mirroring(animals, write_folder):
    folder = write_folder(animals)
    before = opened(folder).digest
    os.utime(folder / "cat/a/0.png", (1, 1))
    assert opened(folder, mirror=True).digest == before


def test_changed_labels_change_the_digest(animals, write_zip):
    labels = [[name, 0] for name in animals]
    digests = set()
    for last in (0, 1):
        labels[-1][1] = last
        text = json.dumps({"classes": ["x", "y"], "labels": labels}).encode()
        digests.add(opened(write_zip({**animals, "dataset.json": text}), conditional=True).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("conditional", [False, True])
def test_the_first_fraction_of_every_class(encode, write_folder, conditional):
    files = {
        f"{kind}/{n:02d}.png": encode(n + len(kind))
        for kind, count in (("a", 10), ("bb", 20), ("c", 1))
        for n in range(count)
    }
    folder = write_folder(files)
    part, whole = opened(folder, fraction=0.2, conditional=conditional), opened(folder)
    assert (everything(part) == everything(whole)[[0, 1, 10, 11, 12, 13, 30]]).all()
    if conditional:
        assert part.labels.tolist() == [0, 0, 1, 1, 1, 1, 2]


def test_progress_ends_at_the_total(encode, write_folder):
    calls = []
    folder = write_folder({f"{n}.png": encode(n) for n in range(5)})
    open_dataset(DataOptions(source=str(folder)), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, "power of two"),
        ({"fraction": 0.0}, "data.fraction = 0.0: expected a value > 0"),
        ({"fraction": 1.5}, "data.fraction = 1.5: expected a value <= 1"),
        ({"fit": "squeeze"}, "data.fit = 'squeeze'"),
        ({"memory_gib": -1.0}, "data.memory_gib"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset(DataOptions(**options))


def test_opening_imports_no_torch_and_options_import_no_numpy():
    code = (
        "import sys; from gancore.data import DataOptions; "
        "assert not {'torch', 'numpy', 'PIL', 'sklearn', 'torchvision'} & set(sys.modules); "
        "import gancore.data.prepare, gancore.data.builtin, gancore.data.torchvision_sets; "
        "assert not {'torch', 'sklearn', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestLabelFile:
    """dataset.json in an archive."""

    @pytest.fixture
    def pair(self, encode):
        return {"img/0.png": encode(0), "img/1.png": encode(1)}

    def labelled(self, write_zip, pair, content):
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return write_zip({**pair, "dataset.json": text})

    def test_names_and_indices(self, write_zip, pair):
        labels = [["img/1.png", 0], ["img/0.png", 2]]
        path = self.labelled(write_zip, pair, {"classes": ["a", "b", "c"], "labels": labels})
        dataset = opened(path, conditional=True)
        assert dataset.labels.tolist() == [2, 0]
        assert dataset.class_names == ("a", "b", "c")

    def test_indices_alone(self, write_zip, pair):
        path = self.labelled(write_zip, pair, {"labels": [["img/0.png", 0], ["img/1.png", 1]]})
        assert opened(path, conditional=True).class_names == ("0", "1")

    def test_null_labels_leave_it_to_the_folders(self, write_zip, pair):
        dataset = opened(self.labelled(write_zip, pair, {"labels": None}), conditional=True)
        assert dataset.class_names == ("img",)
        assert dataset.notes == ["dataset.json has no labels: sub-folders are the classes"]

    def test_it_is_not_read_without_labels(self, write_zip, pair):
        dataset = opened(self.labelled(write_zip, pair, b"{nonsense"))
        assert dataset.notes == ["dataset.json not used: training without labels"]

    def test_a_folder_may_have_one(self, write_folder, pair):
        text = json.dumps({"labels": [["img/0.png", 1], ["img/1.png", 0]]}).encode()
        dataset = opened(write_folder({**pair, "dataset.json": text}), conditional=True)
        assert dataset.labels.tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{nonsense", "is not JSON"),
            (b"\xff\xfe\xfa", "is not JSON"),
            ([1, 2], 'has no "labels"'),
            ({"labels": 3}, '"labels" is 3, expected a list'),
            ({"labels": [["img/0.png"]]}, r'expected \[file, index\], found \["img/0.png"\]'),
            ({"classes": "ab", "labels": []}, '"classes" is "ab", expected a list of names'),
            (
                {"labels": [["img/0.png", 0], ["img/1.png", 0], ["gone.png", 1]]},
                r"labels files that are not there: gone.png \(1 file\)",
            ),
            ({"labels": [["img/0.png", 0]]}, r"has no label for img/1.png \(1 file\)"),
            ({"labels": [["img/0.png", 0.5], ["img/1.png", 0]]}, r"not whole numbers .*: img/0.png \(0.5\)"),
            (
                {"labels": [["img/0.png", True], ["img/1.png", 0]]},
                r"not whole numbers .*: img/0.png \(true\)",
            ),
            ({"labels": [["img/0.png", -1], ["img/1.png", 0]]}, r"not whole numbers .*: img/0.png \(-1\)"),
            (
                {"labels": [["img/0.png", None], ["img/1.png", 0]]},
                r"not whole numbers .*: img/0.png \(null\)",
            ),
            ({"labels": [["img/0.png", 10**12], ["img/1.png", 0]]}, "not whole numbers"),
            (
                {"classes": ["a"], "labels": [["img/0.png", 0], ["img/1.png", 1]]},
                r"has 1 class, but higher labels: img/1.png \(1\)",
            ),
            (
                {"labels": [["img/0.png", 0], ["img/0.png", 1], ["img/1.png", 0]]},
                "gives two labels to img/0.png",
            ),
        ],
    )
    def test_a_wrong_one_is_named(self, write_zip, pair, content, message):
        with pytest.raises(DataError, match=message) as caught:
            opened(self.labelled(write_zip, pair, content), conditional=True)
        assert "\n" not in str(caught.value)
        assert "pictures.zip" in str(caught.value)
        assert caught.value.exit_code == 4

    def test_twenty_offenders_are_named(self, write_zip, pair):
        labels = [["img/0.png", 0], ["img/1.png", 0], *([f"gone{n}.png", 0] for n in range(25))]
        with pytest.raises(DataError, match=r"gone19.png and 5 more \(25 files\)") as caught:
            opened(self.labelled(write_zip, pair, {"labels": labels}), conditional=True)
        assert "gone20.png" not in str(caught.value)
