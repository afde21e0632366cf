"""The linear probe against Newton's method, and at its edges."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from gancore.api import DataError
from gancore_fidelity.probe import linear_probe


def rows(count: int, classes: int, *, seed: int, width: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Overlapping classes around centres, features of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    labels = torch.arange(count) % classes
    features = centres[labels] + torch.randn(count, width, generator=generator, dtype=torch.float64)
    return scale * features * torch.logspace(0, 1, width) + 3, labels


def newton(features: np.ndarray, labels: np.ndarray, c: float) -> np.ndarray:
    """W and b, (classes, D + 1), from the objective's gradient and Hessian; one row for two classes."""
    count, classes = len(features), labels.max() + 1
    inputs = np.concatenate((features, np.ones((count, 1))), 1)
    width = inputs.shape[1]
    free = 1 if classes == 2 else classes
    penalty = np.tile(np.r_[np.ones(width - 1), 0.0], free)
    weights = np.zeros(free * width)
    for _ in range(60):
        scores = inputs @ weights.reshape(free, width).T
        if classes == 2:
            scores = np.concatenate((np.zeros((count, 1)), scores), 1)
        powers = np.exp(scores - scores.max(1, keepdims=True))
        given = powers / powers.sum(1, keepdims=True)
        wrong = given - np.eye(classes)[labels]
        kept = range(classes - free, classes)
        gradient = penalty * weights + c * np.concatenate([wrong[:, k] @ inputs for k in kept])
        hessian = np.diag(penalty)
        for p, k in enumerate(kept):
            for q, m in enumerate(kept):
                curvature = given[:, k] * ((k == m) - given[:, m])
                hessian[p * width : (p + 1) * width, q * width : (q + 1) * width] += (
                    c * (inputs.T * curvature) @ inputs
                )
        # All biases may move together without changing anything: the least step of those.
        weights = weights - np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
    assert np.abs(gradient).max() < 1e-8
    out = weights.reshape(free, width)
    return np.concatenate((np.zeros((1, width)), out)) if classes == 2 else out


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [1.0, 0.01])
@pytest.mark.parametrize("standardise", [True, False])
def test_the_probe_equals_newtons_method(classes: int, c: float, standardise: bool) -> None:
    (training, labels), (test, expected) = rows(90, classes, seed=1), rows(60, classes, seed=2)
    found = linear_probe(training, labels, test, expected, c=c, standardise=standardise)
    inputs, others = training.numpy(), test.numpy()
    if standardise:
        mean, std = inputs.mean(0), inputs.std(0)
        inputs, others = (inputs - mean) / std, (others - mean) / std
    weights = newton(inputs, labels.numpy(), c)

    def logs(values: np.ndarray) -> np.ndarray:
        scores = values @ weights[:, :-1].T + weights[:, -1]
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    answers = logs(others)
    assert found.accuracy == (answers.argmax(1) == expected.numpy()).mean()
    assert found.training_accuracy == (logs(inputs).argmax(1) == labels.numpy()).mean()
    assert found.loss == pytest.approx(-answers[np.arange(60), expected.numpy()].mean(), rel=1e-4)
    assert found.note == ""
    assert found.accuracy > found.chance == pytest.approx(1 / classes)


def test_standardised_features_may_have_any_scale() -> None:
    (training, labels), (test, expected) = rows(90, 3, seed=1), rows(60, 3, seed=2)
    found = linear_probe(training, labels, test, expected)
    sums = linear_probe(1e4 * training, labels, 1e4 * test, expected)
    assert (found.accuracy, found.training_accuracy) == (sums.accuracy, sums.training_accuracy)
    assert found.loss == pytest.approx(sums.loss, rel=1e-6)


def test_a_constant_feature_changes_nothing() -> None:
    (training, labels), (test, expected) = rows(90, 3, seed=1), rows(60, 3, seed=2)
    constant = [torch.cat((part, torch.full((len(part), 1), 7.0)), 1) for part in (training, test)]
    found = linear_probe(constant[0], labels, constant[1], expected)
    without = linear_probe(training, labels, test, expected)
    assert found.loss == pytest.approx(without.loss, rel=1e-5)


def test_a_probe_that_was_stopped_says_so_and_warns_of_nothing_else() -> None:
    """The evaluation of AugSelf's authors: sums of features, not standardised, 100 iterations."""
    (training, labels), (test, expected) = (
        rows(300, 3, seed=1, width=40, scale=1e3),
        rows(60, 3, seed=2, width=40),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear_probe(training, labels, test, expected, standardise=False, most_iterations=20)
    assert found.iterations == 20
    assert "not converged in 20 iterations" in found.note


def test_the_answer_that_never_changes_is_the_chance() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(200, 3, generator=generator)
    labels = torch.tensor([4] * 150 + [9] * 50)[torch.randperm(200, generator=generator)]
    found = linear_probe(noise[:120], labels[:120], noise[120:], labels[120:], c=1e-6)
    share = float((labels[120:] == 4).double().mean())
    assert found.chance == found.accuracy == share


def test_rows_that_cannot_be_probed_are_refused() -> None:
    training, labels = rows(30, 3, seed=1)
    one = torch.zeros(30, dtype=torch.int64)
    with pytest.raises(DataError, match="30 training rows of 1 classes; expected two"):
        linear_probe(training, one, training, one)
    with pytest.raises(DataError, match="no test rows"):
        linear_probe(training, labels, training[:0], labels[:0])
    with pytest.raises(DataError, match="tested on class 3 and not trained on it"):
        linear_probe(training, labels, training, labels + 3)
    with pytest.raises(ValueError, match=r"test rows are \(29,\)"):
        linear_probe(training, labels, training, labels[1:])
    with pytest.raises(ValueError, match="float"):
        linear_probe(training, labels.float(), training, labels)
    with pytest.raises(ValueError, match="C = 0"):
        linear_probe(training, labels, training, labels, c=0)
    training[3, 1] = math.nan
    with pytest.raises(DataError, match="training rows: 1 of 30 rows hold NaN"):
        linear_probe(training, labels, training, labels)
