"""Layers, origins, the resolved file, nearest names."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gancore.config import flatten, load_file, parse_override, resolve
from gancore.drift import changed_keys
from gancore.errors import ConfigError, PluginError
from gancore.options import Options, option
from gancore.plugin_manager import discover
from gancore.specs import Claims, MethodSpec
from gancore.testing import registry_with

REGISTRY = discover()


def config(**layers: Any):
    return resolve(REGISTRY, list(layers.items()))


def test_later_layers_win_and_origins_say_so() -> None:
    got = config(
        file={"train.batch": 16, "train.seed": 3, "plugins": ["adaptivemix"]},
        line={"train.batch": 32, "adaptivemix.alpha": 0.5},
    )
    assert (got.train.batch, got.train.seed) == (32, 3)
    assert got.methods["adaptivemix"].alpha == 0.5
    assert got.origins["train.batch"] == "line"
    assert got.origins["train.seed"] == "file"
    assert got.origins["methods.adaptivemix.alpha"] == "line"
    assert got.origins["methods.adaptivemix.noise"] == "default"
    assert got.origins["optimizer.g.lr"] == "network default"


def test_network_defaults_yield_to_what_is_given() -> None:
    assert config(line={"network": "sngan"}).train.n_critic == 5
    assert config(line={"network": "sngan", "train.n_critic": 2}).train.n_critic == 2


def test_the_default_objective_steps_back_when_one_is_named() -> None:
    assert config(line={"plugins": ["adaptivemix"]}).plugins == ("nonsaturating", "adaptivemix")
    assert config(line={"plugins": ["adaptivemix", "hinge"]}).plugins == ("adaptivemix", "hinge")


def test_plugins_of_the_command_line_are_added_to_those_of_a_file() -> None:
    got = config(file={"plugins": ["hinge", "r1"]}, line={"plugins": ["adaptivemix", "r1"]})
    assert got.plugins == ("hinge", "r1", "adaptivemix")


def test_two_owners_are_refused_before_anything_is_read() -> None:
    with pytest.raises(
        PluginError, match="objective claimed by both 'hinge' and 'lsgan'; keep one: drop -p hinge"
    ):
        config(line={"plugins": ["lsgan", "hinge"], "data": "/nowhere"})


def test_the_resolved_file_gives_the_same_configuration(tmp_path: Path) -> None:
    first = config(line={"plugins": ["adaptivemix", "r1"], "adaptivemix.preset": "official", "train.kimg": 10})
    path = tmp_path / "config.toml"
    path.write_text(first.to_toml(versions={"gancore": "0"}))
    second = resolve(REGISTRY, load_file(path))
    assert second.flat() == first.flat()
    assert tomllib.loads(path.read_text())["origin"]["methods.adaptivemix.distance"] == "preset official"


def test_a_preset_or_network_named_later_replaces_what_the_first_brought(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    first = config(line={"plugins": ["adaptivemix"], "adaptivemix.alpha": 0.5, "network.d_width": 32})
    path.write_text(first.to_toml())
    later = resolve(
        REGISTRY, [*load_file(path), ("line", {"adaptivemix.preset": "official", "network": "sngan"})]
    )
    official = config(
        line={"plugins": ["adaptivemix"], "adaptivemix.preset": "official", "adaptivemix.alpha": 0.5}
    )
    assert later.methods == official.methods
    assert later.train.n_critic == 5
    assert later.optimizers["d"].betas == (0.0, 0.9)
    assert later.network.d_width == 32  # a wish stays


def test_steps_and_kimg_replace_each_other_across_layers() -> None:
    assert config(file={"train.kimg": 64}, line={"train.steps": 7}).train.steps == 7
    both = config(file={"train.steps": 7}, line={"train.kimg": 6.4})
    assert both.train.steps == 100
    assert both.origins["train.steps"] == "line"
    with pytest.raises(ConfigError, match="train.steps and train.kimg are both given"):
        config(line={"train.steps": 7, "train.kimg": 1})


def test_a_best_metric_needs_evaluations() -> None:
    with pytest.raises(ConfigError, match="output.keep_best needs metrics"):
        config(line={"output.keep_best": "fid"})


def test_kimg_is_steps_times_the_batch() -> None:
    assert config(line={"train.kimg": 3.2, "train.batch": 16}).train.steps == 200
    with pytest.raises(ConfigError, match="train.kimg = -1: expected a number above 0"):
        config(line={"train.kimg": -1})


def test_2d_sets_take_the_mlp() -> None:
    assert config(line={"data": "gaussians"}).network_name == "mlp"
    assert config(line={"data.source": "circles:concentric"}).network_name == "mlp"
    assert config(line={"data": "./photos"}).network_name == "dcgan"


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ({"trian.batch": 3}, ConfigError, r"unknown section 'trian' in 'trian.batch' \(did you mean 'train'\?\)"),
        ({"batch": 3}, ConfigError, r"unknown key 'batch' \(did you mean 'train.batch'\?\)"),
        ({"train.bach": 3}, ConfigError, r"unknown option 'train.bach' \(did you mean 'batch'\?\)"),
        ({"network": "dcgna"}, PluginError, r"unknown network 'dcgna' \(did you mean 'dcgan'\?\)"),
        (
            {"plugins": ["adaptivemx"]},
            PluginError,
            r"unknown plugin 'adaptivemx' \(did you mean 'adaptivemix'\?\); "
            "to install it: pip install gancore-adaptivemx",
        ),
        ({"adaptivemix.alpha": 1}, ConfigError, "which the run does not name: add -p adaptivemix"),
        ({"plugins": "hinge"}, ConfigError, "expected a list of names"),
        ({"network.widht": 3}, ConfigError, "unknown option 'network.widht'"),
        ({"optimizer.g.betas": [0.5, 2.0]}, ConfigError, "optimizer.g.betas = 2.0: expected a value < 1"),
        ({"train.steps": 0}, ConfigError, "train.steps = 0: expected a value >= 1"),
    ],
)
def test_mistakes_are_named(layer: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        config(line=layer)


def test_presets() -> None:
    got = resolve(REGISTRY, [("line", {"train.batch": 8})], preset="demo")
    assert got.train.batch == 8
    assert got.origins["network.g_width"] == "preset demo"
    with pytest.raises(ConfigError, match=r"unknown preset 'dmo' \(did you mean 'demo'\?\)"):
        resolve(REGISTRY, [], preset="dmo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=0.5", ("a.b", 0.5)),
        ("a.b=true", ("a.b", True)),
        ("a.b=[0, 1]", ("a.b", [0, 1])),
        ("a.b=official", ("a.b", "official")),
        ("a.b=x=y", ("a.b", "x=y")),
        ('a.b="3"', ("a.b", "3")),
    ],
)
def test_overrides(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override("adaptivemix.alpha")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_file(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    path.write_text("a = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_file(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_file(path)


def test_drift_ignores_what_changes_no_step() -> None:
    before = config(line={}).flat()
    now = config(line={"train.steps": 9, "output.snap": 7, "train.seed": 1}).flat()
    assert changed_keys(before, now) == ["train.seed"]


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_an_option_may_default_to_none() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Maybe(Options):
        level: float | None = option(None, help="A level, or none.", minimum=0)
        other: float = option(1.0, help="A number.")

    spec = MethodSpec(name="maybe", summary="", target="x:Y", options=Maybe, claims=lambda chosen: Claims())
    registry = registry_with(spec)
    without = resolve(registry, [("line", {"plugins": ["maybe"]})])
    assert without.methods["maybe"].level is None
    assert "level" not in tomllib.loads(without.to_toml())["methods"]["maybe"]
    given = resolve(registry, [("line", {"plugins": ["maybe"], "maybe.level": 2.0})])
    assert tomllib.loads(given.to_toml())["methods"]["maybe"]["level"] == 2.0
    with pytest.raises(ConfigError, match="maybe.other = None: a configuration cannot keep None"):
        resolve(registry, [("line", {"plugins": ["maybe"], "maybe.other": None})])
