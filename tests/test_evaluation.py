"""Scores and their protocols: gathered, kept, refused when unlike; of a session, a checkpoint, a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from methods_for_tests import broken, spec_of
from PIL import Image

import gancore
from gancore import pictures
from gancore.api import Method, Score, hookimpl
from gancore.data import DataOptions
from gancore.data.generated import open_generated
from gancore.errors import CheckpointError, ConfigError, DataError, PluginError
from gancore.evaluation import evaluate, evaluate_folder, evaluate_run
from gancore.metrics import gather, unknown, unlike
from gancore.run import resume
from gancore.run_folder import RunFolder
from gancore.testing import registry_with, run_steps, tiny_config, tiny_session
from gancore.training import keep_evaluation


class Brightness(Method):
    """Mean of samples and of the reference, with a picture."""

    @hookimpl
    def evaluate(self, samples):
        count = min(12, samples.limit or 12)
        parts = list(samples.batches(count, 3, 5))
        assert torch.allclose(torch.cat(parts), samples.generate(count, 3), atol=1e-6)
        mean = float(torch.cat(parts).double().mean())
        if samples.dataset.kind == "image":
            sheet = pictures.grid(parts[0])
            samples.show("bright", sheet, "The first samples.")
        protocol = {"samples": count, "seed": 3, "labelled": samples.labelled is not None}
        held = samples.held_out
        return {
            "brightness": Score(mean, "higher", protocol),
            "held_out_images": 0 if held is None else len(held),
            "has_d": float(samples.discriminator is not None and not samples.discriminator.training),
        }


def brightness():
    import dataclasses

    return dataclasses.replace(spec_of(Brightness, "brightness"), observer=True)


@pytest.fixture(scope="module")
def registry():
    return registry_with(brightness())


@pytest.fixture(scope="module")
def run(tmp_path_factory, registry) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "run"
    given = {"output.evaluate_every": 2, "output.snap": 2, "output.keep": 9, "train.steps": 3}
    gancore.train(tiny_config(["brightness"], given), outdir=path, registry=registry)
    return path


def test_a_number_is_a_score_and_what_is_none_is_named() -> None:
    assert gather({"a": None, "b": {"fid": 3}}, {})["fid"].value == 3.0
    with pytest.raises(PluginError, match="metric 'fid' returned by both 'a' and 'b'"):
        gather({"b": {"fid": 1.0}, "a": {"fid": 2.0}}, {})
    found = gather({"a": {"x": np.float32(1.5), "y": torch.tensor(2)}}, {})
    assert {name: score.value for name, score in found.items()} == {"x": 1.5, "y": 2.0}
    with pytest.raises(PluginError, match="plugin 'a' returned list from evaluate; expected a dict"):
        gather({"a": [1.0]}, {})  # type: ignore[dict-item]
    for value in (float("nan"), Score(float("nan")), "3.5", 10**400, torch.ones(2), np.ones(2), None):
        with pytest.raises(PluginError, match="plugin 'a' returned metric 'fid' = .*; expected a number"):
            gather({"a": {"fid": value}}, {})  # type: ignore[dict-item]
    for name in (1, "", None):
        with pytest.raises(PluginError, match=f"plugin 'a' returned a metric named {name!r}; expected a text"):
            gather({"a": {name: 1.0}}, {})  # type: ignore[dict-item]


def test_a_protocol_is_plain_and_cannot_override_what_the_core_knows() -> None:
    found = gather({"a": {"fid": Score(1.0, "lower", {"samples": 10})}}, {"ema": True})
    assert found["fid"] == Score(1.0, "lower", {"method": "a", "samples": 10, "ema": True})
    with pytest.raises(PluginError, match="'ema' is said by gancore itself"):
        gather({"a": {"fid": Score(1.0, "lower", {"ema": False})}}, {"ema": True})
    for value in ([1, 2], float("nan"), float("inf")):
        with pytest.raises(PluginError, match="'sizes' = .*; expected by name text, finite numbers, booleans"):
            gather({"a": {"fid": Score(1.0, "lower", {"sizes": value})}}, {})  # type: ignore[dict-item]
    with pytest.raises(PluginError, match="protocol of metric 'fid' is NoneType; expected a dict"):
        gather({"a": {"fid": Score(1.0, "lower", None)}}, {})  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="better = 'less'"):
        gather({"a": {"fid": Score(1.0, "less")}}, {})  # type: ignore[arg-type]


def test_unlike_protocols_are_named_fact_by_fact() -> None:
    one = {"samples": 10, "seed": 0, "ema": True, "backbone": "x"}
    assert unlike({"a": one, "b": dict(one)}) == []
    assert unlike({"a": one, "b": {**one, "samples": 20}}) == ["samples: 10 (a), 20 (b)"]
    assert unlike({"a": one, "b": {**one, "ema": None}}) == []
    assert unknown([one, {**one, "ema": None}]) == ["ema"]
    assert unknown([{**one, "ema": None}, {**one, "ema": None}]) == []
    shorter = {key: value for key, value in one.items() if key != "backbone"}
    assert unlike({"a": one, "b": shorter}) == ["backbone: x (a), not said (b)"]
    assert unlike({"a": {"x": 1}, "b": {"x": 1.0}}) == []
    assert unlike({"a": {"x": 1}, "b": {"x": True}}) == ["x: 1 (a), yes (b)"]


def test_a_run_is_measured_before_it_starts_on_the_way_and_at_its_end(run: Path) -> None:
    rows = [row for row in RunFolder(run).read_metrics() if "metrics" in row]
    assert [row["step"] for row in rows] == [0, 2, 3]
    assert rows[0]["protocols"]["brightness"]["samples"] == 12
    protocol = rows[-1]["protocols"]["brightness"]
    assert protocol["better"] == "higher"
    assert protocol["ema"] is True
    assert protocol["truncation"] == 1.0
    assert protocol["method"] == "brightness"
    assert len(protocol["data_digest"]) == 64
    assert rows[-1]["metrics"]["has_d"] == 1.0
    for row in rows:
        assert (run / row["pictures"]["bright"]["file"]).is_file()
    assert rows[-1]["pictures"]["bright"]["caption"] == "The first samples."


def test_measuring_changes_no_bit_of_a_training(registry) -> None:
    watched, plain = (tiny_session([*names], {}, registry) for names in (["brightness"], []))
    run_steps(watched, 2)
    assert evaluate(watched).metrics["has_d"] == 1.0
    assert watched.trainer.discriminator.training
    run_steps(watched, 2)
    run_steps(plain, 4)
    for a, b in zip(
        watched.trainer.discriminator.state_dict().values(),
        plain.trainer.discriminator.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_checkpoint_gives_the_scores_that_training_gave(run: Path, registry) -> None:
    rows = {row["step"]: row for row in RunFolder(run).read_metrics() if "metrics" in row}
    for step in (0, 2, None):
        found = evaluate_run(run, registry, step=step)
        row = rows[3 if step is None else step]
        assert found.step == row["step"]
        assert found.images_seen == row["images_seen"]
        assert found.metrics == pytest.approx(row["metrics"], rel=1e-6)
        assert not unlike({"run": row["protocols"]["brightness"], "eval": found.row()["protocols"]["brightness"]})
    raw = evaluate_run(run, registry, averaged=False)
    assert raw.scores["brightness"].protocol["ema"] is False
    assert raw.metrics != found.metrics
    half = evaluate_run(run, registry, truncation=0.5)
    assert half.scores["brightness"].protocol["truncation"] == 0.5


def test_what_was_measured_later_is_kept_beside_the_run(run: Path, registry) -> None:
    folder = RunFolder(run)
    found = evaluate_run(run, registry, step=2)
    folder.append_evaluation(found.row())
    with open(folder.evaluations, "a") as file:
        file.write('{"step": 3, "metr')  # a line that a kill cut short
    assert [row["step"] for row in folder.read_evaluations()] == [0, 2, 2, 3]
    folder.evaluations.unlink()


def test_a_line_after_one_that_was_cut_short_is_not_lost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    row = {"step": 3, "metrics": {"x": 1.0}, "protocols": {"x": {"better": ""}}}
    folder.evaluations.write_text('{"step": 2, "metr')
    for other in ({"metrics": {}, "protocols": {}}, {**row, "step": None}, {**row, "protocols": 1}):
        folder.append_evaluation(other)  # edited by hand: none is an evaluation
    folder.append_evaluation(row)
    assert folder.read_evaluations() == [row]
    assert len(folder.evaluations.read_text().splitlines()) == 5


def test_pictures_of_later_evaluations_have_names_of_their_own(tmp_path: Path, run: Path, registry) -> None:
    folder, found = RunFolder(tmp_path), evaluate_run(run, registry, step=2)
    files = [
        keep_evaluation(folder, found, later=later)["pictures"]["bright"]["file"] for later in (False, True, True)
    ]
    stems = ("bright-00000002", "bright-00000002-1", "bright-00000002-2")
    assert files == [f"pictures/{stem}.png" for stem in stems]
    assert all((tmp_path / file).stat().st_size for file in files)


def test_damaged_checkpoints_that_were_passed_over_are_said(tmp_path: Path, run: Path, registry) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    newest = max((copy / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    found = evaluate_run(copy, registry)
    assert found.step == 2
    assert any("damaged checkpoint" in note and "cut short" in note for note in found.notes)


def test_classes_of_another_reference_must_be_those_of_the_generator(tmp_path: Path, registry) -> None:
    def classes(name: str, *names: str) -> str:
        for index, part in enumerate(names):
            write_images(tmp_path / name / part, 12 + index)
        return str(tmp_path / name)

    given = {
        "data.source": classes("two", "cat", "dog"),
        "data.conditional": True,
        "data.fraction": 1.0,
        "train.steps": 1,
        "train.batch": 4,
    }
    gancore.train(tiny_config([], given), outdir=tmp_path / "run", registry=registry)
    assert evaluate_run(tmp_path / "run", registry, data=classes("others", "cat", "dog")).metrics
    with pytest.raises(
        DataError, match="makes the classes cat, dog, and the reference 'three' has cat, cow, dog"
    ):
        evaluate_run(tmp_path / "run", registry, data=classes("three", "cat", "cow", "dog"))


def test_a_run_without_an_average_says_so(tmp_path: Path, registry) -> None:
    given = {"ema.half_life_kimg": 0.0, "train.steps": 1}
    gancore.train(tiny_config([], given), outdir=tmp_path / "run", registry=registry)
    found = evaluate_run(tmp_path / "run", registry)
    assert found.scores["brightness"].protocol["ema"] is False
    assert "averages nothing" in found.notes[0]


def test_options_of_an_observer_may_change_on_resume_and_it_may_be_dropped(run: Path, registry) -> None:
    again = resume(run, overrides={"train.steps": 4, "methods.brightness.weight": 2.0}, registry=registry)
    assert again.step == 4
    resume(run, overrides={"train.steps": 5, "output.evaluate_every": 0}, drop_plugins=("brightness",))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"step": 7}, CheckpointError, "has no checkpoint of step 7; saved: 0, 2, 3"),
        ({"plugins": ["r1"]}, PluginError, "'r1' is a training method, and measures nothing"),
        ({"plugins": ["brightnes"]}, PluginError, "did you mean 'brightness'"),
        ({"overrides": {"train.steps": 3}}, ConfigError, "'train' is not asked here; options of: brightness"),
        ({"data": "gaussians"}, DataError, "the run generates 1x16x16, and the reference 'gaussians' is 2"),
        ({"held_out": "gaussians"}, DataError, "the held-out set 'gaussians' has shape"),
        ({"truncation": float("nan")}, ConfigError, "truncation nan"),
    ],
)
def test_what_cannot_be_measured(run: Path, registry, arguments, error, match) -> None:
    with pytest.raises(error, match=match):
        evaluate_run(run, registry, **arguments)


def test_no_observer_installed(run: Path) -> None:
    registry = registry_with()
    for name in [name for name in registry.methods if registry.methods[name].observer]:
        del registry.methods[name]
    with pytest.raises(PluginError, match="no installed plugin measures anything"):
        evaluate_run(run, registry)


def test_an_observer_has_no_other_hook(tmp_path: Path) -> None:
    import dataclasses

    spec = dataclasses.replace(broken("evaluate", lambda method, samples: None), observer=True)
    with pytest.raises(PluginError, match="'broken' is an observer, and has the hook 'declare'"):
        gancore.train(tiny_config(["broken"], {}), outdir=tmp_path / "run", registry=registry_with(spec))


def test_an_exception_of_a_hook_is_attributed(tmp_path: Path) -> None:
    def fails(method, samples):
        raise ValueError("no such thing")

    session = tiny_session(["broken"], {}, registry_with(broken("evaluate", fails)))
    with pytest.raises(PluginError, match=r"plugin 'broken' raised in hook 'evaluate' \(step 0\): ValueError"):
        evaluate(session)


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda samples: samples.show("../up", Image.new("L", (4, 4)), "x"), "name '../up'; expected letters"),
        (lambda samples: samples.show("a b", Image.new("L", (4, 4)), "x"), "name 'a b'; expected letters"),
        (lambda samples: samples.show("a", np.zeros((4, 4)), "x"), "ndarray and str; expected a picture"),
        (lambda samples: samples.show("a", Image.new("L", (4, 4)), 3), "Image and int; expected a picture"),
        (lambda samples: samples.note(3), "samples.note: int; expected a text"),
    ],
)
def test_what_a_hook_shows_can_be_kept(use, what: str) -> None:
    session = tiny_session(
        ["broken"], {}, registry_with(broken("evaluate", lambda method, samples: use(samples)))
    )
    with pytest.raises(PluginError, match=f"plugin 'broken' raised in hook 'evaluate'.*{what}"):
        evaluate(session)


@pytest.mark.parametrize("mode", ["F", "CMYK", "I", "P", "1", "LA"])
def test_pictures_of_every_mode_are_kept(tmp_path: Path, mode: str) -> None:
    def shows(method, samples):
        samples.show("any", Image.new(mode, (4, 4)), "A square.")

    found = evaluate(tiny_session(["broken"], {}, registry_with(broken("evaluate", shows))))
    row = keep_evaluation(RunFolder(tmp_path), found)
    with Image.open(tmp_path / row["pictures"]["any"]["file"]) as kept:
        assert kept.size == (4, 4)


def test_training_is_saved_before_a_failed_measurement_ends_it(tmp_path: Path) -> None:
    faults: list[int] = []

    def flaky(method, samples):
        if samples.step in faults:
            raise ValueError("no such thing")
        return {"mean": float(samples.generate(4, 0).mean())}

    registry = registry_with(broken("evaluate", flaky))
    given = {"output.evaluate_every": 3, "output.snap": 5, "train.steps": 5, "output.log_every": 1}
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    gancore.train(tiny_config(["broken"], given), outdir=unbroken, registry=registry)
    faults.append(3)
    with pytest.raises(PluginError, match=r"no such thing. Saved at step 3; once it is mended: gan resume"):
        gancore.train(tiny_config(["broken"], given), outdir=stopped, registry=registry)
    faults.clear()
    resume(stopped, registry=registry)
    rows, again = (
        [{**row, "images_per_second": 0} for row in RunFolder(path).read_metrics()]
        for path in (unbroken, stopped)
    )
    assert rows == again
    assert [row["step"] for row in rows if "metrics" in row] == [0, 3, 5]


def test_a_best_that_is_never_measured_is_found_before_training(tmp_path: Path, registry) -> None:
    given = {"output.evaluate_every": 2, "output.keep_best": "brightnes"}
    with pytest.raises(
        ConfigError, match="'brightnes' is not measured.*did you mean 'brightness'.*measured are: "
    ):
        gancore.train(tiny_config(["brightness"], given), outdir=tmp_path / "run", registry=registry)


# Folders of images.


def write_images(folder: Path, count: int, size: tuple[int, int] = (16, 16), colour: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(count)
    for index in range(count):
        shape = (size[1], size[0], 3) if colour else (size[1], size[0])
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{index:03d}.png")
    return folder


def test_a_folder_is_measured_against_a_set_at_its_own_size(tmp_path: Path, registry) -> None:
    folder = write_images(tmp_path / "made", 10)
    found = evaluate_folder(str(folder), registry, DataOptions(source="digits"))
    protocol = found.scores["brightness"].protocol
    assert protocol["samples"] == 10
    assert protocol["ema"] is None
    assert protocol["data_shape"] == "1x16x16"
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    assert found.metrics["brightness"] == pytest.approx(float((pixels / 127.5 - 1).mean()), rel=1e-5)
    json.dumps(found.row())


def test_grey_samples_are_compared_in_colour(tmp_path: Path) -> None:
    images = open_generated(str(write_images(tmp_path / "made", 4)))
    reference = gancore.data.open_dataset(
        DataOptions(source=str(write_images(tmp_path / "real", 4, colour=True)), image_size=16)
    )
    parts = torch.cat(list(images.source(reference)(4, 0, 3)))
    assert parts.shape == (4, 3, 16, 16)
    few = torch.cat(list(images.source(reference)(2, 1, 3)))
    assert len(few) == 2
    assert torch.equal(few, torch.cat(list(images.source(reference)(2, 1, 1))))
    with pytest.raises(DataError, match="5 samples asked for, and 'made' holds 4 images"):
        list(images.source(reference)(5, 0, 3))


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (lambda path: write_images(path, 0), {}, "no image in made"),
        (lambda path: write_images(path, 3, (20, 20)), {}, "are 20x20; expected squares whose side is a power"),
        (lambda path: write_images(path, 3, (32, 16)), {}, "are 32x16; expected squares"),
        (
            lambda path: write_images(write_images(path, 3).joinpath("x"), 2, (32, 32)).parent,
            {},
            r"several sizes: 16x16 \(3\), 32x32 \(2\)",
        ),
        (
            lambda path: write_images(path, 3),
            {"image_size": 32},
            "are 16x16, and the reference was asked for at 32",
        ),
        (lambda path: write_images(path, 3, colour=True), {}, "have colour, and the reference 'digits' is grey"),
        (lambda path: write_images(path, 3), {"source": "gaussians"}, "holds 2-D points|2-D"),
    ],
    ids=["empty", "odd", "oblong", "mixed", "other-size", "colour", "points"],
)
def test_folders_that_cannot_be_compared(tmp_path: Path, registry, make, options, match) -> None:
    with pytest.raises((DataError, ConfigError), match=match):
        evaluate_folder(str(make(tmp_path / "made")), registry, DataOptions(**{"source": "digits", **options}))
