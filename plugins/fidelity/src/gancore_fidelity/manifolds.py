"""Precision and recall, density and coverage: how two sets of features overlap, from distances to neighbours.

Kynkäänniemi, Karras, Laine, Lehtinen and Aila, "Improved Precision and Recall Metric for Assessing Generative
Models", 2019, arXiv:1904.06991, equations 1 and 2, with k = 3:

    precision = share of generated y for which some real x has ||x - y|| <= r_k(x)
    recall    = share of real x for which some generated y has ||x - y|| <= r_k(y)

Naeem, Oh, Uh, Choi and Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models", 2020,
arXiv:2002.09797, equations 4 and 5, with k = 5:

    density  = 1 / (k M) sum over generated y of the number of real x for which ||x - y|| < r_k(x)
    coverage = share of real x for which some generated y has ||x - y|| < r_k(x)

r_k(x) is the distance from x to its k-th neighbour in its own set, x itself, by index and not by value, left out.
The ball is closed in the first pair, as its paper writes, and open in the second, as its authors compute it: a
set has density 1 against itself.

N real and M generated rows of D features are compared in tiles of 512 x 512 squared distances, so the memory that
is taken does not grow with N M. Distances within a set are computed once for both of their ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gancore.api import ConfigError
from gancore_fidelity.checks import check_features, check_pair

_BLOCK = 512

Precision = Literal["float32", "float64"]
_TYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class ManifoldScores:
    """Precision, recall and coverage are in [0, 1]; density is at least 0 and may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_distances(
    features: Tensor, k: int, *, precision: Precision = "float32", what: str = "the samples"
) -> Tensor:
    """Squared distances to the k nearest other rows, ascending, (N, k).

    Args:
        features: (N, D), floating.
        precision: what products are computed in; see :func:`manifold_scores`.

    Raises:
        ConfigError: no k, or no k neighbours. ValueError, DataError: as ``check_features``.
    """
    check_features(features, what)
    if not 1 <= k < len(features):
        raise ConfigError(
            f"k = {k} neighbours among {len(features)} of {what}; expected 1 to {max(len(features) - 1, 1)}. Use "
            "a smaller k, or more samples"
        )
    center = _mean(features)
    tiles = _Tiles(_Rows(features, center, precision), _Rows(features, center, precision))
    best = torch.full((len(features), k), torch.inf, dtype=_TYPES[precision])
    for top in range(0, len(features), _BLOCK):
        for left in range(top, len(features), _BLOCK):
            across, down = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
            tile = tiles.squared_distances(top, left)
            if top == left:
                tile.fill_diagonal_(torch.inf)
            else:
                _merge(best[down], tile.T)
            _merge(best[across], tile)
    # Rounding may put a copy at less than nothing.
    return best.clamp_(min=0)


def manifold_scores(
    real: Tensor,
    generated: Tensor,
    *,
    k_precision: int = 3,
    k_coverage: int = 5,
    precision: Precision = "float32",
    real_neighbours: Tensor | None = None,
) -> ManifoldScores:
    """Precision and recall with ``k_precision`` neighbours, density and coverage with ``k_coverage``.

    Args:
        real, generated: features, (N, D) and (M, D), floating.
        precision: ``float32`` is twice as fast. A squared distance is then off by about 1e-6 of
            ||x - m||^2 + ||y - m||^2, where m is the mean, by which all rows are shifted first; so pairs that lie
            that near to a radius may count on the other side of it, and copies of one row have no exact distance.
        real_neighbours: :func:`neighbour_distances` of the reals for the larger k or above, where they are kept.

    Raises:
        ConfigError: a k that has no neighbours. ValueError: shapes that do not fit.
        DataError: features that are not finite.
    """
    check_pair(real, generated, "the reals", "the generated samples")
    k = max(k_precision, k_coverage)
    if min(k_precision, k_coverage) < 1:
        raise ConfigError(f"k_precision = {k_precision}, k_coverage = {k_coverage}; expected at least 1 each")
    if real_neighbours is None:
        real_neighbours = neighbour_distances(real, k, precision=precision, what="the reals")
    if len(real_neighbours) != len(real) or real_neighbours.shape[1] < k:
        raise ValueError(
            f"neighbours of the reals are {tuple(real_neighbours.shape)}; expected ({len(real)}, {k} or more)"
        )
    of_generated = neighbour_distances(generated, k_precision, precision=precision, what="the generated samples")
    center = _mean(real)
    tiles = _Tiles(_Rows(real, center, precision), _Rows(generated, center, precision))
    radius, reach = real_neighbours[:, k_precision - 1], of_generated[:, k_precision - 1]
    wide = real_neighbours[:, k_coverage - 1]
    # Squared distance minus squared radius, at its least: not above 0 where a ball holds the point.
    outside, beyond = torch.full_like(reach, torch.inf), torch.full_like(radius, torch.inf)
    nearest = torch.full_like(radius, torch.inf)
    held = 0
    spare = torch.empty(_BLOCK * _BLOCK, dtype=_TYPES[precision])
    for top in range(0, len(real), _BLOCK):
        across = slice(top, top + _BLOCK)
        for left in range(0, len(generated), _BLOCK):
            down = slice(left, left + _BLOCK)
            tile = tiles.squared_distances(top, left)
            short = spare[: tile.numel()].view_as(tile)
            # As floats, which are compared and summed several times as fast as truth values.
            held += int(torch.lt(tile, wide[across, None], out=short).sum())
            nearest[across] = torch.minimum(nearest[across], tile.amin(1))
            torch.sub(tile, radius[across, None], out=short)
            outside[down] = torch.minimum(outside[down], short.amin(0))
            torch.sub(tile, reach[down], out=short)
            beyond[across] = torch.minimum(beyond[across], short.amin(1))
    return ManifoldScores(
        precision=_share(outside <= 0),
        recall=_share(beyond <= 0),
        density=held / (k_coverage * len(generated)),
        coverage=_share(nearest < wide),
    )


class _Rows:
    """Features, shifted a block at a time: a shifted copy of all would be as large as they are."""

    def __init__(self, features: Tensor, center: Tensor, precision: Precision) -> None:
        self._features = features
        self._center = center
        dtype = _TYPES[precision]
        self._memory = torch.empty(min(_BLOCK, len(features)), features.shape[1], dtype=dtype)
        self._held = -1
        self.squares = torch.empty(len(features), dtype=dtype)
        for start in range(0, len(features), _BLOCK):
            block = self.block(start)
            self.squares[start : start + _BLOCK] = torch.linalg.vecdot(block, block)

    def block(self, start: int) -> Tensor:
        """Rows from ``start`` on, (512 or what is left, D), valid until another block is asked for."""
        rows = self._features[start : start + _BLOCK]
        out = self._memory[: len(rows)]
        if start != self._held:
            torch.sub(rows, self._center, out=out)
            self._held = start
        return out


class _Tiles:
    """Tiles of squared distances between two sets of rows, all in the same memory."""

    def __init__(self, first: _Rows, second: _Rows) -> None:
        self._first, self._second = first, second
        self._memory = first.squares.new_empty(_BLOCK * _BLOCK)

    def squared_distances(self, top: int, left: int) -> Tensor:
        """||x||^2 + ||y||^2 - 2 <x, y> for x from ``top`` and y from ``left`` on; valid until the next tile."""
        x, y = self._first.block(top), self._second.block(left)
        out = self._memory[: len(x) * len(y)].view(len(x), len(y))
        torch.addmm(self._second.squares[left : left + _BLOCK], x, y.T, alpha=-2, out=out)
        return out.add_(self._first.squares[top : top + _BLOCK, None])


def _merge(best: Tensor, tile: Tensor) -> None:
    """Put what is nearer in the rows of a tile, (B, columns), into ``best``, (B, k), ascending, in place."""
    fresh = (tile.amin(1) < best[:, -1]).nonzero().flatten()
    k = best.shape[1]
    nearer = tile[fresh].topk(min(k, tile.shape[1]), largest=False).values
    best[fresh] = torch.cat((best[fresh], nearer), 1).topk(k, largest=False).values


def _mean(features: Tensor) -> Tensor:
    """Of all rows, summed in float64 in blocks, since torch converts a whole tensor first; float32 at least."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for start in range(0, len(features), _BLOCK):
        total += features[start : start + _BLOCK].double().sum(0)
    return (total / len(features)).to(torch.promote_types(features.dtype, torch.float32))


def _share(which: Tensor) -> float:
    return float(which.double().mean())
