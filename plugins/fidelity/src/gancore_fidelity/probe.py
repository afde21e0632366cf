"""What a linear classifier reads from the features of D: logistic regression, run until it has converged.

Hou et al., "Augmentation-Aware Self-Supervision for Data-Efficient GAN Training", NeurIPS 2023, arXiv:2205.15677,
evaluate D by the accuracy of a logistic regression on its frozen features. For rows x_i of class y_i, with the
biases b free of the penalty,

    min over W, b of    1/2 ||W||^2 + C sum_i -log softmax(W x_i + b)[y_i]

for two classes with one row of W, as scikit-learn does.

Deviation: features are standardised by the mean and standard deviation of the training rows, and the iteration
runs to convergence. The authors' code does neither, and stops after 100 iterations at what depends on the solver;
that is ``standardise=False, most_iterations=100``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gancore.api import DataError
from gancore_fidelity.checks import check_pair

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Probe:
    """A probe that was fitted and tested.

    Attributes:
        accuracy: share of the test rows whose class is the most probable, in [0, 1].
        loss: mean of -log p(y) over the test rows, in nats.
        training_accuracy: the same share of the training rows.
        chance: share of the test rows that are of the class most frequent in training: what a constant answer
        has.
        iterations: that the solver took.
        note: that it has not converged, or "".
    """

    accuracy: float
    loss: float
    training_accuracy: float
    chance: float
    iterations: int
    note: str


def linear_probe(
    training: Tensor,
    training_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    c: float = 1.0,
    standardise: bool = True,
    most_iterations: int = 5000,
) -> Probe:
    """Fit on the training rows, (N, D) with int64 (N,), and test on others, (M, D) with (M,).

    Args:
        c: C, above 0; a smaller one keeps W smaller. The penalty is over the sum, so its share falls with N.
        standardise: mean 0 and standard deviation 1 of each feature over the training rows; a constant one gives
        0.
        most_iterations: after which the solver stops; ``note`` says when it was not done.

    Raises:
        ValueError: shapes or numbers that do not fit.
        DataError: no test rows, one class alone, a test row of a class without training rows, features that are
            not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    check_pair(training, test, "the probe's training rows", "the probe's test rows")
    classes = _check_labels(training, training_labels, test, test_labels)
    if not c > 0 or most_iterations < 1:
        raise ValueError(f"C = {c}, {most_iterations} iterations; expected a C above 0 and one iteration or more")
    rows, others = training.double().numpy(), test.double().numpy()
    if standardise:
        scaler = StandardScaler().fit(rows)
        rows, others = scaler.transform(rows), scaler.transform(others)
    answers = training_labels.numpy()
    model = LogisticRegression(C=c, tol=_TOLERANCE, max_iter=most_iterations)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(rows, answers)
    iterations = int(model.n_iter_.max())
    note = ""
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        note = (
            f"the linear probe has not converged in {iterations} iterations (at most {most_iterations}): its "
            "accuracy depends on the solver; allow more, or standardise the features"
        )
    expected = test_labels.numpy()
    logs = model.predict_log_proba(others)
    of_truth = logs[np.arange(len(expected)), np.searchsorted(classes, expected)]
    frequent = classes[np.argmax(np.bincount(answers)[classes])]
    return Probe(
        accuracy=float((classes[logs.argmax(1)] == expected).mean()),
        loss=float(-of_truth.mean()),
        training_accuracy=float((model.predict(rows) == answers).mean()),
        chance=float((expected == frequent).mean()),
        iterations=iterations,
        note=note,
    )


def _check_labels(training: Tensor, training_labels: Tensor, test: Tensor, test_labels: Tensor) -> np.ndarray:
    """The classes of the training rows, ascending."""
    for what, rows, labels in (("training", training, training_labels), ("test", test, test_labels)):
        if labels.shape != (len(rows),) or labels.dtype != torch.int64 or (len(labels) and labels.min() < 0):
            raise ValueError(
                f"labels of the probe's {what} rows are {tuple(labels.shape)} {labels.dtype}; expected int64 "
                f"({len(rows)},), from 0"
            )
    classes = np.unique(training_labels.numpy())
    if len(classes) < 2:
        raise DataError(
            f"the linear probe has {len(training)} training rows of {len(classes)} classes; expected two classes "
            "or more. Use more rows, or data with classes"
        )
    if not len(test):
        raise DataError("the linear probe has no test rows; expected at least one that it was not trained on")
    missing = np.setdiff1d(test_labels.numpy(), classes)
    if len(missing):
        raise DataError(
            f"the linear probe is tested on class {missing[0]} and not trained on it; expected training rows of "
            "every class. Use more rows"
        )
    return classes
