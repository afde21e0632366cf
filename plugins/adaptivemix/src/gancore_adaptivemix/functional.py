"""AdaptiveMix as pure functions; every random draw is an argument.

Symbols: x images, F the feature extractor (D up to a tap), v = F(x), lambda the mixing weight, pi a
permutation of the batch. B is the batch.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from . import fused

Distance = Literal["l1", "l2", "mse", "cosine"]
Reduction = Literal["mean", "sum"]


def mix(values: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """lambda * v_i + (1 - lambda) * v_pi(i), for images and for features alike.

    Args:
        values: (B, …). permutation: (B,) int64, a permutation of 0 to B - 1. lam: 0-d or (B,), in [0, 1].

    Returns:
        (B, …). Features of a permuted batch are the permuted features, so mixed features need no forward
        pass of their own.

    Reference: AdaptiveMix, "generate hard samples".
    """
    if fused.takes(values, permutation, lam):
        return fused.mixed(values, permutation, lam)
    lam = lam.to(values.dtype)
    if lam.dim():
        lam = lam.reshape(-1, *[1] * (values.dim() - 1))
    return lam * values + (1 - lam) * values[permutation]


def shrinkage(
    mixed_features: Tensor,
    features_of_mixed: Tensor,
    noise: Tensor | None = None,
    *,
    distance: Distance = "l1",
    noise_on: Literal["mixed", "target"] = "mixed",
    detach_target: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_ada = Dist(lambda F(x_i) + (1 - lambda) F(x_j), F(x^_ij) + sigma); 0-d.

    Args:
        mixed_features: (B, …), the target. features_of_mixed: (B, …), F at the mixed samples.
        noise: as the features, already scaled by its standard deviation; None for no noise.
        distance: ``l1`` |d|, ``l2`` the norm of d per sample, ``mse`` d^2, ``cosine`` the negative cosine of
            the flattened features.
        noise_on: ``mixed`` adds the noise to ``features_of_mixed``, ``target`` to ``mixed_features`` (after
            the stop-gradient).
        reduction: ``mean`` over the batch, and for ``l1`` and ``mse`` over the elements too; ``sum`` over
            batch and elements.

    Reference: AdaptiveMix, "AdaptiveMix loss".
    Deviation: the sum over all pairs i, j is a sum (or mean) over one random permutation of the batch.
    """
    target = mixed_features.detach() if detach_target else mixed_features
    if noise is not None and noise_on == "target":
        target = target + noise
    elif noise is not None:
        features_of_mixed = features_of_mixed + noise
    first, second = features_of_mixed.flatten(1), target.flatten(1)
    if distance == "cosine":
        values = -F.cosine_similarity(first, second, dim=1)
    elif distance == "l2":
        values = torch.linalg.vector_norm(first - second, dim=1)
    else:
        difference = first - second
        values = difference.abs() if distance == "l1" else difference.square()
    return values.mean() if reduction == "mean" else values.sum()


def mixed_shrinkage(
    features: Tensor,
    permutation: Tensor,
    lam: Tensor,
    features_of_mixed: Tensor,
    noise: Tensor | None = None,
    *,
    distance: Distance = "l1",
    noise_on: Literal["mixed", "target"] = "mixed",
    detach_target: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """:func:`shrinkage` of the mixed features, which need not be kept; 0-d.

    Args:
        features: (B, …), of the unmixed batch. permutation, lam: as for :func:`mix`. The rest as for
            :func:`shrinkage`.
    """
    if detach_target:
        features = features.detach()
    others = [features_of_mixed] if noise is None else [features_of_mixed, noise]
    noisy = noise is not None and noise.requires_grad
    if features.dim() > 1 and not noisy and fused.takes(features, permutation, lam, *others):
        return fused.shrinkage(
            features, permutation, lam, features_of_mixed, noise, distance, noise_on, reduction
        )
    return shrinkage(
        mix(features, permutation, lam),
        features_of_mixed,
        noise,
        distance=distance,
        noise_on=noise_on,
        reduction=reduction,
    )


def mixed_scores(
    logits_of_mixed_features: Tensor, logits_of_mixed: Tensor, how: Literal["mixed_sum", "mixed_mean"]
) -> Tensor:
    """J(m) + J(F(x^)), or their mean; (B,). Reference: the released code of AdaptiveMix."""
    total = logits_of_mixed_features + logits_of_mixed
    return total if how == "mixed_sum" else total / 2


def derangement(permutation: Tensor) -> Tensor:
    """A permutation without fixed points: the samples in the order of ``permutation``, each with the next.

    Args:
        permutation: (B,) int64, B > 1.

    Returns:
        (B,) int64, a single cycle through all samples.
    """
    order = torch.empty_like(permutation)
    order[permutation] = permutation.roll(-1)
    return order
