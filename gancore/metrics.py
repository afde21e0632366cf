"""What an ``evaluate`` hook receives and returns, and how its results are gathered.

A score without its protocol cannot be compared, so every metric is kept with one: what the method that measured
it says (counts, seed, backbone), and what the core knows (data, generator).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from gancore.data.dataset import Dataset
from gancore.errors import PluginError
from gancore.networks.protocols import Discriminator
from gancore.sampling import BATCH, class_of
from gancore.text import fact

Better = Literal["lower", "higher", ""]
Fact = str | int | float | bool | None

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


@dataclass(frozen=True)
class Score:
    """A metric and how it was measured.

    Attributes:
        value: a finite number.
        better: which direction is better; empty when neither is.
        protocol: what the method knows of the measurement: counts, seed, backbone and its hash, resize filter.
    """

    value: float
    better: Better = ""
    protocol: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """A source of samples, the data they are compared with, and the trained discriminator if there is one.

    Attributes:
        source: ``source(count, seed, batch)`` yields samples; see :meth:`batches`.
        dataset: the reference, as the run sees it.
        step, images_seen: where in the run this is.
        num_classes: of the generator; 0 when it is unconditional.
        trained_on: digest of the set that D was trained on; the reference may be another. "" where nobody knows.
        limit: the most samples that there are; None for as many as one asks for.
        discriminator: in evaluation mode; None for a folder of images.
        device: where networks are, and where a method may compute.
        protocol: what the core knows of the measurement; it enters every score.
        progress: tell the user how far long work is: ``progress("features", done, total, "images")``.
    """

    source: Callable[[int, int, int], Iterator[Tensor]]
    dataset: Dataset
    step: int = 0
    images_seen: int = 0
    num_classes: int = 0
    trained_on: str = ""
    limit: int | None = None
    discriminator: Discriminator | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    protocol: Mapping[str, Fact] = field(default_factory=dict)
    progress: Callable[[str, int, int, str], None] = lambda what, done, total, noun: None
    open_held_out: Callable[[], Dataset | None] = lambda: None
    open_labelled: Callable[[], Dataset | None] = lambda: None
    pictures: dict[str, tuple[Image.Image, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def batches(self, count: int, seed: int, size: int = BATCH) -> Iterator[Tensor]:
        """``count`` samples in parts of ``size``: (size, C, H, W) in [-1, 1] or points (size, 2), on the CPU.

        The same seed gives the same samples. No more than ``limit`` may be asked for.
        """
        return self.source(count, seed, size)

    def generate(self, count: int, seed: int) -> Tensor:
        """All of :meth:`batches` in one tensor."""
        return torch.cat(list(self.batches(count, seed)))

    def labels(self, count: int) -> Tensor | None:
        """The class of each sample, (count,) int64; None when the generator is unconditional."""
        if not self.num_classes:
            return None
        return torch.tensor([class_of(index, self.num_classes) for index in range(count)])

    @functools.cached_property
    def held_out(self) -> Dataset | None:
        """Data that D was not trained on, prepared as the reference; None when the run names none."""
        return self.open_held_out()

    @functools.cached_property
    def labelled(self) -> Dataset | None:
        """The reference with its labels, even when the run does not use them; None when it has none."""
        return self.dataset if self.dataset.labels is not None else self.open_labelled()

    def show(self, name: str, picture: Image.Image, caption: str) -> None:
        """Keep a picture with the result; a second one of a name replaces the first.

        Args:
            name: letters, digits, ``-`` and ``_``: it becomes part of a file name.

        Raises:
            TypeError, ValueError: another name, no picture, a caption that is no text.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name, re.ASCII):
            raise ValueError(f"samples.show: name {name!r}; expected letters, digits, '-' and '_'")
        if not isinstance(picture, Image.Image) or not isinstance(caption, str):
            found = f"{type(picture).__name__} and {type(caption).__name__}"
            raise TypeError(f"samples.show('{name}'): {found}; expected a picture of Pillow and a text")
        self.pictures[name] = (picture if picture.mode in _PNG_MODES else picture.convert("RGB"), caption)

    def note(self, text: str) -> None:
        """A line for the reader of the result. Raises TypeError for what is no text."""
        if not isinstance(text, str):
            raise TypeError(f"samples.note: {type(text).__name__}; expected a text")
        if text not in self.notes:
            self.notes.append(text)


def gather(
    results: Mapping[str, Mapping[str, float | Score] | None], known: Mapping[str, Fact]
) -> dict[str, Score]:
    """All metrics of all methods in one table, each with its whole protocol.

    Args:
        known: what the core knows of the measurement; a method cannot override it.

    Raises:
        PluginError: two methods return one name, a name is no text, a value not a finite number, a protocol not
            plain and finite values.
    """
    owners: dict[str, str] = {}
    table: dict[str, Score] = {}
    for method in sorted(results):
        returned = results[method]
        if returned is not None and not isinstance(returned, Mapping):
            raise PluginError(
                f"plugin '{method}' returned {type(returned).__name__} from evaluate; expected a dict"
            )
        for name, given in (returned or {}).items():
            if not isinstance(name, str) or not name:
                raise PluginError(f"plugin '{method}' returned a metric named {name!r}; expected a text")
            score = given if isinstance(given, Score) else Score(given)
            value = _number(score.value)
            if name in owners:
                raise PluginError(f"metric '{name}' returned by both '{owners[name]}' and '{method}'")
            if not math.isfinite(value):
                raise PluginError(
                    f"plugin '{method}' returned metric '{name}' = {score.value!r}; expected a number"
                )
            _check_protocol(method, name, score, known)
            owners[name] = method
            table[name] = Score(value, score.better, {"method": method, **score.protocol, **known})
    return table


def unlike(protocols: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What keeps scores of one metric from being compared, one line a fact; none when nothing does.

    Args:
        protocols: by a label of who was measured. A fact that is None is unknown, and differs from nothing; a
            fact that a protocol does not have differs from every value.
    """
    lines = []
    for key in sorted({key for protocol in protocols.values() for key in protocol}):
        values = {label: protocol.get(key, _ABSENT) for label, protocol in protocols.items()}
        known = {label: value for label, value in values.items() if value is not None}
        if len({repr(_plain(value)) for value in known.values()}) > 1:
            lines.append(f"{key}: " + ", ".join(f"{fact(value)} ({label})" for label, value in known.items()))
    return lines


def unknown(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Facts that some of these protocols know and others do not."""
    keys = sorted({key for protocol in protocols for key in protocol})
    return [
        key
        for key in keys
        if any(protocol.get(key, _ABSENT) is None for protocol in protocols)
        and not all(protocol.get(key) is None for protocol in protocols)
    ]


class _Absent:
    def __repr__(self) -> str:
        return "not said"


_ABSENT = _Absent()


def _plain(value: object) -> object:
    """1.0 as 1: JSON that other programs wrote does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_protocol(method: str, name: str, score: Score, known: Mapping[str, Fact]) -> None:
    if not isinstance(score.protocol, Mapping):
        raise PluginError(
            f"plugin '{method}', protocol of metric '{name}' is {type(score.protocol).__name__}; expected a dict"
        )
    for key, value in score.protocol.items():
        plain = (
            value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        )
        if not isinstance(key, str) or not plain:
            raise PluginError(
                f"plugin '{method}', protocol of metric '{name}': {key!r} = {value!r}; expected by name text, "
                "finite numbers, booleans or None"
            )
        if key in known or key == "method":
            raise PluginError(
                f"plugin '{method}', protocol of metric '{name}': '{key}' is said by gancore itself; leave it out"
            )
    if score.better not in ("lower", "higher", ""):
        raise PluginError(
            f"plugin '{method}', metric '{name}': better = {score.better!r}; expected 'lower', 'higher' or ''"
        )


def _number(given: object) -> float:
    """Any number as a float, a tensor or numpy scalar too; NaN for what is none."""
    if isinstance(given, str | bytes):
        return math.nan
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # torch raises the last for several numbers
        return math.nan
