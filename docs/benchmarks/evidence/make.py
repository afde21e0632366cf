"""Pictures and tables of evidence.md from finished ablations: ``python …/make.py [FOLDER]``.

FOLDER, by default ``ablations``, holds an ablation for each name of :data:`SHOWN`, made by the commands on that
page; what is published of one that is not there stays.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gancore
from gancore import pictures
from gancore.ablation.tables import markdown_table, title
from gancore.cli.sample import reference
from gancore.text import facts

HERE = Path(__file__).parent
PAGE = HERE.parent / "evidence.md"
IMAGES = ("fid_classifier", "kid_classifier", "precision_classifier", "recall_classifier", "probe_accuracy")
POINTS = ("modes_covered", "high_quality", "reverse_kl")
SHOWN = {
    "points-gaussians": POINTS,
    "points-circles": (*POINTS, "radial_error", "angular_coverage"),
    "methods": IMAGES,
    "augself": IMAGES,
    "kdd": IMAGES,
    "lsgan": IMAGES,
}
ROWS, COLUMNS_OF_SAMPLES, ENLARGED = 4, 10, 3


def samples(run: gancore.Run) -> Tensor:
    """One tile (C, H, W) in [-1, 1] of what a run generates: forty images, or points over the data."""
    found = run.sample(ROWS * COLUMNS_OF_SAMPLES)
    if found.dim() == 4:
        rows = [torch.cat(list(row), dim=-1) for row in found.split(COLUMNS_OF_SAMPLES)]
        tile = torch.cat(rows, dim=-2)
        return tile.repeat_interleave(ENLARGED, dim=-2).repeat_interleave(ENLARGED, dim=-1)
    cloud = np.asarray(pictures.scatter(run.sample(2000), reference(run), size=400))
    return torch.from_numpy(cloud.copy()).permute(2, 0, 1) / 127.5 - 1


def tables(results: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """A table for each metric, and the protocol of the first."""
    parts = [f"{title(results, name)}:\n\n{markdown_table(results, name)}" for name in metrics]
    protocol = f"Protocol of `{metrics[0]}`: {facts(results['metrics'][metrics[0]]['protocol'])}."
    return "\n\n".join([*parts, protocol])


def section(name: str, results: Mapping[str, Any]) -> str:
    """What stands on the page between the marks of this name."""
    arms = list(results["cost"])
    return "\n\n".join(
        [
            f"![Samples of seed {results['seeds'][0]}, {', '.join(arms)}](evidence/{name}.png)",
            f"![{SHOWN[name][0]}: differences to the baseline](evidence/{name}.svg)",
            tables(results, SHOWN[name]),
            f"All metrics of every run: [{name}.json](evidence/{name}.json).",
        ]
    )


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text between the marks of this name."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    page, found = marked.subn(lambda match: f"{match[1]}{text}{match[2]}", page)
    if found != 1:
        raise SystemExit(f"{PAGE}: found '<!-- {name} -->' with '<!-- end -->' {found} times; expected once")
    return page


def publish(name: str, folder: Path) -> None:
    """Copy plot and results of an ablation, draw samples of its first seed, and write its section."""
    chosen = [word for metric in SHOWN[name] for word in ("--metric", metric)]
    subprocess.run([sys.executable, "-m", "gancore", "ablate", str(folder), "--no-run", *chosen], check=True)
    shutil.copyfile(folder / f"forest-{SHOWN[name][0]}.svg", HERE / f"{name}.svg")
    shutil.copyfile(folder / "results.json", HERE / f"{name}.json")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    arms, seed = list(results["cost"]), results["seeds"][0]
    tiles = [samples(gancore.load(folder / "runs" / arm / f"seed-{seed}")) for arm in arms]
    pictures.save_png(
        pictures.grid(torch.stack(tiles), min(len(tiles), 3), gap=8, captions=arms), HERE / f"{name}.png"
    )
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, name, section(name, results)), encoding="utf-8")


def main() -> None:
    """Publish what there is."""
    ablations = Path(sys.argv[1] if len(sys.argv) > 1 else "ablations")
    for name in SHOWN:
        if (ablations / name / "plan.json").is_file():
            publish(name, ablations / name)
            print(name)
        else:
            print(f"{name}: not in {ablations}")


if __name__ == "__main__":
    main()
