"""Flags become layers of configuration."""

from __future__ import annotations

import json
import tomllib

import pytest

from gancore.cli.options import FLAGS, layers
from gancore.config import load_file, resolve
from gancore.errors import ConfigError
from gancore.plugin_manager import discover


def test_flags_that_are_not_given_add_nothing():
    assert layers(None, (), (), **{flag.parameter: None for flag in FLAGS}, kimg=None) == []


def test_every_flag_sets_its_key():
    keys = {flag.parameter: flag.key for flag in FLAGS}
    given = {name: f"value of {name}" for name in keys}
    assert layers(None, (), (), **given) == [
        ("command line", {key: f"value of {name}" for name, key in keys.items()})
    ]


def test_false_is_a_value():
    assert layers(None, (), (), mirror=False) == [("command line", {"data.mirror": False})]


def test_layers_from_weak_to_strong(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('plugins = ["r1"]\n[train]\nbatch = 4\nseed = 1\n[r1]\nevery = 2\n')
    found = layers(str(file), ("hinge",), ("train.seed=3",), batch=8, seed=2)
    config = resolve(discover(), found)
    assert config.plugins == ("r1", "hinge")
    assert (config.train.batch, config.train.seed, config.methods["r1"].every) == (8, 3, 2)
    assert config.origins["train.batch"] == "command line"
    assert config.origins["methods.r1.every"] == "file a.toml"


def test_steps_exclude_kimg(gan):
    with pytest.raises(ConfigError, match="--steps and --kimg"):
        layers(None, (), (), steps=1, kimg=1.0)
    assert gan("train", "--steps", 1, "--kimg", 1).code == 2


@pytest.mark.parametrize(
    ("file", "flags", "override", "steps"),
    [
        ("kimg = 64", {}, (), 1000),
        ("kimg = 64", {"steps": 7}, (), 7),
        ("steps = 9", {"kimg": 6.4}, (), 100),
        ("steps = 9", {"kimg": 6.4}, ("train.steps=3",), 3),
    ],
)
def test_the_strongest_layer_decides_the_length(tmp_path, file, flags, override, steps):
    path = tmp_path / "a.toml"
    path.write_text(f"[train]\n{file}\n")
    assert resolve(discover(), layers(str(path), (), override, **flags)).train.steps == steps


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "train.btch=3"], 2, "did you mean 'batch'?"),
        (["-o", "tran.batch=3"], 2, "did you mean 'train'?"),
        (["-o", "train.batch"], 2, "expected key=value"),
        (["-o", "r1.gamma=3"], 2, "add -p r1"),
        (["--batch", "0"], 2, "train.batch = 0: expected a value >= 1"),
        (["--network", "dcgam"], 3, "did you mean 'dcgan'?"),
        (["--preset", "dmo"], 2, "did you mean 'demo'?"),
        (["-p", "hing"], 3, "did you mean 'hinge'?"),
        (["-p", "hinge", "-p", "wgan"], 3, "objective claimed by both 'hinge' and 'wgan'"),
        (["nowhere.toml"], 2, "cannot read the configuration 'nowhere.toml'"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_wrong_configurations(gan, command, arguments, code, message):
    outcome = gan(command, *arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.out == ""


def test_dry_run_is_a_configuration_file(gan, tmp_path):
    arguments = ["-p", "relativistic", "-p", "r1", "-o", "r1.every=16", "--mirror", "--batch", 32, "--kimg", 3.2]
    first = gan("train", "--dry-run", *arguments)
    assert first.code == 0
    assert first.err == ""
    document = tomllib.loads(first.out)
    assert document["train"]["steps"] == 100
    assert document["methods"]["r1"]["every"] == 16
    assert document["origin"]["data.mirror"] == "command line"
    assert document["versions"]["plugins"]["r1"]["distribution"] == "gancore"
    file = tmp_path / "again.toml"
    file.write_text(first.out)
    again = gan("train", "--dry-run", file)
    repeated = tomllib.loads(again.out)
    assert {**repeated, "origin": {}} == {**document, "origin": {}}
    assert (
        resolve(discover(), load_file(file)).flat()
        == resolve(
            discover(), layers(None, ("relativistic", "r1"), ("r1.every=16",), mirror=True, batch=32, kimg=3.2)
        ).flat()
    )


def test_dry_run_as_json(gan):
    document = json.loads(gan("train", "--dry-run", "--json", "--preset", "demo", "--seed", 5).out)
    assert document["config"]["train"]["seed"] == 5
    assert document["origin"]["train.batch"] == "preset demo"


def test_dry_run_writes_nothing(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gan("train", "--dry-run").code == 0
    assert list(tmp_path.iterdir()) == []
