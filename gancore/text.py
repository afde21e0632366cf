"""How numbers, names and facts are written for people, in messages, tables and pages alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMED = 20
"""Items that a list in a message names."""

_HASH = re.compile(r"[0-9a-f]{64}")


def plural(count: int, noun: str) -> str:
    """``"1 image"``, ``"2,000 images"``, ``"2 classes"``."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def listed(items: Iterable[str]) -> str:
    """Up to twenty items separated by commas, and how many more there are."""
    known = list(items)
    more = f" and {len(known) - NAMED:,} more" if len(known) > NAMED else ""
    return ", ".join(known[:NAMED]) + more


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min 20 s"``, ``"2 h 05 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> str:
    """Left-aligned columns, two spaces apart; the last one is not padded."""
    lines = [header, *rows] if header else list(rows)
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fact(value: object) -> str:
    """A value of a protocol: ``"yes"``, ``"0.01"``, and a SHA-256 as its first twelve digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if isinstance(value, float) and float(f"{value:g}") == value:
        text = f"{value:g}"
    return f"{text[:12]}…" if _HASH.fullmatch(text) else text


def facts(protocol: Mapping[str, Any]) -> str:
    """A protocol in a line; what is not known is left out."""
    return ", ".join(f"{key} {fact(value)}" for key, value in protocol.items() if value is not None)
