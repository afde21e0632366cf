"""Sinks hear what the folder keeps, continue after a resume, and never stop a run."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from methods_for_tests import spec_of

import gancore
from gancore import checkpoint, run
from gancore.api import Method, Score, SinkSpec, hookimpl
from gancore.config import resolve
from gancore.errors import ConfigError, Interrupted, PluginError
from gancore.plugin_manager import Origin, Registry
from gancore.testing import different, registry_with, tiny_config, tiny_session

SMALL = {"network.name": "mlp", "train.steps": 4, "output.snap": 2, "output.log_every": 1}
HEARD: list[tuple[Any, ...]] = []


class Spy:
    """Remembers what it hears; ``config['train.seed']`` says at which step it fails, 0 for never."""

    def __init__(self, told) -> None:
        HEARD.append(("open", told.step, told.folder.name))
        self._fails_at = told.config["train.seed"]

    def scalars(self, step, values) -> None:
        if step == self._fails_at:
            raise OSError("the line is dead")
        HEARD.append(("scalars", step, dict(values)))

    def evaluation(self, step, values, protocols) -> None:
        HEARD.append(("evaluation", step, dict(values), protocols))

    def picture(self, step, name, file, caption) -> None:
        assert file.is_file()
        HEARD.append(("picture", step, name, caption))

    def close(self) -> None:
        HEARD.append(("close",))


def broken(told) -> None:
    raise RuntimeError("no account")


class Measure(Method):
    @hookimpl
    def evaluate(self, run, samples):
        from PIL import Image

        samples.show("nearest", Image.new("RGB", (8, 8)), "neighbours")
        return {"fid": Score(2.0, "lower", {"samples": 10})}


def registry() -> Registry:
    found = registry_with(spec_of(Measure, "measure"))
    module = sys.modules[__name__]
    specs = (
        SinkSpec(name="spy", summary="", target=f"{module.__name__}:Spy"),
        SinkSpec(name="broken", summary="", target=f"{module.__name__}:broken"),
        SinkSpec(name="nowhere", summary="", target="gancore.nowhere:Sink"),
        SinkSpec(name="lacking", summary="", target="a:b", requires=("absent.part",), install="gancore[x]"),
    )
    plugin = SimpleNamespace(
        register_sinks=hookimpl(lambda register: [register(spec) for spec in specs] and None)
    )
    found.register(plugin, Origin("own", "0"))
    return found


def train(path: Path, *sinks: str, plugins=(), report=None, **overrides: Any) -> Path:
    given = {**SMALL, "output.sinks": sinks, **overrides}
    return gancore.train(tiny_config(plugins, given), outdir=path, registry=registry(), report=report).path


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    HEARD.clear()


def test_a_sink_hears_rows_evaluations_and_pictures(tmp_path: Path) -> None:
    path = train(tmp_path / "run", "spy", plugins=["measure"], **{"output.evaluate_every": 2})
    assert HEARD[0] == ("open", 0, "run")
    assert HEARD[-1] == ("close",)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss/d" in row]
    heard = [entry for entry in HEARD if entry[0] == "scalars"]
    assert [(entry[1], entry[2]["loss/d"]) for entry in heard] == [(row["step"], row["loss/d"]) for row in logged]
    assert {"loss/g", "images_seen", "images_per_second"} <= set(heard[0][2])
    assert not {"step", "std"} & set(heard[0][2])
    measured = [entry for entry in HEARD if entry[0] == "evaluation"]
    assert [entry[1] for entry in measured] == [0, 2, 4]
    assert measured[0][2] == {"fid": 2.0}
    assert measured[0][3]["fid"]["samples"] == 10
    pictures = [entry[1:] for entry in HEARD if entry[0] == "picture"]
    assert [(step, name) for step, name, _ in pictures if name == "samples"] == [
        (s, "samples") for s in (0, 2, 4)
    ]
    assert (2, "nearest", "neighbours") in pictures


def test_a_sink_changes_nothing_of_the_run(tmp_path: Path) -> None:
    with_sink, without = train(tmp_path / "a", "spy"), train(tmp_path / "b")
    loaded = [checkpoint.load_latest(path / "checkpoints") for path in (with_sink, without)]
    assert not different(loaded[0].tensors, loaded[1].tensors)


def test_a_resume_opens_it_at_its_step(tmp_path: Path) -> None:
    path = train(tmp_path / "run", "spy")
    HEARD.clear()
    run.resume(path, overrides={"train.steps": 6}, registry=registry())
    assert HEARD[0] == ("open", 4, "run")
    assert [entry[1] for entry in HEARD if entry[0] == "scalars"] == [5, 6]


def test_a_sink_that_fails_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    path = train(tmp_path / "run", "spy", report=lambda tick: said.extend(tick.warnings), **{"train.seed": 2})
    what = "sink 'spy' failed at step 2 and gets nothing more: OSError: the line is dead"
    assert said == [f"gancore: {what}"]
    assert [entry[1] for entry in HEARD if entry[0] == "scalars"] == [1]
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["what"] for row in rows if row.get("event") == "warning"] == [what]
    assert rows[-1]["step"] == 4


def test_a_failure_at_the_end_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self) -> None:
        raise TimeoutError("slow")

    monkeypatch.setattr(Spy, "close", fail)
    said: list[str] = []
    train(tmp_path / "run", "spy", report=lambda tick: said.extend(tick.warnings))
    assert said == ["sink 'spy' failed at its end: TimeoutError: slow"]


def test_an_interrupted_run_closes_its_sinks(tmp_path: Path) -> None:
    def stop(tick) -> None:
        raise Interrupted("enough")

    with pytest.raises(Interrupted):
        train(tmp_path / "run", "spy", report=stop)
    assert HEARD[-1] == ("close",)


def test_what_cannot_work_is_said_before_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be opened: RuntimeError: no account; mend it, or leave 'broken'"
    ):
        train(tmp_path / "a", "spy", "broken")
    assert HEARD[-1] == ("close",)
    with pytest.raises(PluginError, match="sink 'nowhere' cannot be loaded"):
        registry().sink("nowhere").load()
    monkeypatch.setattr("gancore.assembly.open_dataset", lambda *_: pytest.fail("data was read"))
    with pytest.raises(ConfigError, match=r"unknown sink 'tensorbord' \(did you mean 'tensorboard'\?\); sinks: "):
        train(tmp_path / "b", "tensorbord")
    with pytest.raises(ConfigError, match=r"'absent.part', which is not installed: pip install 'gancore\[x\]'"):
        train(tmp_path / "c", "lacking")
    assert not (tmp_path / "c").exists()


def test_sinks_are_given_as_a_list() -> None:
    given = [("file", {"output.sinks": ["tensorboard", "wandb"]})]
    assert resolve(registry(), given).output.sinks == ("tensorboard", "wandb")
    with pytest.raises(ConfigError, match=r"output\.sinks = 'tensorboard'"):
        resolve(registry(), [("file", {"output.sinks": "tensorboard"})])


def test_a_session_without_sinks_imports_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    tiny_session([], {"network.name": "mlp"}).close()


# The included ones.


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TensorBoard and what it imports
def test_tensorboard_holds_a_run_and_continues_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra gancore[tensorboard]")
    path = train(tmp_path / "run", "tensorboard", plugins=["measure"], **{"output.evaluate_every": 2})
    found = events(path / "tensorboard")
    rows = {row["step"]: row for row in run.load(path).metrics if "loss/d" in row}
    scalars = {event.step: event.value for event in found.Scalars("loss/d")}
    assert scalars == {step: pytest.approx(row["loss/d"]) for step, row in rows.items()}
    assert [(event.step, event.value) for event in found.Scalars("metrics/fid")] == [(0, 2), (2, 2), (4, 2)]
    assert [event.step for event in found.Images("samples")] == [0, 2, 4]
    (text,) = found.Tensors("protocol/fid/text_summary")
    assert b"| samples | 10 |" in text.tensor_proto.string_val[0]
    forget = path / "checkpoints"
    for suffix in ("json", "safetensors"):
        (forget / f"step-00000004.{suffix}").unlink()
    run.resume(path, overrides={"train.steps": 5}, registry=registry())
    again = events(path / "tensorboard")
    assert [event.step for event in again.Scalars("loss/d")] == [1, 2, 3, 4, 5]
    assert [event.step for event in again.Images("samples")] == [0, 2, 4, 5]


BLOCK, WHOLE, LAST = 32768, 1, 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of wandb and what it imports
def test_wandb_holds_a_run_and_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra gancore[wandb]")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    path = train(tmp_path / "run", "wandb", plugins=["measure"], **{"output.evaluate_every": 2})
    identity = json.loads((path / "wandb.json").read_text())["id"]
    run.resume(path, overrides={"train.steps": 6}, registry=registry())
    assert json.loads((path / "wandb.json").read_text())["id"] == identity
    logs = sorted((path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert len(logs) == 2
    history = [wandb_rows(log) for log in logs]
    steps = [[row["step"] for row in rows if "loss/d" in row] for rows in history]
    assert steps == [[1, 2, 3, 4], [5, 6]]
    logged = {row["step"]: row["loss/d"] for row in run.load(path).metrics if "loss/d" in row}
    assert {row["step"]: row["loss/d"] for rows in history for row in rows if "loss/d" in row} == logged
    assert [row["step"] for row in history[0] if "metrics/fid" in row] == [0, 2, 4]
    assert [row["step"] for row in history[0] if "samples" in row] == [0, 2, 4]


def wandb_rows(log: Path) -> list[Mapping[str, Any]]:
    """What an offline run recorded: after a head of seven bytes a log of LevelDB's format."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts, rows = log.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # no room for the head of a part: zeros up to the next block
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record.FromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return rows
