"""Real processes: an ablation that is killed and continued ends as one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gancore.ablation.check import CheckError, check
from gancore.ablation.jobs import AblationFolder, Job, in_use
from gancore.errors import DeviceError

PLUGIN = {
    "gancore_gauge/__init__.py": """
from gancore.api import MethodSpec, Options, hookimpl

SPEC = MethodSpec(
    name="gauge", summary="Measures.", target="gancore_gauge.method:Gauge", options=Options, observer=True
)

@hookimpl
def register_methods(register):
    register(SPEC)
""",
    "gancore_gauge/method.py": """
from gancore.api import Method, Score, hookimpl

class Gauge(Method):
    @hookimpl
    def evaluate(self, samples):
        spread = float(samples.generate(64, 0).std())
        return {"spread": Score(spread, "higher", {"samples": 64, "seed": 0})}
""",
    "gancore_gauge-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: gancore-gauge\nVersion: 0.1\n",
    "gancore_gauge-0.1.dist-info/entry_points.txt": "[gancore.plugins]\ngauge = gancore_gauge\n",
}
ARMS = ("-p", "r1", "--seeds", "1", "-p", "gauge", "--data", "gaussians", "--steps", "300", "--batch", "8")
OUTPUT = ("-o", "output.snap=50", "-o", "output.log_every=10", "--threads", "1", "--jobs", "2")
PATIENCE = 1200.0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a plugin that measures is installed."""
    root = tmp_path_factory.mktemp("gauge")
    for name, text in PLUGIN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def start(folder: Path, environment: dict[str, str], *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gancore", "ablate", *ARMS, *OUTPUT, "--outdir", str(folder), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def values(folder: Path) -> dict[str, dict[str, float]]:
    metrics = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    return {arm: found["values"] for arm, found in metrics["spread"]["arms"].items()}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_and_continued_is_equal_to_unbroken(tmp_path, environment):
    whole = start(tmp_path / "whole", environment)
    _, err = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, err

    folder = AblationFolder(tmp_path / "broken")
    run = folder.run(Job(0, "baseline"))
    for steps, number, code in ((60, signal.SIGKILL, -9), (160, signal.SIGTERM, 75)):
        queue = start(folder.path, environment)
        wait_for(
            lambda steps=steps: _logged(run.metrics) >= steps or queue.poll() is not None, "no step was logged"
        )
        queue.send_signal(number)
        _, err = queue.communicate(timeout=PATIENCE)
        assert queue.returncode == code, err
        wait_for(lambda: not in_use(run), "the run outlives its queue")
    assert f"continue with: gan ablate {folder.path}" in err
    assert "Traceback" not in err

    last = start(folder.path, environment)
    out, err = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, err
    assert "spread, higher is better" in out
    assert values(folder.path) == values(tmp_path / "whole")


def _logged(metrics: Path) -> int:
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


@pytest.mark.slow
def test_arms_are_built_before_anything_runs(tmp_path, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    texts = {
        "baseline": 'plugins = []\n[data]\nsource = "gaussians"\n',
        "big": 'plugins = []\n[data]\nsource = "gaussians"\n[train]\nbatch = 200000\n',
        "images": 'plugins = ["r1", "adaptivemix"]\n[data]\nsource = "circles"\n',
    }
    paths = {}
    for name, text in texts.items():
        paths[name] = tmp_path / f"{name}.toml"
        paths[name].write_text(text, encoding="utf-8")
    answer = check(paths, "baseline", ["gauge"], {"methods.gauge.weight": 1.0})
    assert answer.problems["big"][0] == 2
    assert "larger than the set" in answer.problems["big"][1]
    assert len(set(answer.digests.values())) == len(answer.digests) == 2
    with pytest.raises(CheckError, match="CUDA devices") as raised:
        check(paths, "", ["gauge"], {}, ["cuda:99"])
    assert raised.value.exit_code == DeviceError.exit_code


@pytest.mark.slow
def test_a_measurement_that_cannot_work_is_found_before_anything_runs(tmp_path, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "baseline.toml"
    path.write_text('[data]\nsource = "gaussians"\n', encoding="utf-8")
    with pytest.raises(CheckError, match="measuring fails: .*gauge") as raised:
        check({"baseline": path}, "baseline", ["gauge"], {"methods.gauge.weight": -1.0})
    assert raised.value.exit_code == 2
