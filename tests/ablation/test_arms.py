"""Which arms a command line or a file stands for, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gancore.ablation.arms import Draft, read_file, resolve_arms, subsets
from gancore.errors import ConfigError, PluginError
from gancore.plugin_manager import discover

BASE = [("command line", {"data.source": "gaussians", "train.steps": 5})]


def members(kind, *plugins):
    drafts, baseline = subsets(plugins, kind)
    return {draft.name: draft.plugins for draft in drafts}, baseline


def test_all_subsets():
    arms, baseline = members("all", "a", "b", "c")
    assert baseline == "baseline"
    assert arms == {
        "baseline": (),
        "a": ("a",),
        "b": ("b",),
        "c": ("c",),
        "a+b": ("a", "b"),
        "a+c": ("a", "c"),
        "b+c": ("b", "c"),
        "a+b+c": ("a", "b", "c"),
    }


def test_each_alone():
    assert members("each", "a", "b") == ({"baseline": (), "a": ("a",), "b": ("b",)}, "baseline")


def test_leave_one_out_is_compared_with_all_together():
    arms, baseline = members("leave-one-out", "a", "b", "c")
    assert baseline == "a+b+c"
    assert arms == {
        "a+b+c": ("a", "b", "c"),
        "without-a": ("b", "c"),
        "without-b": ("a", "c"),
        "without-c": ("a", "b"),
    }


@pytest.mark.parametrize(
    ("kind", "plugins", "message"),
    [
        ("all", (), "nothing to compare"),
        ("leave-one-out", ("a",), "two plugins or more"),
        ("all", tuple("abcdefghijk"), "2,048 arms; choose --subsets each"),
    ],
)
def test_subsets_that_make_no_sense(kind, plugins, message):
    with pytest.raises(ConfigError, match=message):
        subsets(plugins, kind)


def test_an_option_holds_where_its_plugin_is(registry):
    base = [*BASE, ("command line", {"r1.gamma": 2.0, "gp.weight": 3.0, "plugins": ["hinge"]})]
    arms = resolve_arms(registry, base, *subsets(("r1", "gp"), "all"))
    assert {name: config.plugins for name, config in arms.configs.items()} == {
        "baseline": ("hinge",),
        "r1": ("hinge", "r1"),
        "gp": ("hinge", "gp"),
        "r1+gp": ("hinge", "r1", "gp"),
    }
    assert arms.configs["r1"].methods["r1"].gamma == 2.0
    assert arms.configs["r1+gp"].methods["gp"].weight == 3.0


def test_an_option_of_a_plugin_that_no_arm_has(registry):
    with pytest.raises(ConfigError, match=r"arm 'baseline': 'r2.gamma' sets an option of 'r2'.*add -p r2"):
        resolve_arms(registry, [*BASE, ("command line", {"r2.gamma": 1.0})], *subsets(("r1",), "all"))


def test_own_options_of_an_arm_win_over_the_command_line(registry):
    drafts = [Draft("soft", ("r1",), {"r1.gamma": 0.5}), Draft("hard", ("r1",))]
    arms = resolve_arms(registry, [*BASE, ("command line", {"r1.gamma": 9.0})], drafts, "hard")
    assert arms.configs["soft"].methods["r1"].gamma == 0.5
    assert arms.configs["hard"].methods["r1"].gamma == 9.0


def test_conflicts_are_found_and_named_all_at_once(registry):
    with pytest.raises(PluginError) as raised:
        resolve_arms(registry, BASE, *subsets(("hinge", "lsgan", "wgan"), "all"))
    message = str(raised.value)
    for arm in ("hinge+lsgan", "hinge+wgan", "lsgan+wgan", "hinge+lsgan+wgan"):
        assert f"arm '{arm}': objective claimed by both" in message
    assert "arm 'hinge':" not in message
    assert "--skip-conflicts" in message


def test_conflicts_can_be_skipped_and_are_listed(registry):
    arms = resolve_arms(registry, BASE, *subsets(("hinge", "lsgan"), "all"), skip_conflicts=True)
    assert list(arms.configs) == ["baseline", "hinge", "lsgan"]
    assert list(arms.skipped) == ["hinge+lsgan"]
    assert "objective claimed by both" in arms.skipped["hinge+lsgan"]


def test_the_baseline_is_never_skipped(registry):
    with pytest.raises(PluginError, match=r"arm 'hinge\+lsgan'") as raised:
        resolve_arms(registry, BASE, *subsets(("hinge", "lsgan"), "leave-one-out"), skip_conflicts=True)
    assert "--skip-conflicts" not in str(raised.value)


def test_an_unknown_plugin(registry):
    with pytest.raises(PluginError, match="unknown plugin 'hing'.*did you mean 'hinge'"):
        resolve_arms(registry, BASE, *subsets(("hing",), "all"))


def test_observers_measure_all_arms_and_are_in_none(registry):
    base = [*BASE, ("command line", {"plugins": ["gauge"], "gauge.weight": 2.0})]
    arms = resolve_arms(registry, base, *subsets(("r1",), "all"))
    assert arms.observers == ("gauge",)
    assert arms.measuring == {"methods.gauge.weight": 2.0}
    assert all("gauge" not in config.plugins for config in arms.configs.values())
    assert arms.measured == {}


def test_runs_that_measure_while_they_train_have_the_observers(registry):
    base = [*BASE, ("command line", {"output.evaluate_every": 2, "gauge.weight": 2.0})]
    arms = resolve_arms(registry, base, *subsets(("r1",), "all"))
    assert arms.measured["r1"].plugins == ("nonsaturating", "r1", "gauge")
    assert arms.measured["r1"].methods["gauge"].weight == 2.0
    assert arms.configs["r1"].plugins == ("nonsaturating", "r1")


def test_nothing_that_measures():
    with pytest.raises(PluginError, match="pip install gancore-fidelity"):
        resolve_arms(discover([]), BASE, *subsets(("r1",), "all"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train.steps": 6}, "baseline 5 steps of 64, other 6 steps of 64"),
        ({"train.batch": 32}, "equal images seen"),
        ({"data.source": "circles"}, r"the same data: baseline gaussians \(1\), other circles"),
        ({}, "the arms 'baseline' and 'other' are the same run"),
    ],
)
def test_arms_that_cannot_be_compared(registry, options, message):
    with pytest.raises(ConfigError, match=message):
        resolve_arms(registry, BASE, [Draft("baseline"), Draft("other", (), options)], "baseline")


FILE = """
plugins = ["hinge"]
[train]
steps = 7
[ablation]
seeds = "0-3"
baseline = "plain"
[arms.plain]
[arms."r1-0.5"]
plugins = ["r1"]
r1.gamma = 0.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "ablation.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_names_arms(tmp_path, registry):
    file = read_file(write(tmp_path, FILE))
    assert file.drafts == [Draft("plain"), Draft("r1-0.5", ("r1",), {"r1.gamma": 0.5})]
    assert (file.baseline, file.seeds) == ("plain", "0-3")
    arms = resolve_arms(registry, file.base, file.drafts, file.baseline)
    assert arms.configs["r1-0.5"].plugins == ("hinge", "r1")
    assert arms.configs["r1-0.5"].train.steps == 7


def test_a_file_of_train_is_a_base(tmp_path):
    file = read_file(write(tmp_path, '[train]\nsteps = 7\n[data]\nsource = "circles"\n'))
    assert file.drafts == []
    assert file.base == [("file ablation.toml", {"train.steps": 7, "data.source": "circles"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[arms.a]\n[ablation]\nbaselin = 'a'", "unknown key 'ablation.baselin'.*did you mean 'baseline'"),
        ("[arms.a]", "the baseline 'baseline' is no arm.*one of: a"),
        ("arms = 3", "arms = 3; expected a table"),
        ("[arms]\na = 3", "arms.a = 3; expected a table"),
        ("[arms.'../a']", "names a folder"),
        ("[arms.baseline]\nplugins = 'r1'", "expected a list of names"),
        ("[arms.baseline.train]\nseed = 3", "every arm has the same seeds"),
        ("[arms", "not valid TOML"),
    ],
)
def test_a_file_with_a_mistake(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_file(write(tmp_path, text))
