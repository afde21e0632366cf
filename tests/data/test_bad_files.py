"""Sources and files that cannot be used: each is named, and none is lost."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from gancore.data import DataOptions, files, open_dataset
from gancore.errors import DataError


def opened(path, **options):
    return open_dataset(DataOptions(source=str(path), **options))


def bomb(encode) -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""
    content = bytearray(encode())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.fixture
def good(encode):
    return {f"{n}.png": encode(n) for n in range(4)}


@pytest.fixture
def bad(encode):
    jpeg = encode(9, (64, 64), kind="JPEG")
    return {
        "sub/bomb.png": bomb(encode),
        "sub/cut.jpg": jpeg[: len(jpeg) // 2],
        "sub/cut.png": encode(9, (64, 64))[:-4000],
        "sub/empty.png": b"",
        "sub/text.png": b"this is no image",
    }


REASONS = [
    r"sub/bomb.png \(too many pixels, may be a decompression bomb\)",
    r"sub/cut.jpg \(image file is truncated",
    r"sub/cut.png \(",
    r"sub/empty.png \(empty file\)",
    r"sub/text.png \(not an image\)",
]


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_bad_files_stop_the_start(good, bad, write_folder, write_zip, memory_gib):
    for path in (write_folder({**good, **bad}), write_zip({**good, **bad})):
        with pytest.raises(DataError, match="5 of 9 images in pictures") as caught:
            opened(path, memory_gib=memory_gib)
        message = str(caught.value)
        for reason in REASONS:
            assert caught.match(reason)
        assert "--bad-files skip|quarantine" in message
        assert "\n" not in message
        assert caught.value.exit_code == 4


def test_a_large_picture_that_is_only_a_warning_for_pillow_is_bad_too(good, encode, write_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(DataError, match=r"big.png \(too many pixels"):
        opened(write_folder({**good, "big.png": encode(1, (20, 20))}))


def test_twenty_bad_files_are_named(good, write_folder):
    with pytest.raises(DataError, match=r"25 of 29 images .*x19.png \(empty file\) and 5 more") as caught:
        opened(write_folder({**good, **{f"x{n:02d}.png": b"" for n in range(25)}}))
    assert "x20.png" not in str(caught.value)


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_skipped_files_are_left_where_they_are(good, bad, write_folder, memory_gib):
    clean = opened(write_folder(good, name="clean"))
    folder = write_folder({**good, **bad})
    dataset = opened(folder, bad_files="skip", memory_gib=memory_gib)
    assert len(dataset) == 4
    assert dataset.digest == clean.digest
    assert (dataset.read(np.arange(4)) == clean.read(np.arange(4))).all()
    assert any(note.startswith("left out 5 bad files: sub/bomb.png") for note in dataset.notes)
    assert (folder / "sub/text.png").exists()
    dataset.close()


def test_quarantined_files_are_moved_and_never_overwrite(good, bad, write_folder, tmp_path):
    earlier = tmp_path / "pictures-quarantine" / "sub" / "text.png"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"earlier")
    folder = write_folder({**good, **bad})
    dataset = opened(folder, bad_files="quarantine")
    assert any(note.startswith(f"moved to {tmp_path / 'pictures-quarantine'} 5 bad") for note in dataset.notes)
    assert sorted(path.name for path in earlier.parent.iterdir()) == [
        "bomb.png",
        "cut.jpg",
        "cut.png",
        "empty.png",
        "text.1.png",
        "text.png",
    ]
    assert earlier.read_bytes() == b"earlier"
    assert (earlier.parent / "text.1.png").read_bytes() == bad["sub/text.png"]
    again = opened(folder)
    assert again.digest == dataset.digest
    assert len(again) == 4


def test_quarantine_keeps_the_first_fraction_the_same_in_the_next_run(encode, write_folder):
    pictures = {f"{n:02d}.png": encode(n) for n in range(20)}
    folder = write_folder({**pictures, "01.png": b"", "04.png": b""})
    first = opened(folder, bad_files="quarantine", fraction=0.25)
    assert opened(folder, fraction=0.25).digest == first.digest


def test_quarantined_files_may_stay_in_the_label_file(encode, write_folder):
    text = b'{"labels": [["a.png", 0], ["b.png", 1], ["bad.png", 0]]}'
    folder = write_folder({"a.png": encode(1), "b.png": encode(2), "bad.png": b"", "dataset.json": text})
    first = opened(folder, conditional=True, bad_files="quarantine")
    again = opened(folder, conditional=True)
    assert again.digest == first.digest
    assert again.labels.tolist() == [0, 1]


def test_a_class_of_bad_files_alone_is_no_class(encode, write_folder):
    folder = write_folder({"a/0.png": b"", "b/0.png": encode(1), "c/0.png": encode(2)})
    first = opened(folder, conditional=True, bad_files="quarantine")
    again = opened(folder, conditional=True)
    assert first.class_names == again.class_names == ("b", "c")
    assert first.digest == again.digest


def test_a_file_that_cannot_be_moved(good, write_folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.shutil, "move", refuse)
    with pytest.raises(DataError, match=r"cannot move .*bad.png to .*: permission denied; use --bad-files skip"):
        opened(write_folder({**good, "bad.png": b""}), bad_files="quarantine")


def test_quarantine_in_an_archive_is_skipping(good, bad, write_zip):
    path = write_zip({**good, **bad})
    before = path.read_bytes()
    dataset = opened(path, bad_files="quarantine")
    assert len(dataset) == 4
    assert any("files can only be moved out of a folder, 5 bad files" in note for note in dataset.notes)
    assert path.read_bytes() == before


def test_nothing_is_moved_when_too_few_are_left(encode, write_folder):
    folder = write_folder({"a.png": encode(), "bad.png": b""})
    with pytest.raises(DataError, match=r"found 1 image in pictures, expected at least 2 \(1 bad file: bad.png"):
        opened(folder, bad_files="quarantine")
    assert (folder / "bad.png").exists()


def test_a_broken_link_is_a_bad_file(good, write_folder):
    folder = write_folder(good)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"gone.png \(no such file or directory\)"):
        opened(folder)


def test_a_damaged_entry_of_an_archive_is_a_bad_file(good, write_zip):
    path = write_zip(good)
    content = bytearray(path.read_bytes())
    content[content.index(good["1.png"]) + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 4 images in pictures.zip cannot be used: 1.png \(Bad CRC-32"):
        opened(path)


def test_an_entry_that_unpacks_to_too_much(good, write_zip, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_FILE", 2000)
    with pytest.raises(DataError, match=r"big.png \(0.0 GiB, more than the limit"):
        opened(write_zip({**good, "big.png": b"0" * 3000}))


class TestSource:
    """The folder or archive itself."""

    def test_a_missing_path_offers_a_sibling(self, good, write_folder, tmp_path):
        write_folder(good)
        with pytest.raises(DataError, match=r"pictuers' not found \(did you mean 'pictures'\?\)"):
            opened(tmp_path / "pictuers")

    @pytest.mark.parametrize(
        ("name", "offer"),
        [("gausians", "gaussians"), ("digit", "digits"), ("cifar10", "torchvision:CIFAR10")],
    )
    def test_a_missing_name_offers_a_built_in_set(self, name, offer, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=f"data '{name}' not found .did you mean '{offer}'") as caught:
            opened(name)
        assert "digits, gaussians, circles" in str(caught.value)

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no image in empty: expected files such as"):
            opened(tmp_path / "empty")

    def test_a_folder_without_images(self, write_folder):
        with pytest.raises(DataError, match=r"no image in pictures \(ignored: 1 file without an image ext"):
            opened(write_folder({"x.txt": b""}))

    def test_an_empty_archive(self, write_zip):
        with pytest.raises(DataError, match=r"no image in pictures.zip"):
            opened(write_zip({}))

    def test_one_image(self, encode, write_folder):
        with pytest.raises(DataError, match="found 1 image in pictures, expected at least 2"):
            opened(write_folder({"a.png": encode()}))

    def test_a_file_that_is_no_archive(self, tmp_path):
        (tmp_path / "a.tar").write_bytes(b"x" * 100)
        with pytest.raises(DataError, match=r"a.tar is a file but not a zip archive"):
            opened(tmp_path / "a.tar")

    @pytest.mark.parametrize("content", [b"", b"x" * 100])
    def test_an_archive_with_wrong_magic(self, tmp_path, content):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(DataError, match=r"a.zip is not a readable zip archive"):
            opened(tmp_path / "a.zip")

    def test_an_archive_that_is_cut_off(self, good, write_zip):
        path = write_zip(good)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(DataError, match=r"is not a readable zip archive .* cut off"):
            opened(path)

    def test_an_archive_with_a_password(self, good, write_zip):
        path = write_zip(good)
        content = bytearray(path.read_bytes())
        for offset, magic in ((6, b"PK\x03\x04"), (8, b"PK\x01\x02")):
            content[content.index(magic) + offset] |= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is protected by a password \(1 file, such as 0.png\)"):
            opened(path)

    def test_images_in_no_folder_have_no_class(self, good, encode, write_folder):
        folder = write_folder({**good, "cat/1.png": encode()})
        with pytest.raises(DataError, match=r"pictures: 4 images in no sub-folder \(0.png, .*--cond"):
            opened(folder, conditional=True)

    @pytest.mark.parametrize("call", ["scandir", "stat"])
    def test_a_folder_without_the_right_to_read(self, good, write_folder, monkeypatch, call):
        folder = write_folder(good)

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files, "os", type("os", (), {**vars(os), call: staticmethod(refuse)}))
        with pytest.raises(DataError, match=r"cannot read the folder .*pictures: permission denied"):
            opened(folder)

    def test_an_archive_without_the_right_to_read(self, good, write_zip, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        path = write_zip(good)
        monkeypatch.setattr(zipfile, "ZipFile", refuse)
        with pytest.raises(DataError, match=r"cannot read .*pictures.zip: permission denied"):
            opened(path)

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
    def test_an_impossible_path(self, name):
        with pytest.raises(DataError, match=r"not found|cannot read"):
            opened(name)
