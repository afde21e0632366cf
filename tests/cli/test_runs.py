"""Commands that train, continue, measure and sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gancore import assembly

TINY = ("--data", "gaussians", "--batch", "8", "--steps", "4", "--snap", "2")


def test_train_prints_the_run_folder_last(gan, tmp_path):
    outcome = gan("train", *TINY, "-p", "hinge", "--outdir", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.out == f"{tmp_path / 'run'}\n"
    assert "data: gaussians, 100,000 points of 2; network: mlp" in outcome.err
    assert "methods: hinge" in outcome.err
    assert "step 4 of 4" in outcome.err
    assert "saved step 2" in outcome.err
    assert f"samples: {tmp_path / 'run' / 'samples' / 'step-00000004.png'}" in outcome.err
    assert "\x1b" not in outcome.err


def test_train_finds_a_free_folder(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [gan("train", *TINY).last for _ in range(2)]
    assert paths == [f"runs/00{index}-gaussians-mlp-nonsaturating" for index in (1, 2)]


def test_train_leaves_an_existing_run_alone(gan, trained, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    monkeypatch.setattr(assembly, "open_dataset", lambda *_: pytest.fail("data was read"))
    outcome = gan("train", *TINY, "--outdir", trained)
    assert outcome.code == 2
    assert f"gan resume {trained}" in outcome.err
    assert outcome.out == ""
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_train_refuses_a_folder_of_something_else(gan, tmp_path):
    (tmp_path / "photo.png").touch()
    assert gan("train", *TINY, "--outdir", tmp_path).code == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_train_without_rights(gan, tmp_path):
    tmp_path.chmod(0o500)
    assert gan("train", *TINY, "--outdir", tmp_path / "run").code == 8


def test_train_on_data_that_is_not_there(gan, tmp_path):
    outcome = gan("train", "--data", tmp_path / "nowhere", "--outdir", tmp_path / "run")
    assert outcome.code == 4
    assert not (tmp_path / "run").exists()


def test_diverged_run_exits_5_and_names_its_folder(gan, tmp_path):
    rates = ("-o", "optimizer.d.lr=1e30", "-o", "optimizer.g.lr=1e30", "-o", "output.log_every=2")
    outcome = gan("train", *TINY, *rates, "--outdir", tmp_path / "run")
    assert outcome.code == 5
    assert outcome.last == str(tmp_path / "run")
    assert "diverged by step" in outcome.err


def test_resume_a_complete_run(gan, trained):
    outcome = gan("resume", trained)
    assert outcome.code == 0
    assert outcome.last == str(trained)
    assert "the run is complete (4 steps)" in outcome.err
    assert "--steps 8" in outcome.err


def test_resume_goes_on(gan, trained):
    outcome = gan("resume", trained, "--steps", 6)
    assert outcome.code == 0
    assert outcome.last == str(trained)
    assert "resuming from step 4 of 6" in outcome.err
    assert "trained 2 steps" in outcome.err


def test_resume_names_the_damaged_checkpoint_it_passes_over(gan, trained):
    damaged = trained / "checkpoints" / "step-00000004.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    outcome = gan("resume", trained)
    assert outcome.code == 0
    assert "passed over a damaged checkpoint: 'step-00000004.safetensors' holds 100 bytes" in outcome.err
    assert "resuming from step 2 of 4" in outcome.err


def test_resume_refuses_drift_until_it_is_allowed(gan, trained):
    change = ("-o", "optimizer.g.lr=0.5", "--steps", 6)
    refused = gan("resume", trained, *change)
    assert refused.code == 6
    assert refused.out == ""
    assert "--allow-drift optimizer.g.lr" in refused.err
    assert gan("resume", trained, *change, "--allow-drift", "optimizer.g.lr").code == 0


def test_resume_where_there_is_no_run(gan, tmp_path):
    assert gan("resume", tmp_path).code == 6


def test_plan_writes_nothing(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = gan("plan", *TINY, "-p", "relativistic", "-p", "r1", "-o", "r1.every=4", "--json")
    assert outcome.code == 0
    assert list(tmp_path.iterdir()) == []
    facts = json.loads(outcome.out)
    assert facts["objective"] == "relativistic"
    d, g = facts["phases"]
    assert d["d_rows"]["objective_alone"] == 16
    seconds = d["d_rows"]["pass_seconds"]
    assert min(seconds["objective_alone"], seconds["every_term_due"]) > 0
    assert {term["name"] for term in d["terms"]} == {"relativistic/adv", "r1/penalty"}
    assert g["phase"] == "g"
    assert set(facts["cost"]["phase_seconds"]["d"]) == {"every_term_due", "lazy_terms_not_due"}
    assert facts["cost"]["step_seconds"] > 0


def test_plan_for_people(gan):
    text = gan("plan", *TINY, "-p", "r1").out
    assert "objective: nonsaturating; scores: logits" in text
    assert "term r1/penalty: weight" in text
    assert "D looks at 16 rows, 16 for the objective alone" in text
    assert "passes of G and D: " in text
    assert "tested together: nonsaturating + r1" in text
    assert "time of a step" in text


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_save_the_run(tmp_path, number, code):
    run = tmp_path / "run"
    arguments = ["--data", "gaussians", "--batch", "8", "--steps", "1000000", "--outdir", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gancore", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == f"{run}\n"
    assert f"continue with: gan resume {run}" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "gancore", "plugins", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()
