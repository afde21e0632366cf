"""Image files of a folder or a zip archive: which there are, and their bytes."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from gancore.data.labels import LABEL_FILE, Classes, classes_of_files
from gancore.data.pixels import BadImage, open_image, reason
from gancore.errors import DataError
from gancore.text import plural

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif", ".jp2",
})
# fmt: on
_LARGEST_FILE = 1 << 30


def is_hidden(path: str) -> bool:
    """Whether a part of the posix path starts with a dot, or is the shadow copy that macOS puts into zips."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def is_image(path: str) -> bool:
    """Whether the name has an image extension."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _ignored_note(hidden: int, other: int) -> list[str]:
    parts = []
    if hidden:
        parts.append("1 hidden entry" if hidden == 1 else f"{hidden:,} hidden entries")
    if other:
        parts.append(f"{plural(other, 'file')} without an image extension")
    return [f"ignored: {' and '.join(parts)}"] if parts else []


def _check_length(length: int) -> None:
    if length > _LARGEST_FILE:
        raise BadImage(f"{length / 2**30:.1f} GiB, more than the limit of {_LARGEST_FILE >> 30} GiB")


class FolderSource:
    """Images below a folder, as sorted posix paths relative to it. Links are followed, loops are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.name = self.folder.name
        self._hidden = self._other = self._loops = 0
        self.files = sorted(self._walk(self.folder, "", ()))
        self.notes = _ignored_note(self._hidden, self._other)
        if self._loops:
            self.notes.append(f"{plural(self._loops, 'link')} to a folder above itself not followed")

    def _walk(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                self._loops += 1
                return
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {reason(error)}") from error
        for entry in listed:
            path = prefix + entry.name
            if is_hidden(entry.name):
                self._hidden += 1
            elif entry.is_dir():
                yield from self._walk(folder / entry.name, path + "/", (*above, identity))
            elif is_image(path) and (entry.is_file() or entry.is_symlink()):
                yield path
            elif path != LABEL_FILE:
                self._other += 1

    def load(self, index: int) -> Image.Image:
        path = self.folder / self.files[index]
        _check_length(path.stat().st_size)
        return open_image(path.read_bytes())

    def classes(self, conditional: bool) -> Classes:
        """See :func:`gancore.data.labels.classes_of_files`."""
        return classes_of_files(self, conditional)

    def label_text(self) -> bytes | None:
        """Content of dataset.json, or None without one."""
        path = self.folder / LABEL_FILE
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise DataError(f"cannot read {path}: {reason(error)}") from error

    @property
    def quarantine_folder(self) -> Path:
        """Sibling folder for bad files."""
        return self.folder.with_name(self.folder.name + "-quarantine")

    def was_quarantined(self, path: str) -> bool:
        """Whether this relative path was moved away by an earlier run."""
        return (self.quarantine_folder / path).exists()

    def quarantine(self, paths: Iterable[str]) -> None:
        """Move files into :attr:`quarantine_folder` under the same relative paths; nothing is overwritten."""
        for path in paths:
            wanted = self.quarantine_folder / path
            target, number = wanted, 1
            while os.path.lexists(target):
                target = wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")
                number += 1
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(self.folder / path, target)
            except OSError as error:
                raise DataError(
                    f"cannot move {self.folder / path} to {target}: {reason(error)}; "
                    "use --bad-files skip, or move the file yourself"
                ) from error

    def close(self) -> None:
        """Nothing is held open."""


class ZipSource:
    """Images in a zip archive, as sorted paths. A single folder around everything is left out of them."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.name = self.path.name
        self._state: tuple[int, threading.Lock, zipfile.ZipFile] | None = None
        entries = self._entries()
        hidden = [name for name in entries if is_hidden(name)]
        visible = [name for name in entries if not is_hidden(name)]
        images = [name for name in visible if is_image(name)]
        labels = [name for name in visible if PurePosixPath(name).name == LABEL_FILE]
        self._top = "" if LABEL_FILE in labels else _common_top(images)
        self.files = sorted(name.removeprefix(self._top) for name in images)
        label_entry = self._top + LABEL_FILE
        self._label_entry = label_entry if label_entry in labels else None
        ignored = len(visible) - len(images) - (self._label_entry is not None)
        self.notes = _ignored_note(len(hidden), ignored)

    def _entries(self) -> list[str]:
        try:
            archive = self._archive()[1]
            infos = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{self.path} is not a readable zip archive ({str(error).lower()}): "
                "it may be cut off, or no zip at all"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {reason(error)}") from error
        locked = [info.filename for info in infos if info.flag_bits & 1]
        if locked:
            raise DataError(
                f"{self.path} is protected by a password ({plural(len(locked), 'file')}, "
                f"such as {locked[0]}): unpack it and give the folder, or pack it again without one"
            )
        return list(dict.fromkeys(info.filename for info in infos))

    def _archive(self) -> tuple[threading.Lock, zipfile.ZipFile]:
        # A handle taken through a fork shares its offset with the parent and reads garbage.
        state = self._state
        if state is None or state[0] != os.getpid():
            state = self._state = (os.getpid(), threading.Lock(), zipfile.ZipFile(self.path))
        return state[1], state[2]

    def _read(self, name: str) -> bytes:
        lock, archive = self._archive()
        with lock:
            _check_length(archive.getinfo(name).file_size)
            return archive.read(name)

    def load(self, index: int) -> Image.Image:
        return open_image(self._read(self._top + self.files[index]))

    def classes(self, conditional: bool) -> Classes:
        """See :func:`gancore.data.labels.classes_of_files`."""
        return classes_of_files(self, conditional)

    def label_text(self) -> bytes | None:
        """Content of dataset.json, or None without one."""
        if self._label_entry is None:
            return None
        try:
            return self._read(self._label_entry)
        except Exception as error:
            raise DataError(f"cannot read {self._label_entry} in {self.path}: {error}") from error

    def was_quarantined(self, path: str) -> bool:
        """Never: archives are not changed."""
        return False

    def close(self) -> None:
        state, self._state = self._state, None
        if state is not None and state[0] == os.getpid():
            state[2].close()


def _common_top(images: list[str]) -> str:
    """``"top/"`` when every image lies in a sub-folder of one folder ``top``, else an empty string."""
    tops = {name.split("/", 1)[0] for name in images}
    if len(tops) == 1 and all(name.count("/") >= 2 for name in images):
        return tops.pop() + "/"
    return ""
