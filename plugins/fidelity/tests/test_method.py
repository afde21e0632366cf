"""The hook: what is measured of images, points and D, under which names and protocols, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancore.api import ConfigError, DataError, DivergedError, Samples, Score
from gancore.data import DataOptions, open_dataset
from gancore.metrics import gather
from gancore.options import resolve_options
from gancore_fidelity import SPEC, frechet, memorisation
from gancore_fidelity.classifier import Trained
from gancore_fidelity.kernel_distance import squared_discrepancy
from gancore_fidelity.method import Fidelity
from gancore_fidelity.options import IMAGE_METRICS, FidelityOptions


def method(cache: Path, /, **given: Any) -> Fidelity:
    options, _ = resolve_options(FidelityOptions, {"cache": str(cache), **given}, where="fidelity.")
    return Fidelity(SPEC, options)


def measured(cache: Path, samples: Samples, /, **given: Any) -> dict[str, Score]:
    scores = method(cache, **given).evaluate(samples=samples)
    return gather({"fidelity": scores}, {"data_digest": samples.dataset.digest})


@pytest.fixture(scope="module")
def data(bars: SimpleNamespace) -> Any:
    return bars.dataset(600)


@pytest.fixture
def fresh(bars: SimpleNamespace, data: Any) -> Samples:
    """300 images of the same kind as the data."""
    return bars.samples(bars.pictures(300, 1)[0], data)


FEATURE_SCORES = {
    f"{name}_classifier"
    for name in ("fid", "kid", "is", "precision", "recall", "density", "coverage", "authenticity")
}


def test_auto_measures_all_that_the_classifier_gives(cache: Path, fresh: Samples) -> None:
    scores = measured(cache, fresh)
    assert set(scores) == FEATURE_SCORES
    better = {name: score.better for name, score in scores.items()}
    assert [name for name in better if better[name] == "lower"] == ["fid_classifier", "kid_classifier"]
    assert scores["precision_classifier"].value > 0.8
    assert 0.3 < scores["authenticity_classifier"].value < 0.7
    assert 2 < scores["is_classifier"].value <= 3
    assert fresh.notes == []


def test_every_score_carries_its_protocol(cache: Path, fresh: Samples) -> None:
    scores = measured(cache, fresh, seed=3, kid_subset_size=100, kid_subsets=7, splits=5, references=500)
    for name, score in scores.items():
        protocol = score.protocol
        assert protocol["samples"] == 300
        assert protocol["seed"] == 3
        assert protocol["backbone"] == "classifier"
        assert len(str(protocol["backbone_sha256"])) == 64
        assert protocol["backbone_input"] == 16
        assert protocol["backbone_precision"] == "float32"
        assert "antialiased" in str(protocol["backbone_resize"])
        assert protocol["data_digest"] == fresh.dataset.digest
        assert protocol.get("references") == (None if name.startswith("is_") else 500)
    assert scores["kid_classifier"].protocol["subsets"] == 7
    assert scores["kid_classifier"].protocol["subset_size"] == 100
    assert scores["is_classifier"].protocol["splits"] == 5
    assert scores["precision_classifier"].protocol["k"] == 3
    assert scores["coverage_classifier"].protocol["k"] == 5


def test_the_values_are_those_of_the_features(cache: Path, fresh: Samples, data: Any) -> None:
    subject = method(cache, kid_subset_size=300, kid_subsets=1, references=300)
    scores = subject.evaluate(samples=fresh)
    ((backbone, _),) = subject._backbones.values()
    assert backbone is not None
    ((compared, _),) = subject._compared.values()
    rows = compared.reference.indices
    real = backbone.features(torch.from_numpy(data.read(rows))).vectors
    images = torch.cat(list(fresh.batches(300, 0)))
    made = backbone.features(((images + 1) * 127.5).round().to(torch.uint8)).vectors
    fid = frechet.frechet_distance(frechet.statistics(made), frechet.statistics(real))
    assert scores["fid_classifier"].value == pytest.approx(fid, rel=1e-6)
    assert scores["kid_classifier"].value == pytest.approx(squared_discrepancy(made, real), abs=1e-5)
    copies = memorisation.authenticity(memorisation.nearest(made, real), memorisation.nearest_other(real))
    assert scores["authenticity_classifier"].value == pytest.approx(copies, abs=0.01)


def test_the_batch_changes_nothing_but_roundings(cache: Path, bars: SimpleNamespace, data: Any) -> None:
    images = bars.pictures(150, 1)[0]
    first = measured(cache, bars.samples(images, data), batch=64, references=200)
    second = measured(cache, bars.samples(images, data), batch=7, references=200)
    for name, score in first.items():
        assert score.value == pytest.approx(second[name].value, rel=1e-4, abs=1e-5), name
        assert score.protocol == second[name].protocol


def test_long_work_says_how_far_it_is(bars: SimpleNamespace, data: Any, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def watch(what: str, done: int, total: int, noun: str) -> None:
        seen.setdefault(f"{what}, {noun}", []).append((done, total))

    samples = dataclasses.replace(bars.samples(bars.pictures(100, 1)[0], data), progress=watch)
    measured(tmp_path, samples, samples=100, metrics="fid", memorisation=False)
    steps = seen.pop("training the classifier, steps")
    assert steps == [(step + 1, len(steps)) for step in range(len(steps))]
    assert seen == {
        "features of the reference, images": [(64, 100), (100, 100)],
        "features of the samples, images": [(64, 100), (100, 100)],
    }


def test_worse_samples_have_worse_scores(cache: Path, bars: SimpleNamespace, data: Any) -> None:
    images, labels = bars.pictures(300, 1)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, images.shape).astype(np.uint8)
    good, bad = (measured(cache, bars.samples(each, data)) for each in (images, noise))
    one_class = measured(cache, bars.samples(images[labels == 0], data))
    assert bad["fid_classifier"].value > 10 * good["fid_classifier"].value
    assert bad["kid_classifier"].value > 10 * good["kid_classifier"].value
    assert bad["precision_classifier"].value < 0.1
    assert one_class["recall_classifier"].value < 0.6 * good["recall_classifier"].value
    assert one_class["coverage_classifier"].value < 0.6 * good["coverage_classifier"].value
    assert one_class["precision_classifier"].value > 0.8


def test_copies_of_the_data_are_found_and_shown(cache: Path, bars: SimpleNamespace, data: Any) -> None:
    images = data.read(np.arange(100))
    samples = bars.samples(images, data)
    scores = measured(cache, samples)
    assert scores["authenticity_classifier"].value == 0
    picture, caption = samples.pictures["nearest"]
    assert isinstance(picture, Image.Image)
    assert "24 nearest pairs of 100 samples and 600 reference images" in caption
    samples = dataclasses.replace(bars.samples(images, data), trained_on=data.digest)
    measured(cache, samples)
    assert "600 training images" in samples.pictures["nearest"][1]
    pixels = np.asarray(picture.convert("L"))
    for left in (10, 10 + 2 * 64 + 10):
        assert np.array_equal(pixels[10:74, left + 1 : left + 64], pixels[10:74, left + 65 : left + 128])


def test_memorisation_and_metrics_can_be_left_out(cache: Path, fresh: Samples) -> None:
    scores = measured(cache, fresh, metrics="fid, coverage", memorisation=False)
    assert set(scores) == {"fid_classifier", "coverage_classifier"}
    assert fresh.pictures == {}


def test_classes_have_distances_of_their_own(cache: Path, bars: SimpleNamespace, data: Any) -> None:
    images, labels = bars.pictures(600, 1)
    order = np.concatenate([np.flatnonzero(labels == index)[:150] for index in range(3)]).reshape(3, 150)
    images = images[order.T.flatten()]  # classes in turn, as a generator gives them
    images[1::3] = np.random.Generator(np.random.PCG64(0)).integers(0, 256, images[1::3].shape)
    samples = bars.samples(images, data, num_classes=3)
    scores = measured(cache, samples, metrics="class_fid", memorisation=False)
    each = [scores[f"class_fid_classifier.class {index}"].value for index in range(3)]
    assert scores["class_fid_classifier"].value == pytest.approx(np.mean(each))
    assert scores["class_fid_worst_classifier"].value == each[1] == max(each)
    assert each[1] > 5 * each[0]
    assert any("rank" in note for note in samples.notes)


def test_fewer_samples_than_features_are_said_with_what_to_use(
    cache: Path, bars: SimpleNamespace, data: Any
) -> None:
    samples = bars.samples(bars.pictures(100, 1)[0], data)
    measured(cache, samples, metrics="fid", memorisation=False)
    (note,) = samples.notes
    assert "100 of the samples for 224 features" in note
    assert "kid" in note


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metrics": "fidd"}, "unknown metric 'fidd' .did you mean 'fid'"),
        ({"metrics": ""}, "metrics is empty"),
        ({"metrics": "auto,fid"}, "auto stands alone"),
        ({"metrics": "fid,reverse_kl"}, "'fid', which is of images, and 'reverse_kl', which is of points"),
        ({"kid_subset_size": 1}, "a kernel distance needs 2 rows"),
        ({"backbone": "vgg"}, "fidelity.backbone = 'vgg'"),
        ({"splits": 0}, "fidelity.splits = 0: expected a value >= 1"),
    ],
)
def test_options_that_cannot_be(cache: Path, given: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        method(cache, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metrics": "high_quality"}, "'high_quality', which is for points; the metrics of 'bars' are fid"),
        ({"kid_subset_size": 301}, "kid_subset_size = 301, but there are 300 samples and 600 references"),
        ({"metrics": "class_fid"}, "names 'class_fid', but the samples have no classes"),
        ({"metrics": "is", "splits": 301}, "names 'is', but 300 samples make no 301 splits"),
        ({"metrics": "recall", "k_precision": 300}, "300 neighbours need more than the 300 samples"),
    ],
)
def test_metrics_that_cannot_be_given_are_refused_before_any_feature(
    cache: Path, fresh: Samples, monkeypatch: pytest.MonkeyPatch, given: Mapping[str, Any], words: str
) -> None:
    monkeypatch.setattr("gancore_fidelity.method.extract", lambda *_: pytest.fail("extracted"))
    monkeypatch.setattr("gancore_fidelity.method.reference", lambda *_: pytest.fail("extracted"))
    with pytest.raises(ConfigError, match=words):
        measured(cache, fresh, **given)


def test_a_backbone_without_logits_has_no_inception_score(cache: Path, fresh: Samples) -> None:
    subject = method(cache, metrics="is")
    subject.evaluate(samples=fresh)
    ((backbone, _),) = subject._backbones.values()
    assert backbone is not None
    backbone.has_logits = False
    with pytest.raises(ConfigError, match="'is', but backbone classifier predicts no classes; use inception"):
        subject.evaluate(samples=fresh)


def test_few_images_give_what_they_can(cache: Path, bars: SimpleNamespace, data: Any) -> None:
    samples = bars.samples(bars.pictures(4, 1)[0], data)
    scores = measured(cache, samples)
    assert set(scores) == {f"{name}_classifier" for name in ("fid", "kid", "precision", "recall", "authenticity")}
    assert any(note.startswith("coverage is left out: 5 neighbours") for note in samples.notes)
    assert any(note.startswith("is is left out: 4 samples make no 10 splits") for note in samples.notes)


def test_counts_that_are_not_there_are_said(cache: Path, fresh: Samples) -> None:
    scores = measured(cache, fresh, samples=1000, references=900, metrics="fid")
    assert scores["fid_classifier"].protocol["samples"] == 300
    assert scores["fid_classifier"].protocol["references"] == 600
    assert "fidelity.samples = 1000, but there are 300 images: these are measured" in fresh.notes
    assert "fidelity.references = 900, but 'bars' has 600: all are taken" in fresh.notes


def test_the_reference_is_the_same_for_every_seed(cache: Path, fresh: Samples) -> None:
    subjects = [method(cache, references=50, seed=seed) for seed in (0, 1)]
    rows = []
    for subject in subjects:
        subject.evaluate(samples=fresh)
        ((compared, _),) = subject._compared.values()
        rows.append(compared.reference.indices)
    assert np.array_equal(*rows)


def test_without_features_images_are_compared_by_pixels(bars: SimpleNamespace, tmp_path: Path) -> None:
    data = bars.dataset(300, labelled=False)
    samples = bars.samples(np.concatenate([data.read(np.arange(50)), bars.pictures(50, 1)[0]]), data)
    scores = measured(tmp_path, samples)
    assert set(scores) == {"authenticity_pixels"}
    assert 0.1 < scores["authenticity_pixels"].value <= 0.5
    assert scores["authenticity_pixels"].protocol["pixel_side"] == 16
    assert "nearest" in samples.pictures
    assert "fid and its like are left out" in samples.notes[0]
    with pytest.raises(ConfigError, match="names 'kid', and nothing gives features to measure it: .*no labels"):
        measured(tmp_path, bars.samples(bars.pictures(50, 1)[0], data), metrics="kid")
    with pytest.raises(DataError, match="no labels"):
        measured(tmp_path, bars.samples(bars.pictures(50, 1)[0], data), backbone="classifier")


@pytest.mark.parametrize("features", [True, False])
def test_every_evaluation_of_a_session_says_the_same(
    bars: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: bool
) -> None:
    """A resumed run begins a session in the middle, and its rows are those of an unbroken one."""
    monkeypatch.setattr(Trained, "poor", True)
    data = bars.dataset(120, labelled=features)
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "cache", tmp_path / "file"):
        sessions = [method(cache), method(cache)]
        said = []
        for subject in (sessions[0], sessions[0], sessions[1]):
            samples = bars.samples(bars.pictures(60, 1)[0], data)
            subject.evaluate(samples=samples)
            said.append(samples.notes)
        assert said[0] == said[1] == said[2]
        assert any(("poorly apart" if features else "fid and its like are left out") in note for note in said[0])


@pytest.mark.parametrize("name", ["gaussians", "circles", "circles:concentric"])
def test_points_have_modes(tmp_path: Path, name: str) -> None:
    data = open_dataset(DataOptions(source=name, fraction=0.05))
    drawn = torch.from_numpy(data.read(np.arange(4000)))
    scores = measured(tmp_path, Samples(lambda count, seed, size: drawn[:count].split(size), data, limit=4000))
    of_rings = {"radial_error", "angular_coverage"} if "circles" in name else set()
    assert set(scores) == {"modes_covered", "high_quality", "reverse_kl", "authenticity", *of_rings}
    assert scores["modes_covered"].protocol["mode_share"] == 0.01
    modes = 3 if "concentric" in name else 9
    assert scores["modes_covered"].value == modes == scores["modes_covered"].protocol["modes"]
    assert scores["high_quality"].value > 0.98
    assert scores["reverse_kl"].value < 0.01
    assert scores["authenticity"].value == 0  # they are the data
    with pytest.raises(ConfigError, match="'fid', which is for images; the metrics of .* are modes_covered"):
        measured(tmp_path, Samples(lambda *_: iter(()), data, limit=4000), metrics="fid")


def test_scores_of_rings_are_refused_of_gaussians(tmp_path: Path) -> None:
    data = open_dataset(DataOptions(source="gaussians", fraction=0.05))
    drawn = torch.from_numpy(data.read(np.arange(100)))
    samples = Samples(lambda count, seed, size: drawn[:count].split(size), data, limit=100)
    with pytest.raises(ConfigError, match="names 'radial_error', which is of rings, and 'gaussians' has none"):
        measured(tmp_path, samples, metrics="radial_error")


def test_few_references_leave_the_divergence_out(tmp_path: Path) -> None:
    """Else a run would stop at the evaluation that finds a new mode."""
    data = open_dataset(DataOptions(source="gaussians", fraction=0.05))
    drawn = torch.from_numpy(data.read(np.arange(100)))
    samples = Samples(lambda count, seed, size: drawn[:count].split(size), data, limit=100)
    assert set(measured(tmp_path, samples, references=5)) == {"modes_covered", "high_quality", "authenticity"}
    assert any("reverse_kl is left out: 5 references have none at " in note for note in samples.notes)
    with pytest.raises(ConfigError, match="names 'reverse_kl', but 5 references have none at"):
        measured(tmp_path, samples, references=5, metrics="reverse_kl")
    assert set(measured(tmp_path, samples, references=5, metrics="high_quality")) == {
        "high_quality",
        "authenticity",
    }


def test_other_points_say_what_is_missing(tmp_path: Path, bars: SimpleNamespace) -> None:
    from gancore.data.dataset import MemoryDataset

    data = MemoryDataset(np.zeros((50, 2), dtype=np.float32), name="mine")
    with pytest.raises(ConfigError, match="mine: .*need the modes"):
        measured(tmp_path, Samples(lambda count, *_: iter([torch.zeros(count, 2)]), data, limit=50))


def test_samples_that_are_not_finite_are_a_divergence(cache: Path, data: Any) -> None:
    broken = Samples(lambda count, *_: iter([torch.full((count, 1, 16, 16), torch.nan)]), data, limit=20)
    with pytest.raises(DivergedError, match="the generated images hold values that are not finite"):
        measured(cache, broken)


def test_nothing_of_torch_s_state_is_left_changed(cache: Path, fresh: Samples) -> None:
    def state() -> tuple[object, ...]:
        cudnn = torch.backends.cudnn
        return (
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic),
            torch.is_grad_enabled(),
        )

    before = state()
    measured(cache, fresh)
    assert state() == before


def test_all_metrics_of_images_can_be_named() -> None:
    options, _ = resolve_options(FidelityOptions, {"metrics": ",".join(IMAGE_METRICS)}, where="fidelity.")
    assert options.words == IMAGE_METRICS
