"""The files of an ablation's results: ``results.json``, ``table.md``, forest plots, ``report.html``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gancore.ablation.jobs import AblationFolder
from gancore.ablation.plan import Plan
from gancore.ablation.results import shown_metrics
from gancore.ablation.tables import as_markdown, title
from gancore.atomic import write_atomic

KINDS: tuple[Literal["svg", "png"], ...] = ("svg", "png")


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
    """Write ``report.html`` and a forest plot a metric, ``forest-METRIC.svg`` and ``.png``; returns their paths.

    Raises:
        ConfigError: the extra for reports is not installed.
    """
    from gancore.ablation.page import forest_rows, page
    from gancore.report.forest import picture

    written = [folder.path / "report.html"]
    write_atomic(written[0], page(folder, plan, results, chosen).encode())
    for name in shown_metrics(results, chosen):
        rows = forest_rows(results, name)
        if not rows:
            continue
        for kind in KINDS:
            path = folder.path / f"forest-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.{kind}"
            text = f"{title(results, name)}: difference to {plan.baseline}"
            write_atomic(path, picture(rows, text, kind))
            written.append(path)
    return written
