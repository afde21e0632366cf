"""All set-up of gancore: every session shares one environment with the core and all plugins.

``python -m pip install nox && python -m nox -s demo`` trains and shows pictures; ``-s tests`` passes the suite.
"""

from __future__ import annotations

import pathlib
import shutil

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "uv|virtualenv"

ROOT = pathlib.Path(__file__).parent
ENVIRONMENT = ROOT / ".nox" / "gancore"
STAMP = ENVIRONMENT / ".installed"
PLUGINS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("plugins/*/pyproject.toml"))
QUIET = {"OMP_NUM_THREADS": "1"}  # two OpenMP threads stall each other when anything else runs


def prepare(session: nox.Session) -> None:
    """Install the core and every plugin from the checkout in one call; again only when a project file changed."""
    state = "\n".join((ROOT / name / "pyproject.toml").read_text(encoding="utf-8") for name in (".", *PLUGINS))
    installed = STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""
    if installed == state:
        return
    editable = [argument for plugin in PLUGINS for argument in ("-e", plugin)]
    session.install("-e", ".[test,lint]", *editable)
    STAMP.write_text(state, encoding="utf-8")


@nox.session(venv_location=str(ENVIRONMENT))
def demo(session: nox.Session) -> None:
    """Train AdaptiveMix on the embedded digits, from scratch, and show a sample grid (about three minutes)."""
    prepare(session)
    outdir = session.posargs[0] if session.posargs else "runs/demo"
    if not session.posargs and (ROOT / outdir).exists():
        shutil.rmtree(ROOT / outdir)  # the demo's own folder: a second call shows a fresh run
    session.run("gan", "train", "--preset", "demo", "--plugin", "adaptivemix", "--outdir", outdir, env=QUIET)


@nox.session(venv_location=str(ENVIRONMENT))
def tests(session: nox.Session) -> None:
    """Everything: the quick selection, the slow tests, and on a machine with a GPU those too."""
    prepare(session)
    session.run("python", "-m", "pytest", "-m", "", *session.posargs, env=QUIET)


@nox.session(venv_location=str(ENVIRONMENT))
def quick(session: nox.Session) -> None:
    """The default selection."""
    prepare(session)
    session.run("python", "-m", "pytest", *session.posargs, env=QUIET)


@nox.session(venv_location=str(ENVIRONMENT))
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    prepare(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_location=str(ENVIRONMENT))
def types(session: nox.Session) -> None:
    """Types of the core and of every plugin."""
    prepare(session)
    session.run("mypy", "gancore")
    for plugin in PLUGINS:
        session.run("mypy", *map(str, (ROOT / plugin / "src").glob("gancore_*")))


@nox.session(venv_location=str(ENVIRONMENT))
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device; they skip with a reason where there is none."""
    prepare(session)
    session.run("python", "-m", "pytest", "-m", "gpu", *session.posargs)


@nox.session(venv_location=str(ENVIRONMENT))
def bench(session: nox.Session) -> None:
    """The benchmarks; each prints its machine, its baseline and a ratio with spread."""
    prepare(session)
    chosen = session.posargs or sorted(p.stem for p in (ROOT / "tests/benchmarks").glob("bench_*.py"))
    for name in chosen:
        session.run("python", f"tests/benchmarks/{name}.py", env=QUIET)


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
