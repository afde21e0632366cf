"""Decode and check every image of a source once, then make the data set: in memory, or read on demand."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from gancore.data.dataset import Dataset, Digest, ImageSource, LazyDataset, MemoryDataset
from gancore.data.files import FolderSource
from gancore.data.labels import first_fraction
from gancore.data.options import DataOptions
from gancore.data.pixels import (
    RESIZE_FILTER,
    SMALLEST_SIZE,
    Facts,
    Preparation,
    decode,
    nearest_size,
    normalise,
    reason,
)
from gancore.errors import DataError
from gancore.text import listed, plural

Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")

_GUESSES = 8
# Below this side an image costs more Python than decoding, and threads only wait for each other.
_SMALL_SIDE = 128
_MOST_THREADS = 8


@dataclass
class _Tally:
    """What the good images of a pass were."""

    sides: list[int] = field(default_factory=list)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    resized: int = 0
    grey: int = 0
    transparent: int = 0
    deep: int = 0
    rotated: int = 0

    def add(self, facts: Facts, size: int) -> None:
        shape = (facts.width, facts.height)
        self.sides.append(min(shape))
        self.resized += shape != (size, size)
        self.smallest = min(self.smallest or shape, shape, key=lambda pair: pair[0] * pair[1])
        self.largest = max(self.largest or shape, shape, key=lambda pair: pair[0] * pair[1])
        self.grey += facts.grey
        self.transparent += facts.transparent
        self.deep += facts.deep
        self.rotated += facts.rotated

    def preparation(self, options: DataOptions) -> Preparation:
        """The preparation that these images call for under ``options``."""
        sides = self.sides or [SMALLEST_SIZE]
        size = options.image_size or nearest_size(float(np.median(sides)))
        rgb = options.channels == "rgb" or (options.channels == "auto" and self.grey < len(self.sides))
        return Preparation(size=size, channels=3 if rgb else 1, fit=options.fit)

    def threads(self) -> int:
        """How many threads decode such images fastest."""
        if np.median(self.sides or [0]) < _SMALL_SIDE:
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(_MOST_THREADS, cores)

    def notes(self, preparation: Preparation) -> list[str]:
        """Lines on what was converted."""
        total = len(self.sides)
        notes = []
        if self.resized:
            small, large = (f"{pair[0]}x{pair[1]}" for pair in (self.smallest or (0, 0), self.largest or (0, 0)))
            sizes = small if small == large else f"{small} to {large}"
            target = f"{preparation.size}x{preparation.size} ({RESIZE_FILTER}, {preparation.fit})"
            notes.append(f"{self.resized:,} of {total:,} images resized to {target}; sizes found: {sizes}")
        if preparation.channels == 3 and self.grey:
            notes.append(f"{self.grey:,} of {total:,} images are grey and were converted to RGB")
        if preparation.channels == 1 and self.grey < total:
            notes.append(f"{total - self.grey:,} of {total:,} images have colour and were converted to grey")
        if self.transparent:
            notes.append(f"{plural(self.transparent, 'image')} with transparency composited on white")
        if self.deep:
            notes.append(f"{plural(self.deep, '16-bit image')} reduced to 8 bits")
        if self.rotated:
            notes.append(f"{plural(self.rotated, 'image')} turned upright as EXIF says")
        return notes


@dataclass
class _Pass:
    """Files decoded once. In the end ``chosen`` are the good ones, ``rows`` their pixels if kept."""

    chosen: np.ndarray
    preparation: Preparation
    keep: bool
    threads: int
    rows: np.ndarray | None = None
    digest: Digest = field(default_factory=Digest)
    bad: dict[int, str] = field(default_factory=dict)
    tally: _Tally = field(default_factory=_Tally)


def prepare(source: ImageSource, options: DataOptions, progress: Progress | None = None) -> Dataset:
    """The data set of ``source``, every image of which has been decoded once.

    Raises DataError: fewer than two images, labels missing or wrong, bad files with ``bad_files = "stop"``.
    """
    try:
        dataset = _prepare(source, options, progress)
    except BaseException:
        source.close()
        raise
    if dataset.stored == "memory":
        source.close()
    return dataset


def _prepare(source: ImageSource, options: DataOptions, progress: Progress | None) -> Dataset:
    if not source.files:
        ignored = f" ({'; '.join(source.notes)})" if source.notes else ""
        raise DataError(f"no image in {source.name}{ignored}: expected files such as .png, .jpg or .webp")
    classes = source.classes(options.conditional)
    with warnings.catch_warnings():
        # Libraries warn about oddities that do no harm; what may fill the memory is a bad file.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        result = _settle(source, options, classes.indices, progress)
    chosen, bad, preparation = result.chosen, result.bad, result.preparation
    if len(chosen) < 2:
        also = f" ({plural(len(bad), 'bad file')}: {_reasons(source, bad)})" if bad else ""
        raise DataError(f"found {plural(len(chosen), 'image')} in {source.name}, expected at least 2{also}")
    notes = [*source.notes, *classes.notes]
    if options.fraction < 1:
        total = len(source.files) - len(bad)
        notes.append(f"first {options.fraction:g} of every class: {len(chosen):,} of {total:,} images")
    notes += _set_aside(source, bad, options) if bad else []
    notes += result.tally.notes(preparation)
    labels, names = classes.of(chosen) if options.conditional else (None, ())
    if result.rows is not None:
        record = preparation.record()
        return MemoryDataset(
            result.rows, name=source.name, labels=labels, class_names=names, notes=notes, preparation=record
        )
    notes.append(f"larger than {options.memory_gib:g} GiB when decoded: images are read on demand")
    return LazyDataset(
        source,
        chosen,
        preparation,
        digest=result.digest,
        labels=labels,
        class_names=names,
        notes=notes,
        threads=result.threads,
    )


def _settle(source: ImageSource, options: DataOptions, groups: np.ndarray, progress: Progress | None) -> _Pass:
    """Decode until the choice of files and the preparation agree with what was found: mostly once."""
    candidates = np.arange(len(source.files))
    bad: dict[int, str] = {}
    guess = _first_guess(source)
    preparation, threads = guess.preparation(options), guess.threads()
    while True:
        chosen = candidates[first_fraction(groups[candidates], options.fraction)]
        keep = len(chosen) * int(np.prod(preparation.shape)) <= options.memory_gib * 2**30
        result = _decode_all(source, _Pass(chosen, preparation, keep, threads), progress)
        found_bad = bool(result.bad)
        if found_bad and options.bad_files == "stop":
            raise DataError(
                f"{len(result.bad):,} of {plural(len(chosen), 'image')} in {source.name} cannot be used: "
                f"{_reasons(source, result.bad)}; repair or remove them, or go on without them with "
                "--bad-files skip|quarantine"
            )
        bad |= result.bad
        candidates = np.setdiff1d(candidates, list(result.bad))
        wanted = result.tally.preparation(options)
        # A guess can be wrong, and a bad file moves the end of the first fraction.
        if wanted == preparation and not (found_bad and options.fraction < 1):
            result.bad = bad
            return result
        preparation = wanted


def _first_guess(source: ImageSource) -> _Tally:
    """What a few images are, so that one pass is enough for most sets."""
    tally = _Tally()
    for position in np.unique(np.linspace(0, len(source.files) - 1, _GUESSES).astype(int)):
        try:
            facts = normalise(source.load(int(position)))[1]
        except Exception:  # the pass names it
            continue
        tally.add(facts, 0)
    return tally


def _decode_all(source: ImageSource, result: _Pass, progress: Progress | None) -> _Pass:
    chosen, preparation = result.chosen, result.preparation
    rows = np.empty((len(chosen), *preparation.shape), dtype=np.uint8) if result.keep else None
    size = max(1, min(64, (4 << 20) // int(np.prod(preparation.shape))))
    chunks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    good = done = 0
    reported = time.monotonic()
    for part, outcomes in _in_order(lambda part: _decode_some(source, part, preparation), chunks, result.threads):
        for position, outcome in zip(part, outcomes, strict=True):
            if isinstance(outcome, str):
                result.bad[int(position)] = outcome
                continue
            pixels, facts = outcome
            result.tally.add(facts, preparation.size)
            if rows is not None:
                rows[good] = pixels
            else:
                result.digest.add(pixels)
            good += 1
        done += len(part)
        if progress is not None and (done == len(chosen) or time.monotonic() - reported > 0.1):
            reported = time.monotonic()
            progress(done, len(chosen))
    if result.bad:
        result.chosen = np.setdiff1d(chosen, list(result.bad))
    result.rows = None if rows is None else rows[:good]
    return result


def _decode_some(
    source: ImageSource, positions: np.ndarray, preparation: Preparation
) -> list[tuple[np.ndarray, Facts] | str]:
    outcomes: list[tuple[np.ndarray, Facts] | str] = []
    for position in positions:
        try:
            outcomes.append(decode(source.load(int(position)), preparation))
        except Exception as error:  # decoders raise anything on damaged files
            outcomes.append(reason(error))
    return outcomes


def _in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[tuple[T, R]]:
    """Results in the order of ``items``, with a bounded number of them under way."""
    if threads == 1:
        yield from ((item, function(item)) for item in items)
        return
    with ThreadPoolExecutor(threads, "gancore-check") as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _reasons(source: ImageSource, bad: dict[int, str]) -> str:
    return listed(f"{source.files[position]} ({why})" for position, why in sorted(bad.items()))


def _set_aside(source: ImageSource, bad: dict[int, str], options: DataOptions) -> list[str]:
    """Quarantine bad files where asked and possible; lines on what happened to them."""
    what = f"{plural(len(bad), 'bad file')}: {_reasons(source, bad)}"
    if options.bad_files != "quarantine":
        return [f"left out {what}"]
    if not isinstance(source, FolderSource):
        return [f"left out, since files can only be moved out of a folder, {what}"]
    source.quarantine(source.files[position] for position in sorted(bad))
    return [f"moved to {source.quarantine_folder} {what}"]
