"""A run that differs from its checkpoint is not continued, and says in what it differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from methods_for_tests import ALL
from training_for_tests import REGISTRY, copy_of, finished_run, newest

import gancore
from gancore import checkpoint, run
from gancore.errors import (
    CheckpointError,
    ConfigError,
    PluginError,
)
from gancore.testing import registry_with, tiny_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return copy_of(finished, tmp_path / "run")


def edit_config(path: Path, old: str, new: str) -> None:
    text = (path / "config.toml").read_text()
    assert old in text
    (path / "config.toml").write_text(text.replace(old, new))


def test_a_changed_configuration_is_refused_with_both_values(copy: Path) -> None:
    edit_config(copy, "batch = 8", "batch = 16")
    with pytest.raises(CheckpointError, match="train.batch: 8 -> 16.*--allow-drift train.batch") as caught:
        run.resume(copy, registry=REGISTRY)
    assert caught.value.exit_code == 6
    assert checkpoint.steps(copy / "checkpoints") == [0, 2]
    run.resume(copy, registry=REGISTRY, allow_drift=("train.batch",))
    assert newest(copy).step == 4


def test_other_data_is_drift(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="data.fraction: 0.1 -> 0.5"):
        run.resume(copy, registry=REGISTRY, overrides={"data.fraction": 0.5})
    with pytest.raises(CheckpointError, match="data: the set's content.*--allow-drift data"):
        run.resume(copy, registry=REGISTRY, overrides={"data.fraction": 0.5}, allow_drift=("data.fraction",))
    run.resume(copy, registry=REGISTRY, overrides={"data.fraction": 0.5}, allow_drift=("data.fraction", "data"))


def test_a_missing_plugin_is_refused_and_can_be_dropped(copy: Path) -> None:
    without = registry_with(*[spec for spec in ALL if spec.name != "head"])
    with pytest.raises(PluginError, match="unknown plugin 'head'.*pip install gancore-head") as caught:
        run.resume(copy, registry=without)
    assert caught.value.exit_code == 3
    assert str(caught.value).endswith(f"or go on without it: gan resume {copy} --drop-plugin head")
    run.resume(copy, registry=without, drop_plugins=("head",))
    assert newest(copy).step == 4
    assert "head" not in newest(copy).meta["plugins"]


def test_dropping_the_objective_does_not_swap_it_in_silence(tmp_path: Path) -> None:
    done = gancore.train(tiny_config(["hinge"]), registry=REGISTRY, outdir=tmp_path / "run")
    longer = {"train.steps": 6}
    with pytest.raises(CheckpointError, match="'nonsaturating' would take its place.*--allow-drift plugins"):
        run.resume(done.path, registry=REGISTRY, overrides=longer, drop_plugins=("hinge",))
    again = {"drop_plugins": ("hinge",), "allow_drift": ("plugins",)}
    run.resume(done.path, registry=REGISTRY, overrides=longer, **again)
    assert newest(done.path).meta["config"]["plugins"] == ["nonsaturating"]


def test_another_plugin_version_is_drift(copy: Path) -> None:
    registry = registry_with(*ALL)
    registry.origins["head"] = type(registry.origins["head"])("test", "1")
    with pytest.raises(CheckpointError, match="head: version 0 -> 1"):
        run.resume(copy, registry=registry)
    run.resume(copy, registry=registry, allow_drift=("head",))


def test_another_environment_is_refused_unless_allowed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.raises(CheckpointError, match="would not be bit-equal .threads: 1 -> 7.*--allow-inexact"):
        run.resume(copy, registry=REGISTRY)
    run.resume(copy, registry=REGISTRY, allow_inexact=True)
    assert newest(copy).step == 4


def test_unknown_names_to_drop_or_allow_are_refused(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"--drop-plugin haed: .*did you mean 'head'"):
        run.resume(copy, registry=REGISTRY, drop_plugins=("haed",))
    with pytest.raises(ConfigError, match=r"--allow-drift train.bach: .*did you mean 'train.batch'"):
        run.resume(copy, registry=REGISTRY, allow_drift=("train.bach",))


def test_a_damaged_configuration_is_named(copy: Path) -> None:
    with open(copy / "config.toml", "a") as file:
        file.write("x = [")
    with pytest.raises(ConfigError, match="config.toml' is not valid TOML"):
        run.resume(copy, registry=REGISTRY, overrides={"train.steps": 8})


def test_another_optimiser_starts_afresh(copy: Path) -> None:
    overrides = {"optimizer.d.name": "rmsprop", "optimizer.g.name": "sgd"}
    run.resume(copy, registry=REGISTRY, overrides=overrides, allow_drift=tuple(overrides))
    assert newest(copy).step == 4
    assert not [name for name in newest(copy).tensors if name.endswith("/exp_avg")]


def test_a_method_that_goes_to_weight_zero_leaves_the_run(copy: Path) -> None:
    run.resume(copy, registry=REGISTRY, overrides={"head.weight": 0.0}, allow_drift=("methods.head.weight",))
    assert newest(copy).step == 4
