"""Which class a file belongs to: sub-folders or dataset.json; and the first part of every class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gancore.errors import DataError
from gancore.text import listed, plural

LABEL_FILE = "dataset.json"
_LARGEST_LABEL = 99_999


@dataclass(frozen=True)
class Classes:
    """``indices``: int64 (N,), the class of every file; ``names`` in the order of the indices.

    ``found`` says that the classes are what the files show, so that one without any file is none.
    """

    indices: np.ndarray
    names: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    found: bool = False

    def of(self, chosen: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels, int64, of the ``chosen`` files, and the names of the classes."""
        labels = self.indices[chosen]
        if not self.found:
            return labels, self.names
        present, labels = np.unique(labels, return_inverse=True)
        return labels.astype(np.int64), tuple(self.names[index] for index in present)


class LabelledFiles(Protocol):
    """What this module asks of a folder or an archive."""

    name: str
    files: list[str]

    def label_text(self) -> bytes | None:
        """Content of dataset.json, or None without one."""

    def was_quarantined(self, path: str) -> bool:
        """Whether this file was moved away by an earlier run."""


def classes_of_files(source: LabelledFiles, conditional: bool) -> Classes:
    """Classes from dataset.json when it has labels, else from first-level sub-folders.

    Unconditional sets are grouped by sub-folder too, for ``fraction``; files in no sub-folder are a group.
    There a dataset.json is not used. Raises DataError when ``conditional`` and labels are missing or wrong.
    """
    text = source.label_text()
    if not conditional:
        notes = [] if text is None else [f"{LABEL_FILE} not used: training without labels"]
        return _classes_of_folders(source.files, notes)
    if text is not None:
        classes = _classes_of_json(source, text)
        if classes is not None:
            return classes
    loose = [path for path in source.files if "/" not in path]
    if loose:
        raise DataError(
            f"{source.name}: {plural(len(loose), 'image')} in no sub-folder ({listed(loose)}), but "
            f"with --cond every sub-folder is a class: sort them, add {LABEL_FILE}, or train without --cond"
        )
    notes = [] if text is None else [f"{LABEL_FILE} has no labels: sub-folders are the classes"]
    return _classes_of_folders(source.files, notes)


def _classes_of_folders(files: Sequence[str], notes: list[str]) -> Classes:
    tops = [path.split("/", 1)[0] if "/" in path else "" for path in files]
    names = tuple(sorted(set(tops)))
    index = {name: position for position, name in enumerate(names)}
    return Classes(np.array([index[top] for top in tops], dtype=np.int64), names, notes, found=True)


def _classes_of_json(source: LabelledFiles, text: bytes) -> Classes | None:
    where = f"{LABEL_FILE} of {source.name}"
    pairs, names = _parse(text, where)
    if pairs is None:
        return None
    labels: dict[str, int] = {}
    twice = []
    for path, label in pairs:
        if labels.setdefault(path, label) != label:
            twice.append(path)
    _refuse(where, "gives two labels to", twice)
    known = set(source.files)
    absent = [path for path in labels if path not in known and not source.was_quarantined(path)]
    _refuse(where, "labels files that are not there:", absent)
    _refuse(where, "has no label for", [path for path in source.files if path not in labels])
    if names is None:
        names = tuple(str(index) for index in range(max(labels.values(), default=-1) + 1))
    indices = np.array([labels[path] for path in source.files], dtype=np.int64)
    return Classes(indices, names)


def _refuse(where: str, problem: str, offenders: Sequence[str]) -> None:
    if offenders:
        raise DataError(f"{where} {problem} {listed(offenders)} ({plural(len(offenders), 'file')})")


def _parse(text: bytes, where: str) -> tuple[list[tuple[str, int]] | None, tuple[str, ...] | None]:
    """(file, label) pairs or None for ``"labels": null``, and class names or None when there are none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict) or "labels" not in content:
        raise DataError(f'{where} has no "labels": expected {{"labels": [["file.png", 0], ...]}}')
    names = _class_names(content.get("classes"), where)
    entries = content["labels"]
    if entries is None:
        return None, names
    if isinstance(entries, dict):
        entries = list(entries.items())
    if not isinstance(entries, list):
        raise DataError(f'{where}: "labels" is {_short(entries)}, expected a list of [file, index]')
    wrong = [_short(entry) for entry in entries if not _is_pair(entry)]
    if wrong:
        raise DataError(f"{where}: expected [file, index], found {listed(wrong)}")
    limit = _LARGEST_LABEL
    wrong = [f"{path} ({_short(k)})" for path, k in entries if type(k) is not int or not 0 <= k <= limit]
    _refuse(where, f"has labels that are not whole numbers from 0 to {limit:,}:", wrong)
    if names is not None:
        wrong = [f"{path} ({label})" for path, label in entries if label >= len(names)]
        _refuse(where, f"has {plural(len(names), 'class')}, but higher labels:", wrong)
    return [(path, label) for path, label in entries], names


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)


def _class_names(names: Any, where: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{where}: "classes" is {_short(names)}, expected a list of names')
    return tuple(names)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def first_fraction(groups: np.ndarray, fraction: float) -> np.ndarray:
    """Sorted positions, int64, of the first ``fraction`` of every group (at least one of each), in order."""
    if fraction >= 1:
        return np.arange(len(groups))
    kept = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        # 0.29 * 100 is a little less than 29 in floating point.
        kept.append(members[: max(1, int(len(members) * fraction + 1e-9))])
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)
