"""What the hook says of the trained discriminator: the probe of its features, its gap on held-out data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gancore.api import ConfigError, DivergedError, Samples
from gancore.data import DataOptions, open_dataset
from gancore.options import resolve_options
from gancore.testing import run_steps, tiny_session
from gancore_fidelity import SPEC
from gancore_fidelity.method import Fidelity
from gancore_fidelity.options import FidelityOptions


def method(cache: Path, /, **given: Any) -> Fidelity:
    options, _ = resolve_options(FidelityOptions, {"cache": str(cache), **given}, where="fidelity.")
    return Fidelity(SPEC, options)


@pytest.fixture(scope="module")
def trained() -> Any:
    return run_steps(tiny_session([], {"data.conditional": True}), 2)


def of_session(session: Any, **more: Any) -> Samples:
    def source(count: int, seed: int, size: int) -> Any:
        labels = torch.arange(count) % 10
        latents = torch.randn(count, session.trainer.ema.model.latent_dim, generator=torch.Generator())
        with torch.no_grad():
            yield from session.trainer.ema.model(latents, labels).split(size)

    d = session.trainer.discriminator.eval()
    return Samples(source, session.dataset, num_classes=10, discriminator=d, limit=60, **more)


def only_d(cache: Path, **given: Any) -> Fidelity:
    return method(cache, metrics="fid", references=60, probe_images=80, **given)


def test_the_probe_reads_what_d_knows_of_the_classes(trained: Any, cache: Path) -> None:
    scores = only_d(cache).evaluate(samples=of_session(trained))
    found = scores["probe_accuracy"]
    assert 0.3 < found.value <= 1
    assert found.protocol["test_set"] == "other training images"
    assert found.protocol["train_images"] == found.protocol["test_images"] == 80
    assert found.protocol["tap"] == "pooled"
    assert "d_gap" not in scores
    assert "probe_accuracy" not in only_d(cache, probe=False).evaluate(samples=of_session(trained))
    with pytest.raises(ConfigError, match="probe_tap = 'poled' .did you mean 'pooled'"):
        only_d(cache, probe_tap="poled").evaluate(samples=of_session(trained))


def test_the_gap_is_that_of_d_s_logits(trained: Any, cache: Path) -> None:
    other = open_dataset(DataOptions(conditional=True, fraction=0.2))
    samples = of_session(trained, open_held_out=lambda: other)
    scores = only_d(cache).evaluate(samples=samples)
    means = []
    for each in (trained.dataset, other):
        images = torch.from_numpy(each.read(np.arange(len(each)))).float() / 127.5 - 1
        with torch.no_grad():
            d = trained.trainer.discriminator
            logits = torch.cat(
                [
                    d(part, labels)
                    for part, labels in zip(
                        images.split(50), torch.from_numpy(each.labels).split(50), strict=True
                    )
                ]
            )
        means.append(float(logits.double().mean()))
    assert scores["d_gap"].value == pytest.approx(means[0] - means[1], abs=1e-5)
    assert 0 <= scores["d_gap_auc"].value <= 1
    assert scores["d_gap"].protocol["held_out_digest"] == other.digest
    assert scores["probe_accuracy"].protocol["test_set"] == "held out"
    assert scores["probe_accuracy"].protocol["test_digest"] == other.digest


def test_another_reference_than_the_training_set_has_no_gap(trained: Any, cache: Path) -> None:
    other = open_dataset(DataOptions(conditional=True, fraction=0.2))
    samples = of_session(trained, open_held_out=lambda: other, trained_on="0" * 64)
    scores = only_d(cache).evaluate(samples=samples)
    assert "d_gap" not in scores
    assert any("D was not trained on the reference" in note for note in samples.notes)


def test_held_out_data_without_labels_leaves_the_gap_of_a_conditional_d_out(trained: Any, cache: Path) -> None:
    samples = of_session(trained, open_held_out=lambda: open_dataset(DataOptions(fraction=0.2)))
    assert "d_gap" not in only_d(cache, probe=False).evaluate(samples=samples)
    assert any("its gap is left out" in note for note in samples.notes)


def test_a_d_that_diverged_is_told(trained: Any, cache: Path) -> None:
    samples = of_session(trained)
    assert samples.discriminator is not None
    weight = next(samples.discriminator.parameters())
    kept = weight.detach().clone()
    try:
        weight.data.fill_(torch.nan)
        with pytest.raises(DivergedError, match="outputs of the discriminator are not finite"):
            only_d(cache).evaluate(samples=samples)
    finally:
        weight.data.copy_(kept)
