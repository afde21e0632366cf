"""A plan is kept, continued, extended, and refused where it differs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest

from gancore.ablation import prepare as preparation
from gancore.ablation.check import Answer, CheckError
from gancore.ablation.jobs import AblationFolder
from gancore.ablation.plan import extend, label, load_plan, save_plan
from gancore.ablation.prepare import prepare
from gancore.errors import CheckpointError, ConfigError, DataError


def test_a_plan_comes_back_as_it_was(plan_of, folder):
    plan = replace(plan_of(("r1", "hinge")), data_digest="ab" * 32, skipped={"a+b": "why"})
    assert load_plan(folder(plan).plan) == replace(plan, tomls={})


def test_what_a_plan_says(plan_of):
    plan = plan_of(("r1",))
    assert (plan.steps, plan.images) == (10, 40)
    assert label(plan) == "gaussians-mlp-r1"
    assert plan.versions.keys() == {"gancore", "mlp", "nonsaturating", "r1"}
    assert plan.request == {
        "observers": ["gauge"],
        "options": {"methods.gauge.weight": 1.0},
        "versions": {"gauge": "0.1"},
    }


def test_arms_and_seeds_may_be_added(plan_of):
    old = replace(plan_of(("r1",), (0, 1)), data_digest="ab")
    grown = extend(old, plan_of(("r1", "hinge"), (0, 1, 2)))
    assert list(grown.arms) == ["baseline", "r1", "hinge", "r1+hinge"]
    assert grown.seeds == (0, 1, 2)
    assert grown.data_digest == "ab"


def test_where_and_how_it_runs_may_change(plan_of):
    extend(plan_of(), plan_of(**{"compute.threads": 2, "output.snap": 3, "data.memory_gib": 1.0}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": {"train.steps": 20}}, "arm 'baseline', train.steps: 10 -> 20; arm 'r1', train.steps: 10 -> 20"),
        ({"keys": {"r1.gamma": 3.0}}, "arm 'r1', methods.r1.gamma: 10.0 -> 3.0"),
        ({"seeds": (1, 2)}, "seeds: 0 missing"),
        ({"plugins": ("hinge",)}, "arm 'r1' is missing"),
        ({"keys": {"data.source": "circles"}}, "data.source: 'gaussians' -> 'circles'"),
    ],
)
def test_anything_else_is_refused_with_what_differs(plan_of, changes, message):
    new = plan_of(changes.get("plugins", ("r1",)), changes.get("seeds", (0, 1)), **changes.get("keys", {}))
    with pytest.raises(ConfigError, match="the folder holds another ablation") as raised:
        extend(plan_of(), new)
    assert message in str(raised.value)
    assert "choose another --outdir" in str(raised.value)


def test_another_version_of_a_plugin_is_refused(plan_of):
    plan = plan_of()
    with pytest.raises(ConfigError, match="version of r1: 0 -> "):
        extend(replace(plan, versions={**plan.versions, "r1": "0"}), plan)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 7}'])
def test_a_plan_that_cannot_be_read(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"plan.json"):
        load_plan(path)


@pytest.fixture
def checked(monkeypatch):
    """Calls of the check, which answers that everything is fine."""
    calls = []

    def check(configs, baseline, observers, options, devices):
        calls.append((list(configs), baseline, list(devices)))
        return answers.pop(0) if answers else Answer({}, dict.fromkeys(configs, "ab" * 32))

    answers: list[Answer] = []
    monkeypatch.setattr(preparation, "check", check)
    return calls, answers


def prepared(path, plan, **more):
    with contextlib.ExitStack() as stack:
        return prepare(AblationFolder(path), plan, stack, **more)


def test_a_new_folder_is_checked_and_written(plan_of, tmp_path, checked):
    plan = prepared(tmp_path / "new", plan_of())
    assert checked[0] == [(["baseline", "r1"], "baseline", [])]
    assert plan.data_digest == "ab" * 32
    folder = AblationFolder(tmp_path / "new")
    assert load_plan(folder.plan) == replace(plan, tomls={})
    assert "methods.r1" in folder.config("r1").read_text(encoding="utf-8")


def test_only_what_is_new_is_checked(plan_of, tmp_path, checked):
    calls, _ = checked
    prepared(tmp_path / "new", plan_of())
    prepared(tmp_path / "new", plan_of())
    assert len(calls) == 1
    prepared(tmp_path / "new", plan_of(("r1", "hinge")))
    assert calls[-1] == (["hinge", "r1+hinge"], "", [])
    prepared(tmp_path / "new", plan_of(("r1", "hinge"), **{"gauge.weight": 2.0}))
    assert calls[-1] == (["baseline"], "baseline", [])


def test_nothing_is_written_when_an_arm_cannot_be_built(plan_of, tmp_path, checked):
    checked[1].append(Answer({"r1": (3, "'r1' needs tap:x")}, {"baseline": "ab"}))
    with pytest.raises(CheckError, match=r"arm 'r1': 'r1' needs tap:x. The other arms run with") as raised:
        prepared(tmp_path / "new", plan_of())
    assert raised.value.exit_code == 3
    assert not (tmp_path / "new").exists()


def test_an_arm_that_cannot_be_built_is_skipped_when_asked(plan_of, tmp_path, checked):
    checked[1].append(Answer({"r1": (3, "'r1' needs tap:x")}, {"baseline": "ab"}))
    plan = prepared(tmp_path / "new", plan_of(("r1", "hinge")), skip_conflicts=True)
    assert "r1" not in plan.arms
    assert plan.skipped == {"r1": "'r1' needs tap:x"}


def test_a_wrong_value_is_no_conflict_to_skip(plan_of, tmp_path, checked):
    checked[1].append(Answer({"r1": (2, "--batch 9 is larger than the set")}, {"baseline": "ab"}))
    with pytest.raises(CheckError, match="larger than the set") as raised:
        prepared(tmp_path / "new", plan_of(), skip_conflicts=True)
    assert raised.value.exit_code == 2


def test_data_that_differs_is_refused(plan_of, tmp_path, checked):
    checked[1].append(Answer({}, {"baseline": "ab" * 32, "r1": "cd" * 32}))
    with pytest.raises(DataError, match="arm 'baseline' abababababab…, arm 'r1' cdcdcdcdcdcd…"):
        prepared(tmp_path / "new", plan_of())


def test_data_that_changed_since_is_refused(plan_of, tmp_path, checked):
    prepared(tmp_path / "new", plan_of())
    checked[1].append(Answer({}, {"hinge": "cd" * 32, "r1+hinge": "cd" * 32}))
    with pytest.raises(DataError, match="the runs before abababababab…, arm 'hinge' cdcdcdcdcdcd…"):
        prepared(tmp_path / "new", plan_of(("r1", "hinge")))


def test_a_folder_of_something_else(plan_of, tmp_path, checked):
    (tmp_path / "photo.png").touch()
    with pytest.raises(ConfigError, match="holds no ablation; choose another --outdir"):
        prepared(tmp_path, plan_of())
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_two_processes(plan_of, tmp_path, checked):
    prepared(tmp_path / "new", plan_of())
    with AblationFolder(tmp_path / "new").locked(), pytest.raises(ConfigError, match="another process"):
        prepared(tmp_path / "new", plan_of())


def test_a_kill_before_the_plan_was_written(plan_of, tmp_path, checked):
    stump = tmp_path / "new"
    (stump / "configs").mkdir(parents=True)
    (stump / ".lock").touch()
    assert prepared(stump, plan_of()).data_digest


def test_a_run_is_no_ablation(tmp_path):
    (tmp_path / "config.toml").touch()
    (tmp_path / "plan.json").write_text('{"phases": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is a run, and no ablation; to look at it: gan report"):
        load_plan(tmp_path / "plan.json")


def test_a_reason_that_arms_share_is_said_once(plan_of, tmp_path, checked):
    checked[1].append(Answer({"baseline": (4, "no data"), "r1": (4, "no data")}, {}))
    with pytest.raises(CheckError, match=r"^arm 'baseline', arm 'r1': no data$"):
        prepared(tmp_path / "new", plan_of())


def test_data_that_changed_is_found_before_runs_begin_on_it(plan_of, tmp_path, checked):
    calls, answers = checked
    plan = plan_of(**{"data.source": str(tmp_path / "images")})
    path = tmp_path / "new"
    prepared(path, plan)
    prepared(path, replace(plan, tomls={}))
    assert calls[-1] == (["baseline"], "", [])
    answers.append(Answer({}, {"baseline": "cd" * 32}))
    with pytest.raises(DataError, match="the runs before abab"):
        prepared(path, replace(plan, tomls={}))


def test_a_metric_that_is_not_measured_is_found_before_runs_begin(plan_of, tmp_path, checked):
    checked[1].append(Answer({}, {"baseline": "ab"}, ("fid", "kid")))
    with pytest.raises(ConfigError, match=r"--metric fidd: it was not measured \(did you mean 'fid'\?\)"):
        prepared(tmp_path / "new", plan_of(), chosen=["kid", "fidd"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{"baseline": "gone"}, {"seeds": []}, {"arms": {}}, {"arms": []}])
def test_a_plan_that_was_changed_by_hand(plan_of, tmp_path, change):
    path = tmp_path / "plan.json"
    save_plan(path, plan_of())
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds no plan of an ablation"):
        load_plan(path)
