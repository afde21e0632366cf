"""``gan report``: one file, wherever it is asked for; what cannot be made is said before anything is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs_for_tests import tick, write_run

pytest.importorskip("matplotlib", reason="needs the extra gancore[report]")
pytest.importorskip("jinja2", reason="needs the extra gancore[report]")

from gancore.cli.main import cli
from gancore.errors import CheckpointError, ConfigError, RunFolderError


def run(*arguments: object):
    result = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def young(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", rows=[tick(10)], frames=[0])


def test_a_report_of_one_run(young: Path, tmp_path: Path) -> None:
    done = run(young)
    assert done.stdout == f"{young / 'report.html'}\n"
    page = (young / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert run(young, "--out", tmp_path / "new" / "a.html").stdout == f"{tmp_path / 'new' / 'a.html'}\n"
    assert (tmp_path / "new" / "a.html").read_text() == page


def test_several_runs_need_a_place(young: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other")
    refused = run(young, other)
    assert refused.exit_code == 2
    assert "--out FILE" in refused.stderr
    assert run(young, other, "--out", tmp_path / "two.html").exit_code == 0
    assert "2 runs compared" in (tmp_path / "two.html").read_text()
    assert run(young, young, "--out", tmp_path / "one.html").exit_code == 0
    assert "runs compared" not in (tmp_path / "one.html").read_text()


def test_mistakes_are_told(young: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        run(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"expected at most 8"):
        run(*(tmp_path / str(index) for index in range(9)), "--out", tmp_path / "a.html")
    with pytest.raises(RunFolderError, match="cannot write"):
        run(young, "--out", young / "config.toml" / "a.html")
    assert run(young, "--out", tmp_path).exit_code == 2


def test_damage_is_told_on_stderr(young: Path) -> None:
    (young / "checkpoints" / "step-00000010.json").write_text("{")
    done = run(young)
    assert done.exit_code == 0
    assert "step-00000010.json is damaged" in done.stderr


def test_without_the_extra(young: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'gancore\[report\]'"):
        run(young)
    assert not (young / "report.html").exists()


def test_a_report_imports_no_torch(young: Path) -> None:
    code = (
        "import sys; from gancore.cli.report import report\n"
        f"report([{str(young)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
