"""Rules about what is installed: the entry point and the card."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from gancore.config import flatten
from gancore.errors import PluginError
from gancore.method import Method
from gancore.options import option_fields
from gancore.plugin_manager import ENTRY_POINT_GROUP
from gancore.testing.bench import Bench
from gancore.testing.subject import Breach

CORE = "gancore"

_DISCOVER = """
import importlib.metadata, json, sys, traceback

class Finder:
    where = None
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and Finder.where is None:
            frames = [f for f in traceback.extract_stack()[:-1] if "importlib" not in f.filename]
            Finder.where = f"{frames[-1].filename}:{frames[-1].lineno}"

sys.path += [entry for entry in json.loads(sys.argv[3]) if entry not in sys.path]
sys.meta_path.insert(0, Finder())
from gancore.plugin_manager import ENTRY_POINT_GROUP, discover
points = [p for p in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP) if p.dist.name == sys.argv[1]]
registry = discover(points)
loaded = Finder.where
name, error = sys.argv[2], None
if name in registry.methods:
    try:
        registry.methods[name].claims(registry.methods[name].options())
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
print(json.dumps({
    "points": [p.name for p in points], "broken": registry.broken, "found": name in registry.methods,
    "loading": loaded, "claiming": None if loaded else Finder.where, "error": error,
}))
"""


def entry_point(bench: Bench) -> str | None:
    """The plugin is found through its entry point in the group gancore.plugins, loads without importing torch,
    and registers a spec whose target is a Method for this version of the hooks."""
    spec = bench.spec  # refuses another version of the hooks
    name = bench.name
    if not spec.summary.strip():
        raise Breach(
            "its spec has an empty summary",
            expected="one sentence, which `gan plugins list` shows",
            fix='MethodSpec(summary="…")',
        )
    loaded = spec.load()
    if not inspect.isclass(loaded) or not issubclass(loaded, Method):
        raise Breach(
            f"the target '{spec.target}' is {loaded!r}",
            expected="a subclass of gancore.api.Method",
            fix='MethodSpec(target="package.module:Class")',
        )
    distribution = bench.registry.origins[name].distribution
    if distribution == CORE or not _is_installed(distribution):
        return None  # included in the core, or handed over by a test: there is no entry point to look for
    found = _discovered(distribution, name)
    if found["broken"] or not found["found"]:
        reasons = "; ".join(f"'{point}': {reason}" for point, reason in found["broken"].items())
        raise Breach(
            f"a fresh process does not find it through the entry points {found['points']} of '{distribution}'"
            + (f" ({reasons})" if reasons else ""),
            expected=f"an entry point in the group {ENTRY_POINT_GROUP} whose module registers '{name}'",
            fix=f'[project.entry-points."{ENTRY_POINT_GROUP}"] in pyproject.toml, and register_methods marked '
            "with @hookimpl in the module that it names",
        )
    for when, what in (("loading", "loading the entry point"), ("claiming", "asking for its claims")):
        if found[when]:
            raise Breach(
                f"{what} imports torch, at {found[when]}",
                expected="spec, options and claims without torch, so that `gan plugins list` stays fast",
                fix="import torch only in the module that the spec's target names",
            )
    if found["error"]:
        raise Breach(
            f"its claims for the default options raise {found['error']}",
            expected="Claims",
            fix="claims(options) is pure: it looks at the options and nothing else",
        )
    return None


SECTIONS = {
    "how to use": r"how to use|usage|use",
    "options": r"options",
    "deviations": r"deviations?",
    "mixing": r"mixing|mixes",
    "cost": r"costs?",
}


def card(bench: Bench) -> str | None:
    """The installed distribution carries a README that `gan plugins show` finds, with how to use, a table that
    names every option, deviations, mixing, cost, the reference, and a picture of what the method does."""
    from gancore.cli.plugins import describe

    distribution = bench.registry.origins[bench.name].distribution
    if distribution == CORE:
        return "methods included in gancore are described in its own pages"
    if not _is_installed(distribution):
        return f"'{bench.name}' was handed over by a test and lies in no installed distribution"
    text = describe(bench.registry, bench.name)["card"]
    if not text:
        raise Breach(
            f"`gan plugins show {bench.name}` finds no README in '{distribution}'",
            expected="the method's card as the distribution's long description",
            fix='readme = "README.md" in [project] of pyproject.toml, and install it again',
        )
    text = _source_readme(distribution) or text
    parts = _parts(text)
    missing = [
        title
        for title, pattern in SECTIONS.items()
        if not any(re.fullmatch(pattern, heading, re.IGNORECASE) for heading in parts)
    ]
    if missing:
        raise Breach(
            f"the card has no section {', '.join(repr(title) for title in missing)}",
            expected=f"headings {', '.join(repr(title) for title in SECTIONS)}",
            fix="add them; say 'None.' where there is nothing to say",
        )
    options = "\n".join(body for heading, body in parts.items() if heading.lower() == "options")
    rows = "\n".join(line for line in options.splitlines() if line.lstrip().startswith("|"))
    names = option_fields(bench.spec.options)
    absent = [o for o in names if f"`{o}`" not in rows and f"`{bench.name}.{o}`" not in rows]
    if absent:
        raise Breach(
            f"the table of options does not name {', '.join(f'`{option}`' for option in absent)}",
            expected="a row for every option, its name in backticks",
            fix="add the rows; `gan plugins show` prints name, type, default, range and help of each",
        )
    if not re.search(r"```bibtex|\barxiv\b|\bdoi\b|^#+ references?\b", text, re.IGNORECASE | re.MULTILINE):
        raise Breach(
            "the card names no source",
            expected="a bibtex block, an arXiv number or DOI, or a section 'Reference'",
            fix="cite the paper, or say in a section 'Reference' that there is none",
        )
    if not re.search(r"!\[[^\]]*\]\([^)]+\)|<img\b|\]\([^)]+\.(png|svg|jpe?g|gif|webp)\)", text, re.IGNORECASE):
        raise Breach(
            "the card shows no picture",
            expected="a picture, or a link to a figure, of what the method does to images or features",
            fix="![what it shows](pictures/NAME.png)",
        )
    return None


# Parts of entry-point.


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _discovered(distribution: str, name: str) -> dict[str, Any]:
    """What a fresh process finds; this one may have imported torch long ago."""
    path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
    command = [sys.executable, "-c", _DISCOVER, distribution, name, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PluginError(f"a fresh process cannot discover '{distribution}': {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# Parts of card.


def _parts(text: str) -> dict[str, str]:
    """Heading -> what stands below it, code left out of the search for headings."""
    parts: dict[str, list[str]] = {"": []}
    current, fenced = "", False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else re.match(r"#{1,6}\s+(.+?)\s*#*$", line)
        if heading:
            current = heading[1].strip()
            parts.setdefault(current, [])
        else:
            parts[current].append(line)
    return {heading: "\n".join(lines) for heading, lines in parts.items()}


def _source_readme(distribution: str) -> str:
    """The README of a checkout that is installed as editable: its metadata is as old as the installation."""
    try:
        record = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        origin = json.loads(record or "{}")
        if not origin.get("dir_info", {}).get("editable"):
            return ""
        root = Path(url2pathname(urlparse(origin["url"]).path))
        project = flatten(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")))
        readme = project.get("project.readme") or project.get("project.readme.file") or ""
        return (root / readme).read_text(encoding="utf-8") if readme else ""
    except (OSError, ValueError):
        return ""
