"""``gan watch``: it ends with the run, leaves it alone, waits when told to, and says what it cannot do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs_for_tests import tick, write_run

from gancore.cli import watch as module
from gancore.cli.main import cli
from gancore.errors import CheckpointError

# A shell starts what it puts into the background with Ctrl-C ignored, these tests too, and children inherit that.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from gancore.cli.watch import watch; watch(prog_name='gan watch')"
)


def run(*arguments: object):
    result = CliRunner().invoke(cli, ["watch", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", rows=[tick(10)])
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert run(path).stdout.splitlines() == [
        "step 10 of 100  500 images/s  loss d 1.100  g 0.500",
        f"Stopped at step 10 of 100; to continue: gan resume {path}",
    ]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no run: .* to wait for one: gan watch .* --wait"):
        run(tmp_path)


@pytest.mark.parametrize("flag", [("--port", 8000), ("--no-open",)])
def test_flags_of_the_page_alone(tmp_path: Path, flag) -> None:
    refused = run(write_run(tmp_path / "run"), *flag)
    assert refused.exit_code == 2
    assert "belong to --web" in refused.stderr


def test_waiting_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    path = tmp_path / "run"

    def begin() -> None:
        write_run(path)
        time.sleep(0.1)
        (path / "metrics.jsonl").write_text(json.dumps(tick(10)) + "\n")

    later = threading.Timer(0.2, begin)
    later.start()
    done = run(path, "--wait")
    later.join()
    assert "waiting for a run in" in done.stderr
    assert done.stdout.startswith("step 10 of 100")


def test_it_follows_until_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    path = write_run(tmp_path / "run", rows=[tick(10)])
    looks = []

    def training(path: Path) -> bool:
        looks.append(1)
        with open(path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(tick(10 + 10 * len(looks))) + "\n")
        return len(looks) < 9

    monkeypatch.setattr("gancore.report.reading.is_training", training)
    lines = run(path).stdout.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [str(step) for step in range(10, 100, 10)]
    assert lines[-1].startswith("Stopped at step 90 of 100")


def test_watching_needs_neither_torch_nor_the_extra(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", rows=[tick(10)])
    code = (
        "import sys; sys.modules.update(matplotlib=None, jinja2=None, markupsafe=None)\n"
        "from gancore.cli.watch import watch\n"
        f"watch([{str(path)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_the_page_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra gancore[report]")
    path = write_run(tmp_path / "run", rows=[tick(10)])
    with start(path, "--web", "--no-open") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{url}state.json", timeout=60) as answer:
                assert json.load(answer)["step"] == 10
            port = url.rstrip("/").rpartition(":")[2]
            second = start(path, "--web", "--no-open", "--port", port)
            assert f"port {port} of 127.0.0.1 is taken" in second.communicate(timeout=120)[1]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out == ""
    assert "no longer watching; the run is left alone" in err
    assert "Traceback" not in err
