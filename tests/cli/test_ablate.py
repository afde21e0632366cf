"""The command over fake processes: arms from flags and files, output, exit codes, what is refused."""

from __future__ import annotations

import io
import json

import pytest
from ablation_for_tests import DIGEST, FakeGan, registry_with_gauge
from rich.console import Console

from gancore.ablation import prepare, queue
from gancore.ablation.check import Answer
from gancore.ablation.queue import Slot
from gancore.cli import ablate as command
from gancore.cli.ablation_table import as_rich
from gancore.errors import ConfigError

BASE = ("--data", "gaussians", "--steps", 10, "--batch", 4)
SUBSETS = ("-p", "r1", "-p", "hinge", *BASE)


def effect(arm, seed):
    return 30.0 + 3 * seed + {"r1": -4.0, "hinge": 0.2}.get(arm, 0.0) + 0.1 * ((7 * seed + len(arm)) % 5)


@pytest.fixture
def fake(monkeypatch):
    """Fake processes, a fake check, a plugin that measures."""
    process = FakeGan(effect)
    monkeypatch.setattr(command, "_discover", registry_with_gauge)
    monkeypatch.setattr(queue, "launch", process.launch)
    monkeypatch.setattr(queue, "POLL", 0.0)
    monkeypatch.setattr(
        prepare, "check", lambda configs, *_: Answer({}, dict.fromkeys(configs, DIGEST)) if configs else None
    )
    return process


def test_an_ablation_from_flags(gan, fake, tmp_path):
    path = tmp_path / "ablation"
    outcome = gan("ablate", *SUBSETS, "--seeds", 3, "--outdir", path)
    assert outcome.code == 0
    assert "4 arms x 3 seeds, every run 10 steps, 40 images of gaussians" in outcome.out
    assert "fid, lower is better" in outcome.out
    rows = [line.split() for line in outcome.out.splitlines()]
    r1 = next(row for row in rows if row[:2] == ["r1", "3"])
    assert "better" in r1
    assert "\x1b" not in outcome.out
    assert f"wrote results.json, table.md, report.html, 2 forest plots in {path}" in outcome.err
    assert "r1, seed 2: done  fid" in outcome.err
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    assert results["metrics"]["fid"]["arms"]["r1"]["found"] == "better"
    assert (
        results["command"]
        == f"gan ablate -p r1 -p hinge --data gaussians --steps 10 --batch 4 --seeds 3 --outdir {path}"
    )
    assert (path / "forest-fid.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (path / "forest-fid.png").read_bytes().startswith(b"\x89PNG")
    assert "| r1 |" in (path / "table.md").read_text(encoding="utf-8")


def test_the_same_command_shows_what_was_found(gan, fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = gan("ablate", *SUBSETS)
    count = len(fake.seen)
    assert (tmp_path / "ablations" / "gaussians-mlp-r1-hinge" / "plan.json").exists()
    second = gan("ablate", *SUBSETS)
    assert (second.code, second.out) == (0, first.out)
    assert len(fake.seen) == count
    third = gan("ablate", "ablations/gaussians-mlp-r1-hinge", "--no-run", "--json")
    assert json.loads(third.out)["metrics"]["fid"]["better"] == "lower"
    assert len(fake.seen) == count


def test_seeds_and_arms_are_added(gan, fake, tmp_path):
    path = tmp_path / "ablation"
    gan("ablate", "-p", "r1", *BASE, "--seeds", 2, "--outdir", path)
    count = len(fake.seen)
    assert gan("ablate", path, "--seeds", 3).code == 0
    assert [words[0] for words in fake.seen[count:]] == ["train", "eval"] * 2
    command = json.loads((path / "results.json").read_text(encoding="utf-8"))["command"]
    assert command.endswith(f"--seeds 2 --outdir {path} --seeds 3")
    count = len(fake.seen)
    assert gan("ablate", *SUBSETS, "--seeds", 3, "--outdir", path).code == 0
    assert len(fake.seen) == count + 2 * 2 * 3


def test_a_changed_plan_is_refused(gan, fake, tmp_path):
    path = tmp_path / "ablation"
    gan("ablate", "-p", "r1", *BASE, "--seeds", 2, "--outdir", path)
    outcome = gan("ablate", "-p", "r1", *BASE, "--seeds", 1, "-o", "r1.gamma=3", "--outdir", path)
    assert outcome.code == 2
    assert "arm 'r1', methods.r1.gamma: 10.0 -> 3.0; seeds: 1 missing" in outcome.err
    assert gan("ablate", path, "-p", "hinge").code == 2
    assert gan("ablate", path, "--steps", 3).code == 2
    assert gan("ablate", path, "--outdir", path).code == 2


def test_dry_run_writes_nothing(gan, fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = gan("ablate", *SUBSETS, "--subsets", "each", "--seeds", "3,5", "--dry-run")
    assert outcome.code == 0
    assert "3 arms x 2 seeds = 6 runs of 10 steps, 40 images each; measured by gauge" in outcome.out
    assert "hinge     5     waiting  0     hinge" in outcome.out
    facts = json.loads(gan("ablate", *SUBSETS, "--seeds", 1, "--dry-run", "--json").out)
    assert facts["arms"]["r1+hinge"] == ["r1", "hinge"]
    assert [job["state"] for job in facts["jobs"]] == ["waiting"] * 4
    assert list(tmp_path.iterdir()) == []
    assert fake.seen == []


def test_conflicts_exit_3_before_anything_runs(gan, fake, tmp_path):
    outcome = gan("ablate", "-p", "hinge", "-p", "lsgan", *BASE, "--outdir", tmp_path / "a")
    assert outcome.code == 3
    assert "arm 'hinge+lsgan': objective claimed by both 'hinge' and 'lsgan'" in outcome.err
    assert not (tmp_path / "a").exists()
    outcome = gan("ablate", "-p", "hinge", "-p", "lsgan", *BASE, "--skip-conflicts", "--outdir", tmp_path / "a")
    assert outcome.code == 0
    assert "arm 'hinge+lsgan' was left out: objective claimed by both" in outcome.out


def test_always_is_in_every_arm(gan, fake, tmp_path):
    words = ("ablate", "-p", "r1", "--always", "hinge", "-p", "gauge", "-o", "gauge.weight=2", *BASE)
    facts = json.loads(gan(*words, "--dry-run", "--json", "--outdir", tmp_path / "a").out)
    assert facts["arms"] == {"baseline": ["hinge"], "r1": ["hinge", "r1"]}
    assert facts["observers"] == ["gauge"]


def test_a_failed_job_exits_1_and_keeps_the_table(gan, fake, tmp_path):
    fake.codes[("r1", 1)] = [3]
    outcome = gan("ablate", "-p", "r1", *BASE, "--seeds", 3, "--outdir", tmp_path / "a")
    assert outcome.code == 1
    assert "2 of 3, 1 failed" in outcome.out
    assert gan("ablate", tmp_path / "a", "--retry-failed").code == 0


def test_a_diverged_job_is_a_result(gan, fake, tmp_path):
    fake.codes[("r1", 1)] = [5]
    outcome = gan("ablate", "-p", "r1", *BASE, "--seeds", 3, "--outdir", tmp_path / "a")
    assert outcome.code == 0
    assert "2 of 3, 1 diverged" in outcome.out


def test_the_page_is_optional(gan, fake, tmp_path, monkeypatch):
    import gancore.report.page

    def missing():
        raise ConfigError("a report needs jinja2; install it with: pip install 'gancore[report]'")

    monkeypatch.setattr(gancore.report.page, "require_extra", missing)
    outcome = gan("ablate", "-p", "r1", *BASE, "--seeds", 2, "--outdir", tmp_path / "a")
    assert outcome.code == 0
    assert "note: no page and no forest plots: a report needs jinja2" in outcome.err
    assert (tmp_path / "a" / "table.md").exists()


FILE = """
[train]
steps = 10
batch = 4
[data]
source = "gaussians"
[ablation]
seeds = [4, 6]
baseline = "plain"
[arms.plain]
[arms.strong]
plugins = ["r1"]
r1.gamma = 100
"""


def test_an_ablation_from_a_file(gan, fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gammas.toml"
    path.write_text(FILE, encoding="utf-8")
    outcome = gan("ablate", path, "--metric", "fid")
    assert outcome.code == 0
    folder = tmp_path / "ablations" / "gammas"
    assert sorted(run.name for run in (folder / "runs" / "strong").iterdir()) == ["seed-4", "seed-6"]
    assert "gamma = 100" in (folder / "configs" / "strong.toml").read_text(encoding="utf-8")
    refused = gan("ablate", path, "-p", "hinge")
    assert refused.code == 2
    assert "the arms stand in" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-p", "r1", "--seeds", "x"), "expected seeds such as"),
        (("-p", "r1", "--seeds", "1,1"), "a seed stands there twice"),
        (("-p", "r1", "--seeds", 0), "expected a count from 1"),
        (("-p", "r1", "--seeds", "²"), "expected seeds such as"),
        (("-p", "r1", "--seeds", 1000000000000), "expected a count from 1 to 100,000"),
        ((), "nothing to compare"),
        (("-p", "r1", "--steps", 3, "--kimg", 3), "keep one of them"),
        (("-p", "r1", "--dry-run", "--no-run"), "give one of them"),
        (("-p", "r1", "--jobs", 2, "--devices", "cuda:0,cuda:1"), "drop --jobs"),
        (("-p", "r1", "--devices", "cuda:0,cuda:0"), "expected different devices"),
        (("-p", "r1", "--no-run"), "holds no ablation yet"),
        (("-p", "r1", "--no-such-flag"), "no such option"),
        (("nowhere.toml",), "cannot read the configuration"),
        ((".",), "holds no ablation: 'plan.json' is missing"),
    ],
)
def test_mistakes_exit_2(gan, fake, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    outcome = gan("ablate", *words)
    assert outcome.code == 2
    assert message in outcome.err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_metric_is_refused(gan, fake, tmp_path):
    outcome = gan("ablate", "-p", "r1", *BASE, "--metric", "fidd", "--outdir", tmp_path / "a")
    assert outcome.code == 2
    assert "--metric fidd: it was not measured (did you mean 'fid'?)" in outcome.err


def test_seeds():
    assert command.parse_seeds("3") == [0, 1, 2]
    assert command.parse_seeds(2) == [0, 1]
    assert command.parse_seeds("2-4,9") == [2, 3, 4, 9]
    assert command.parse_seeds([5, 1]) == [5, 1]
    assert command.parse_seeds([7]) == [7]
    with pytest.raises(ConfigError, match="expected a count such as 5"):
        command.parse_seeds(True)


def test_slots(fake, monkeypatch):
    from types import SimpleNamespace

    plan = SimpleNamespace(arms={"baseline": {"compute.threads": 0}})
    monkeypatch.setattr(command, "_cpus", lambda: 8)
    assert command._slots(plan, 1, None, None) == [Slot("", 0)]
    assert command._slots(plan, 3, None, None) == [Slot("", 2)] * 3
    assert command._slots(plan, 3, None, 1) == [Slot("", 1)] * 3
    assert command._slots(plan, 1, "cuda:0, cuda:1", None) == [Slot("cuda:0", 4), Slot("cuda:1", 4)]
    plan.arms["baseline"]["compute.threads"] = 5
    assert command._slots(plan, 3, None, None) == [Slot("", 0)] * 3


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_a_terminal(gan, fake, tmp_path, width):
    outcome = gan("ablate", *SUBSETS, "--seeds", 3, "--outdir", tmp_path / "a", "--json")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_rich(json.loads(outcome.out)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for word in ("fid, lower is better", "r1+hinge", "difference", "better", "x1.00", "note: p is corrected"):
        assert word in text
