"""The command line on real files, from outside: kill -9, signals, a full disk, odd data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gancore
from gancore import checkpoint
from gancore.cli.main import main

pytestmark = pytest.mark.slow

GAN = [sys.executable, "-m", "gancore"]
SMALL = ["-o", "network.g_width=8", "-o", "network.d_width=8", "--batch", "16", "--threads", "1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}


def gan(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GAN, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT
    )


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*GAN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def wait_for(condition, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty odd images: sizes, modes, nesting, and two files that are none."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    modes = ("RGB", "L", "RGBA", "P", "CMYK", "1", "LA")
    for index in range(40):
        size = tuple(int(s) for s in rng.integers(9, 70, 2))
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(modes[index % 7])
        place = folder / f"class{index % 2}" / ("deep" if index % 3 else "")
        place.mkdir(parents=True, exist_ok=True)
        suffix = "jpg" if modes[index % 7] in ("RGB", "L", "CMYK") else "png"
        picture.save(place / f"{index}.{suffix}")
    (folder / "notes.txt").write_text("not an image, and not called one")
    return folder


def test_kill_9_and_resume_equal_an_unbroken_run(photos: Path, tmp_path: Path) -> None:
    """On a folder of odd images, conditional and mirrored, with AdaptiveMix: the same bits."""
    given = ["--data", photos, "--cond", "--mirror", "-p", "adaptivemix", "-p", "r1", "-o", "r1.every=4", *SMALL]
    given += ["--image-size", 16, "--steps", 60, "--snap", 10, "-o", "output.log_every=7"]
    process = start("train", *given, "--outdir", tmp_path / "killed")
    wait_for(lambda: (tmp_path / "killed/checkpoints/step-00000020.json").exists())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.steps(tmp_path / "killed/checkpoints")[-1] < 60
    resumed = gan("resume", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    whole = gan("train", *given, "--outdir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.splitlines()[-1] == str(tmp_path / "whole")
    first = checkpoint.load_latest(tmp_path / "killed/checkpoints")
    second = checkpoint.load_latest(tmp_path / "whole/checkpoints")
    assert first.step == second.step == 60
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    rows = []
    for name in ("killed", "whole"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows.append([{**json.loads(line), "images_per_second": 0} for line in lines])
    assert rows[0] == rows[1]
    assert gancore.load(tmp_path / "whole").sample(3, seed=1, label="class1").shape == (3, 3, 16, 16)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_save_and_say_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    process = start("train", *SMALL, "--steps", 100000, "--snap", 100000, "--outdir", run)
    wait_for(lambda: (run / "metrics.jsonl").exists())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"gan resume {run}" in err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == str(run)
    saved = checkpoint.steps(run / "checkpoints")
    assert len(saved) == 2
    assert saved[-1] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits file sizes with RLIMIT_FSIZE")
def test_a_write_that_fails_exits_with_8_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for a full disk: write() fails, whoever asks."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from gancore.cli.main import main; import gancore.training as t; snapshot = t.snapshot\n"
        "def limited(session, folder):\n"
        "    if session.trainer.step_index >= 20:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "    return snapshot(session, folder)\n"
        "t.snapshot = limited; main(sys.argv[1:])"
    )
    run = tmp_path / "run"
    arguments = ["train", *SMALL, "--steps", "40", "--snap", "10", "--outdir", str(run)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240, env=ENVIRONMENT
    )
    assert done.returncode == 8, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkpoint.load_latest(run / "checkpoints").step == 10
    assert not list((run / "checkpoints").glob(".*"))
    resumed = gan("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert checkpoint.load_latest(run / "checkpoints").step == 40


BAD = {
    "missing data": (["--data", "nowhere/photos"], 4, "not found"),
    "unknown plugin": (["-p", "adaptivmix"], 3, "did you mean 'adaptivemix'?"),
    "unknown option": (["-p", "adaptivemix", "-o", "adaptivemix.alhpa=1"], 2, "did you mean 'alpha'?"),
    "unknown network": (["--network", "dcgna"], 3, "did you mean 'dcgan'?"),
    "unknown flag": (["--stesp", "3"], 2, "--steps"),
    "two owners": (["-p", "hinge", "-p", "lsgan"], 3, "keep one: drop -p hinge; or drop -p lsgan"),
    "batch too large": (["--batch", "5000"], 2, "choose at most 1797"),
    "no such device": (["--device", "cuda:7"], 7, "CUDA devices"),
    "wrong size": (["--image-size", "24"], 2, "16"),
    "images for points": (["--network", "mlp"], 2, "--network dcgan"),
    "points for images": (["--data", "gaussians", "--network", "dcgan"], 2, "--network mlp"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_costs_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, message = BAD[what]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments, "--steps", "3", "--outdir", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    assert stopped.value.code == code, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_a_bad_file_among_good_ones(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    whole = (folder / "class0" / "0.jpg").read_bytes()
    (folder / "class0" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    given = ["--data", folder, *SMALL, "--image-size", 16, "--steps", 2]
    stopped = gan("train", *given, "--outdir", tmp_path / "run")
    assert stopped.returncode == 4
    assert "class0/broken.png" in stopped.stderr
    assert "class0/cut.jpg" in stopped.stderr
    assert "--bad-files skip|quarantine" in stopped.stderr
    went_on = gan("train", *given, "--outdir", tmp_path / "run", "--bad-files", "quarantine")
    assert went_on.returncode == 0, went_on.stderr
    assert (tmp_path / "photos-quarantine/class0/broken.png").exists()
    assert not (folder / "class0/cut.jpg").exists()


def test_points_are_trained_and_drawn(tmp_path: Path) -> None:
    done = gan("train", "--data", "gaussians", "-p", "adaptivemix", "--steps", 30, "--outdir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "run/samples/step-00000030.png") as picture:
        assert picture.size == (640, 640)
