"""Who may import whom, checked by reading the code."""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "gancore"
MODULES = sorted(CORE.rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*/src/**/*.py"))

ASSEMBLING = {"run", "training", "assembly", "trainer"}
"""Modules at the top; nothing below them imports them."""

BELOW = ("networks", "data", "metrics", "ops", "config", "specs", "options", "errors", "step", "program", "plan")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path, *, top_level_only: bool = False) -> frozenset[str]:
    """Dotted names of the modules a file imports, type-checking blocks excluded."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(parsed(path))
    return frozenset(names)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_the_command_line_imports_click_and_rich(path: Path) -> None:
    if "cli" not in path.parts and path.name != "__main__.py":
        assert not {n.split(".")[0] for n in imported(path)} & {"click", "rich"}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(CORE).parts[0].removesuffix(".py") in BELOW], ids=relative
)
def test_what_lies_below_imports_nothing_above(path: Path) -> None:
    above = {f"gancore.{name}" for name in ASSEMBLING}
    assert not imported(path) & above


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_core_imports_no_plugin_and_nothing_from_tests(path: Path) -> None:
    assert not [n for n in imported(path) if n.startswith(("gancore_", "tests"))]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_included_methods_use_the_public_api_like_any_plugin(path: Path) -> None:
    if path.parent.name == "builtins" and path.name in ("objectives.py", "penalties.py"):
        ours = {n for n in imported(path) if n.startswith("gancore")}
        assert {n.split(".")[1] for n in ours} == {"api"}


def pure_modules(plugin: str) -> set[str]:
    """Modules of the plugins that a plugin depends on which know nothing of gancore: equations, names of ops."""
    project = tomllib.loads((ROOT / "plugins" / plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [line.split(">")[0] for line in project["dependencies"]]
    packages = {name.replace("-", "_") for name in needed if name.startswith("gancore-")}
    return {
        f"{path.parent.name}.{path.stem}"
        for path in PLUGINS
        if path.parent.name in packages
        and not [n for n in imported(path) if n.startswith("gancore") and not n.startswith(path.parent.name)]
    }


@pytest.mark.parametrize("path", PLUGINS, ids=relative)
def test_plugins_import_the_public_api_alone(path: Path) -> None:
    """And the pure modules of the plugins they depend on."""
    plugin, _, own = path.relative_to(ROOT / "plugins").parts[:3]
    pure = pure_modules(plugin)
    allowed = ("gancore.api", "gancore.ops", "gancore.testing", own, *pure)
    ours = {n for n in imported(path) if n.startswith("gancore")}
    parents = {name.rpartition(".")[0] for name in pure}  # ``from gancore_x import functional``
    assert not [n for n in ours - {"gancore"} - parents if not n.startswith(allowed)]
    if path.name == "functional.py":
        assert not [n for n in ours if not n.startswith(own)]


@pytest.mark.parametrize("path", [*MODULES, *PLUGINS], ids=relative)
def test_no_pickle_on_any_path(path: Path) -> None:
    names = imported(path)
    assert not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    text = path.read_text(encoding="utf-8")
    assert "torch.load(" not in text
    assert "torch.save(" not in text


@pytest.mark.parametrize("path", [*MODULES, *PLUGINS], ids=relative)
def test_no_global_random_state(path: Path) -> None:
    """Seeding or drawing from a global generator would tie methods to each other's order."""
    calls = [ast.unparse(n.func) for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)]
    forbidden = {"np.random.seed", "numpy.random.seed", "np.random.rand", "np.random.randn", "random.random"}
    assert not forbidden & set(calls)
    assert "torch.manual_seed" not in calls
    if "torch.default_generator.manual_seed" in calls:
        assert path.name == "assembly.py", "only inside fork_rng, for initial weights"


@pytest.mark.parametrize("path", [*MODULES, *PLUGINS], ids=relative)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_core_knows_no_plugin_by_name() -> None:
    names = {p.name for p in (ROOT / "plugins").iterdir() if p.is_dir()}
    for path in MODULES:
        tree = parsed(path)
        docs = {
            id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
        }
        strings = [
            n.value
            for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
        ]
        assert not [s for s in strings if s in names], path
