"""The Inception score.

Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, "Improved Techniques for Training GANs", 2016,
arXiv:1606.03498, section 4, with the classes' probabilities p(y|x) of a classifier and p(y) their mean over a
split:

    IS = exp(mean_x KL(p(y|x) || p(y)))

Between 1 and the number of classes. It looks at generated samples alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gancore.api import ConfigError
from gancore_fidelity.checks import check_features


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation over the splits."""

    mean: float
    std: float


def inception_score(logits: Tensor, splits: int = 10, order: Tensor | None = None) -> InceptionScore:
    """IS of logits (N, classes), in float64.

    Args:
        splits: equal parts, up to one row; each has a score. Fewer rows in a part lower it.
        order: int64 (N,), a permutation: rows are split in this order. By default as they are. Rows in order of
            class need one, or a split holds few of the classes.

    Raises:
        ValueError: shapes that do not fit. ConfigError: more splits than samples, or none.
        DataError: logits that are not finite.
    """
    check_features(logits, "the generated samples (logits)")
    count = len(logits)
    if not 1 <= splits <= count:
        raise ConfigError(
            f"Inception score with {splits} splits of {count} samples; expected 1 to {count}. Use fewer splits, "
            "or more samples"
        )
    if order is not None:
        if order.shape != (count,) or not torch.equal(order.sort().values, torch.arange(count)):
            raise ValueError(f"order is {tuple(order.shape)}; expected a permutation of the {count} rows")
        logits = logits[order]
    scores = []
    for index in range(splits):
        conditional = logits[index * count // splits : (index + 1) * count // splits].double().log_softmax(1)
        # The mean in logarithms: a class that no sample may be of has probability 0 and adds 0, not NaN.
        marginal = conditional.logsumexp(0) - math.log(len(conditional))
        divergences = (conditional.exp() * (conditional - marginal)).sum(1)
        scores.append(divergences.mean().exp())
    found = torch.stack(scores)
    return InceptionScore(float(found.mean()), float(found.std(correction=0)))
