"""A report of one run or of several: everything a template shows, gathered within a size that opens at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancore.errors import ConfigError
from gancore.report import curves, sections
from gancore.report.charts import PALETTE
from gancore.report.embed import Embedded, Frame, embed, thumbnails, timeline
from gancore.report.page import render
from gancore.report.reading import RunRecord

MOST_RUNS = len(PALETTE)
"""Runs of a comparison: each has a colour of its own."""

FRAME_BYTES = 4_000_000
"""Of the pictures of all timelines together; with the rest a page stays below about 8 MB."""

PICTURE_BYTES = 2_000_000
"""Of all other pictures together."""

PICTURE_SIZE = 1024
"""Longest side of a picture of an evaluation, in pixels: it is to be read, not only looked at."""


@dataclass(frozen=True)
class Picture:
    """A picture with its caption."""

    run: str
    picture: Embedded
    name: str
    caption: str


def report(records: Sequence[RunRecord], *, live: str = "") -> str:
    """The page as HTML.

    Args:
        records: one run, or several to compare.
        live: for a page that asks the server it came from for news: which state of the folder this is.

    Raises:
        ConfigError: too many runs, or the extra is not installed.
    """
    check_count(len(records))
    metrics = curves.measured(records)
    groups, undrawn = curves.logged(records)
    titles = _titles(records)
    timelines = [timeline(record.frames, FRAME_BYTES // len(records)) for record in records]
    pictures, left_out = _pictures(records, titles)
    context: dict[str, Any] = {
        "title": titles[0] if len(records) == 1 else f"{len(records)} runs compared",
        "live": live,
        "alone": len(records) == 1,
        "legend": list(zip(PALETTE, titles, strict=False)),
        "runs": [
            {
                "title": titles[index],
                "colour": PALETTE[index],
                "path": str(record.path),
                "state": record.state,
                "state_colour": sections.STATE_COLOURS[record.state],
                "text": sections.state_text(record),
                "problems": record.problems,
                "cards": sections.cards(record, metrics, index),
                "frames": timelines[index],
                "thumbnails": thumbnails(record.frames),
                "all_frames": len(record.frames),
                "classes": _classes(record),
                "plan": sections.plan(record),
                "interventions": sections.interventions(record),
                "configuration": sections.configuration(record),
                "environment": sections.environment(record),
            }
            for index, record in enumerate(records)
        ],
        "groups": groups,
        "undrawn": undrawn,
        "steps": _common_steps(timelines),
        "pictures": pictures,
        "left_out": left_out,
        "metrics": metrics,
        "metric_charts": curves.metric_charts(metrics),
        "scores": sections.scores(titles, metrics),
        "notes": _notes(records),
        "speed": curves.speeds(records),
        "cost": sections.cost(records, titles),
        "differences": sections.differences(records, titles) if len(records) > 1 else None,
    }
    return render("report.html", **context)


def check_count(runs: int) -> None:
    """Refuse more runs than there are colours.

    Raises:
        ConfigError: name fewer.
    """
    if runs > MOST_RUNS:
        raise ConfigError(
            f"{runs} runs in one report; expected at most {MOST_RUNS}, each in a colour of its own: name fewer, "
            "or compare many seeds with gan ablate"
        )


def _titles(records: Sequence[RunRecord]) -> list[str]:
    """Names of folders, or whole paths where two names are equal."""
    names = [record.name for record in records]
    return [
        name if names.count(name) == 1 else str(record.path) for name, record in zip(names, records, strict=True)
    ]


def _common_steps(timelines: Sequence[Sequence[Frame]]) -> list[int]:
    return sorted({frame.step for frames in timelines for frame in frames})


def _pictures(records: Sequence[RunRecord], titles: Sequence[str]) -> tuple[list[Picture], int]:
    """The newest picture of each name that evaluations kept, what ``gan sample`` wrote; how many do not fit."""
    found: list[tuple[str, Path, str, str]] = []
    for title, record in zip(titles, records, strict=True):
        newest: dict[str, tuple[str, Path, str, str]] = {}
        for row in record.evaluations:
            shown = row.get("pictures")
            for name, entry in shown.items() if isinstance(shown, dict) else ():
                path = _inside(record.path, entry)
                if path is not None:
                    newest[str(name)] = (
                        title,
                        path,
                        str(name),
                        f"step {row['step']:,}: {entry.get('caption', '')}",
                    )
        found += newest.values()
        found += [(title, path, path.stem, "made by gan sample") for path in reversed(record.others)]
    pictures: list[Picture] = []
    spent = left_out = 0
    for title, path, name, caption in found:
        picture = embed(path, kept=PICTURE_SIZE, scaled=PICTURE_SIZE)
        if picture is None or spent + len(picture.src) > PICTURE_BYTES:
            left_out += 1
            continue
        spent += len(picture.src)
        pictures.append(Picture(title, picture, name, caption))
    return pictures, left_out


def _inside(folder: Path, entry: Any) -> Path | None:
    """The file that an evaluation names, if it lies in the run folder."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        return None
    path = (folder / entry["file"]).resolve()
    return path if path.is_relative_to(folder.resolve()) else None


def _classes(record: RunRecord) -> list[str]:
    """Names of the classes of a conditional run."""
    data = record.sidecar.get("data")
    names = data.get("classes") if isinstance(data, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _notes(records: Sequence[RunRecord]) -> list[str]:
    """What methods told of their measurements, each once."""
    said: dict[str, None] = {}
    for record in records:
        for row in record.evaluations:
            notes = row.get("notes")
            said.update(dict.fromkeys(map(str, notes if isinstance(notes, list) else ())))
    return list(said)
