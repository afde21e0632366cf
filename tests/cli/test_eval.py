"""``gan eval`` and ``gan compare``, with an observer that needs nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from methods_for_tests import spec_of
from PIL import Image

from gancore import plugin_manager
from gancore.api import Method, Options, Score, hookimpl, option
from gancore.testing import registry_with


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadOptions(Options):
    """Options of :class:`Spread`."""

    samples: int = option(20, help="How many.", minimum=2)


class Spread(Method):
    """Standard deviation of samples."""

    @hookimpl
    def evaluate(self, samples):
        count = min(self.options.samples, samples.limit or self.options.samples)
        values = samples.generate(count, 0)
        if values.ndim == 4:
            samples.show("first", Image.new("L", (8, 8)), "Nothing much.")
        protocol = {"samples": count, "backbone": "0" * 64}
        return {
            "spread": Score(float(values.std()), "higher", protocol),
            "mean": Score(float(values.mean()), "", {**protocol, "extra": True}),
        }


SPREAD = dataclasses.replace(spec_of(Spread, "spread", SpreadOptions), observer=True)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch):
    registry = registry_with(SPREAD)
    for name in [name for name in registry.methods if registry.methods[name].observer and name != "spread"]:
        del registry.methods[name]
    monkeypatch.setattr(plugin_manager, "discover", lambda: registry)
    return registry


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_a_run_is_measured_and_the_result_kept(gan, trained: Path) -> None:
    outcome = gan("eval", trained)
    assert outcome.code == 0, outcome.err
    assert "at step 4, 32 images seen; reference: gaussians" in outcome.out
    assert "METRIC" in outcome.out
    assert "protocol: method spread, samples 20, backbone 000000000000…, ema yes, truncation 1" in outcome.out
    assert "  mean: extra yes" in outcome.out
    (row,) = rows(trained)
    assert row["step"] == 4
    assert row["protocols"]["spread"]["better"] == "higher"
    outcome = gan("eval", trained, "--step", 2, "--trunc", 0.5, "--raw", "-o", "spread.samples=5", "--json")
    assert outcome.code == 0, outcome.err
    shown = json.loads(outcome.out)
    assert rows(trained)[1] == shown
    facts = shown["protocols"]["spread"]
    assert (shown["step"], facts["truncation"], facts["ema"], facts["samples"]) == (2, 0.5, False, 5)


def test_training_measures_on_its_way(gan, tmp_path: Path) -> None:
    arguments = ("--data", "gaussians", "--batch", 8, "--steps", 4, "--eval-every", 2)
    outcome = gan("train", *arguments, "-p", "spread", "--outdir", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "metrics" in line] == [0, 2, 4]


def images(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(draw.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_a_folder_of_images_is_measured_against_data(gan, tmp_path: Path) -> None:
    outcome = gan("eval", images(tmp_path / "made"), "--data", "digits", "--out", tmp_path / "scores.json")
    assert outcome.code == 0, outcome.err
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept["protocols"]["spread"]["samples"] == 6
    assert kept["protocols"]["spread"]["ema"] is None
    assert (tmp_path / kept["pictures"]["first"]["file"]).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "scores-first.png", "scores.json"]
    fraction = gan("eval", tmp_path / "made", "--data", "digits", "-o", "data.fraction=0.5", "--json")
    assert json.loads(fraction.out)["protocols"]["spread"]["data_images"] == 896


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("missing",), 2, "'{}' not found: expected a run folder"),
        (("made",), 2, "is no run (it holds no config.toml); to measure a folder of generated images"),
        (("made", "--data", "digits", "--step", "3"), 2, "--step is for a run"),
        (("made", "--data", "digits", "--raw"), 2, "--raw is for a run"),
        (("made", "--data", "digits", "--held-out", "digits"), 2, "--held-out is for a run"),
        (("made", "--data", "digits", "-o", "data.held_out=digits"), 2, "-o data.held_out is for a run"),
        (("made", "--data", "digits", "-o", "data.fit=rond"), 2, "fit"),
        (("made", "--data", "digits", "-o", "data.image_size=32"), 4, "are 16x16, and the reference was asked"),
        (("made", "--data", "nowhere"), 4, "data 'nowhere' not found"),
        (("run", "-p", "spred"), 3, "did you mean 'spread'"),
        (("run", "-p", "r1"), 3, "'r1' is a training method, and measures nothing"),
        (("run", "-o", "spread.sample=3"), 2, "did you mean 'spread.samples'|did you mean 'samples'"),
        (("run", "-o", "data.fit=pad"), 2, "prepared as the run's own set was; choose it with --data"),
        (("run", "--step", "99"), 6, "has no checkpoint of step 99; saved: 0, 2, 4"),
        (("run", "--data", "digits"), 4, "the run generates 2, and the reference 'digits'"),
        (("run", "--device", "quantum"), 2, "quantum"),
    ],
)
def test_mistakes(gan, trained: Path, tmp_path: Path, arguments, code: int, what: str) -> None:
    images(tmp_path / "made")
    outcome = gan("eval", tmp_path / arguments[0], *arguments[1:])
    assert outcome.code == code, outcome.err
    assert any(part in outcome.err for part in what.format(tmp_path / arguments[0]).split("|")), outcome.err
    assert "Traceback" not in outcome.err
    assert not (trained / "evaluations.jsonl").exists()


@pytest.mark.parametrize(("out", "code", "what"), [("no/x.json", 2, "is not there"), ("made", 2, "is a folder")])
def test_where_the_result_goes_is_looked_at_first(gan, trained: Path, tmp_path: Path, out, code, what) -> None:
    images(tmp_path / "made")
    outcome = gan("eval", trained, "--out", tmp_path / out)
    assert (outcome.code, outcome.out) == (code, "")
    assert what in outcome.err


def test_a_result_that_cannot_be_kept_is_shown(gan, trained: Path) -> None:
    (trained / "evaluations.jsonl").mkdir()
    outcome = gan("eval", trained, "--json")
    assert outcome.code == 8
    assert "cannot write" in outcome.err
    assert json.loads(outcome.out)["metrics"]["spread"] > 0


def test_nothing_installed_that_measures(gan, trained: Path, installed) -> None:
    del installed.methods["spread"]
    outcome = gan("eval", trained)
    assert outcome.code == 3
    assert "no installed plugin measures anything" in outcome.err


# Comparing.


@pytest.fixture
def measured(gan, tmp_path: Path) -> list[Path]:
    """Three runs, each measured at its end."""
    runs = []
    for seed in range(3):
        run = tmp_path / f"run{seed}"
        arguments = ("--data", "gaussians", "--batch", 8, "--steps", 2, "--seed", seed)
        assert gan("train", *arguments, "--outdir", run).code == 0
        assert gan("eval", run).code == 0
        runs.append(run)
    return runs


def test_runs_are_ranked_in_the_direction_of_the_metric(gan, measured: list[Path]) -> None:
    values = {str(run): rows(run)[-1]["metrics"]["spread"] for run in measured}
    outcome = gan("compare", *measured, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["by"] == "spread"
    assert [row["target"] for row in found["ranking"]] == sorted(values, key=lambda run: -values[run])
    assert [row["rank"] for row in found["ranking"]] == [1, 2, 3]
    text = gan("compare", *measured, "--by", "mean").out
    assert "in order of mean" in text
    assert "ranked by spread, higher is better" in gan("compare", *measured).out


def test_unlike_protocols_are_refused_unless_allowed(gan, measured: list[Path]) -> None:
    assert gan("eval", measured[1], "-o", "spread.samples=9", "--trunc", "0.5").code == 0
    outcome = gan("compare", *measured)
    assert outcome.code == 2
    assert "unlike protocols" in outcome.err
    assert f"samples: 20 ({measured[0]}), 9 ({measured[1]})" in outcome.err
    assert "--allow samples --allow truncation" in outcome.err
    outcome = gan("compare", *measured, "--allow", "samples", "--allow", "truncation")
    assert outcome.code == 0, outcome.err
    assert "note: allowed to differ: samples: 20" in outcome.out
    outcome = gan("compare", *measured, "--allow", "sampels")
    assert outcome.code == 2
    assert "did you mean 'samples'" in outcome.err


def test_other_data_is_an_unlike_protocol(gan, measured: list[Path]) -> None:
    assert gan("eval", measured[2], "--data", "circles").code == 0
    outcome = gan("compare", measured[0], measured[2])
    assert outcome.code == 2
    assert "data_digest: " in outcome.err


def test_a_file_and_a_run_are_compared_and_what_is_unknown_is_said(gan, measured: list[Path], tmp_path) -> None:
    file = tmp_path / "scores.json"
    assert gan("eval", measured[0], "--out", file).code == 0
    row = json.loads(file.read_text())
    for protocol in row["protocols"].values():
        protocol["ema"] = None
    file.write_text(json.dumps(row))
    outcome = gan("compare", file, measured[1])
    assert outcome.code == 0, outcome.err
    assert "note: ema is not known of every one" in outcome.out


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda row: row["metrics"].update(spread=float("nan")), "spread = NaN; expected a finite number"),
        (lambda row: row["metrics"].update(spread=10**400), "expected a finite number"),
        (lambda row: row["metrics"].update(spread="3"), 'spread = "3"; expected a finite number'),
        (lambda row: row["metrics"].update(spread=True), "spread = true; expected a finite number"),
        (lambda row: row["metrics"].update(spread=None), "spread = null; expected a finite number"),
        (lambda row: row["protocols"].pop("spread"), "spread has no protocol that says what is better"),
        (lambda row: row["protocols"]["spread"].pop("better"), "spread has no protocol"),
        (lambda row: row.update(images_seen="many"), 'images_seen = "many"; expected a whole number'),
        (lambda row: row.update(metrics=[1]), "holds no scores"),
    ],
)
def test_files_that_were_edited_are_named(gan, measured: list[Path], tmp_path: Path, edit, what: str) -> None:
    row = rows(measured[0])[-1]
    edit(row)
    (tmp_path / "edited.json").write_text(json.dumps(row))
    outcome = gan("compare", measured[1], tmp_path / "edited.json", "--json")
    assert outcome.code == 2, outcome.err
    assert what in outcome.err
    if "metrics" in row and isinstance(row["metrics"], dict):
        with open(measured[0] / "evaluations.jsonl", "w") as file:
            file.write(json.dumps(row))
        assert what in gan("compare", *measured).err


def test_one_run_has_one_name(gan, measured: list[Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(measured[0])
    for other in ("run0", "./run0", "link", "run1/../run0"):
        outcome = gan("compare", measured[0], other)
        assert outcome.code == 2, outcome.out
        assert "give two different ones" in outcome.err


def test_a_direction_cannot_be_allowed(gan, measured: list[Path], tmp_path: Path) -> None:
    row = rows(measured[0])[-1]
    row["protocols"]["spread"]["better"] = "lower"
    (tmp_path / "edited.json").write_text(json.dumps(row))
    outcome = gan("compare", measured[1], tmp_path / "edited.json", "--allow", "better")
    assert outcome.code == 2
    assert "needs one direction" in outcome.err


def test_mistakes_of_compare(gan, measured: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    empty = tmp_path / "empty"
    assert gan("train", "--data", "gaussians", "--batch", 8, "--steps", 1, "--outdir", empty).code == 0
    for arguments, code, what in (
        ([measured[0]], 2, "two or more"),
        ([measured[0], measured[0]], 2, "two different ones"),
        ([measured[0], tmp_path / "none.json"], 2, "cannot read"),
        ([measured[0], bad], 2, "holds no scores"),
        ([measured[0], tmp_path], 6, "holds no run"),
        ([measured[0], empty], 2, f"to do it: gan eval {empty}"),
        ([*measured, "--by", "spraed"], 2, "did you mean 'spread'"),
        ([*measured, "--step", "7"], 2, "at step 7"),
    ):
        outcome = gan("compare", *arguments)
        assert outcome.code == code, outcome.err
        assert what in outcome.err
        assert "Traceback" not in outcome.err
