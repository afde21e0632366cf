"""All set-up of gancore: the sessions share the environment ``.venv`` with the core and all plugins.

``python -m pip install nox && python -m nox -s demo`` trains and shows pictures; ``-s tests`` passes the suite.
``uv sync --all-packages --all-extras`` fills and ``uv run`` uses the same environment.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "uv|virtualenv"

ROOT = pathlib.Path(__file__).parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / "python")
STAMP = ENVIRONMENT / "gancore-installed"
PLUGINS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("plugins/*/pyproject.toml"))
QUIET = {"OMP_NUM_THREADS": "1"}  # two OpenMP threads stall each other when anything else runs


def prepare(session: nox.Session) -> None:
    """Fill the environment with the core and every plugin from the checkout, in one call that resolves them all.

    A second call sees that no project file has changed and costs nothing.
    """
    projects = (".", *PLUGINS)
    files = [(ROOT / project / "pyproject.toml").read_text(encoding="utf-8") for project in projects]
    state = "\n".join([str(ROOT), *files])
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == state:
        return
    editable = [argument for plugin in PLUGINS for argument in ("-e", plugin)]
    packages = ["-e", ".[report,video,tensorboard,test,lint]", *editable]
    uv = shutil.which("uv")
    if uv:
        if not BIN.exists():
            session.run(uv, "venv", "--python", sys.executable, str(ENVIRONMENT), external=True)
        session.run(uv, "pip", "install", "--python", PYTHON, *packages, external=True)
    else:
        if not BIN.exists():
            session.run(sys.executable, "-m", "venv", str(ENVIRONMENT), external=True)
        session.run(PYTHON, "-m", "ensurepip", external=True, silent=True)
        session.run(PYTHON, "-m", "pip", "install", *packages, external=True)
    # Without a compiler the reference paths are used, and gan says so.
    run(session, "gancore", "ops", "build", success=(0, 1))
    STAMP.write_text(state, encoding="utf-8")


def run(session: nox.Session, *command: str, quiet: bool = True, success: tuple[int, ...] = (0,)) -> None:
    """Run a module of the shared environment."""
    env = {"VIRTUAL_ENV": str(ENVIRONMENT), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    settings = {**env, **(QUIET if quiet else {})}
    session.run(PYTHON, "-m", *command, external=True, env=settings, success_codes=success)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Train AdaptiveMix on the embedded digits, from scratch, and show a sample grid (about three minutes)."""
    prepare(session)
    run(session, "gancore", "train", "--preset", "demo", "--plugin", "adaptivemix", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Everything: the quick selection, the slow tests, and on a machine with a GPU those too."""
    prepare(session)
    run(session, "pytest", "-m", "", *session.posargs)


@nox.session(venv_backend="none")
def quick(session: nox.Session) -> None:
    """The default selection."""
    prepare(session)
    run(session, "pytest", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    prepare(session)
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types of the core and of every plugin."""
    prepare(session)
    run(session, "mypy", "gancore")
    for plugin in PLUGINS:
        run(session, "mypy", *map(str, (ROOT / plugin / "src").glob("gancore_*")))


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device; they skip with a reason where there is none."""
    prepare(session)
    run(session, "pytest", "-m", "gpu", *session.posargs, quiet=False)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """The benchmarks; each prints its machine, its baseline and a ratio with spread."""
    prepare(session)
    chosen = session.posargs or sorted(p.stem for p in (ROOT / "tests/benchmarks").glob("bench_*.py"))
    for name in chosen:
        session.run(PYTHON, f"tests/benchmarks/{name}.py", external=True, env=QUIET)


@nox.session
@nox.parametrize("plugin", PLUGINS, ids=[pathlib.Path(plugin).name for plugin in PLUGINS])
def plugins(session: nox.Session, plugin: str) -> None:
    """Each plugin installs from the checkout in an environment of its own and passes its own tests."""
    session.install("-e", ".[test]", "-e", plugin)
    session.run("python", "-m", "pytest", "-m", "", f"{plugin}/tests", env=QUIET)
    session.run("gan", "plugins", "show", pathlib.Path(plugin).name)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel of the core and of every plugin, install the wheels, and ask for the version."""
    session.install("build", "hatchling")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for project in (".", *PLUGINS):
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(dist), project)
    session.install(*map(str, sorted(dist.glob("*.whl"))))
    session.run("gan", "--version")
    session.run("gan", "plugins", "list")
