"""Log-sums of exp(<a, b> / tau) over the anchors of many points, without keeping any matrix of pairs.

A :class:`Product` names two sets of features and whose sums are wanted: those of the first rows of the left set
over all of the right one, those of the first rows of the right set over all of the left one, or both from the
same similarities. :func:`log_sums` computes several products, tile by tile. It keeps the features and one number
a point, and computes the tiles again in the backward. :func:`log_sums_by_matrix` writes the same down as plain
tensor operations; it is the form for small problems and for second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = 512
"""Rows and columns of a tile, unless the caller chooses."""

MOST_UNIT = 40.0
"""For |similarity| up to this, exp of it and sums of such exps are far from the bounds of float32."""


@dataclass(frozen=True)
class Product:
    """Similarities of the rows of two sets.

    Args:
        left, right: which tensors; the same one twice compares a set with itself.
        rows: log-sums of the first ``rows`` rows of the left set over the right set.
        columns: log-sums of the first ``columns`` rows of the right set over the left set; 0 when left and right
            are the same.
        leave_out: row i of the left set and row i of the right set do not see each other.
    """

    left: int
    right: int
    rows: int
    columns: int = 0
    leave_out: bool = False

    @property
    def within(self) -> bool:
        """Whether a set is compared with itself."""
        return self.left == self.right


@dataclass(frozen=True)
class _How:
    """What is common to all products. ``unit``: similarities are known to lie within ``MOST_UNIT``."""

    products: tuple[Product, ...]
    tau: float
    detach_anchors: bool
    unit: bool
    block: int


def log_sums(
    tensors: Sequence[Tensor],
    products: Sequence[Product],
    tau: float,
    *,
    detach_anchors: bool = False,
    unit: bool = False,
    block: int = BLOCK,
) -> list[Tensor]:
    """For each product log sum_j exp(<a_i, b_j> / tau) of its rows (rows,), then of its columns (columns,).

    Args:
        tensors: (N, K) each, float32 or float64, all of one type.
        detach_anchors: no gradient through the rows that are summed over.
        unit: the caller promises that no row is longer than 1. One exponential then serves the rows and the
            columns of a tile. Used while 1/tau <= 40, where nothing can overflow.
        block: side of a tile.

    Between forward and backward it keeps ``tensors`` and the results alone. A backward with ``create_graph=True``
    goes through :func:`log_sums_by_matrix` and needs its memory.
    """
    how = _How(tuple(products), tau, detach_anchors, unit and 1 / tau <= MOST_UNIT, block)
    with _full_precision(tensors[0]):
        return list(_LogSums.apply(how, *tensors))


def log_sums_by_matrix(
    tensors: Sequence[Tensor], products: Sequence[Product], tau: float, *, detach_anchors: bool = False
) -> list[Tensor]:
    """The same as :func:`log_sums`, with matrices of all pairs; differentiable any number of times."""
    results = []
    with _full_precision(tensors[0]):
        for product in products:
            left, right = tensors[product.left], tensors[product.right]
            fixed_left, fixed_right = (left.detach(), right.detach()) if detach_anchors else (left, right)
            similar = left[: product.rows] @ fixed_right.T / tau
            if product.leave_out:
                own = torch.eye(*similar.shape, dtype=torch.bool, device=similar.device)
                similar = similar.masked_fill(own, -math.inf)
            results.append(similar.logsumexp(1))
            if product.columns:
                columns = right[: product.columns]
                if detach_anchors:
                    results.append((columns @ fixed_left.T / tau).logsumexp(1))
                    continue
                shared = similar[:, : product.columns].T  # what rows and columns have in common
                if product.rows < len(left):
                    shared = torch.cat((shared, columns @ left[product.rows :].T / tau), 1)
                results.append(shared.logsumexp(1))
    return results


def _full_precision(like: Tensor) -> torch.autocast:
    """Similarities at tau = 0.05 reach 20: bfloat16 would leave two digits of exp's argument."""
    return torch.autocast(like.device.type, enabled=False)


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: _How, *tensors: Tensor) -> tuple[Tensor, ...]:
        results: list[Tensor] = []
        scratch = _Scratch(tensors[0], how)
        for product in how.products:
            results += _forward(product, how, tensors, scratch)
        ctx.how = how
        ctx.save_for_backward(*tensors, *results)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        saved = ctx.saved_tensors
        count = len(ctx.needs_input_grad) - 1
        tensors, results = saved[:count], saved[count:]
        wanted = [index for index in range(count) if ctx.needs_input_grad[index + 1]]
        found: list[Tensor | None] = [None] * count
        with _full_precision(tensors[0]):
            if torch.is_grad_enabled():  # create_graph=True: the gradients are differentiated in turn
                again = log_sums_by_matrix(tensors, how.products, how.tau, detach_anchors=how.detach_anchors)
                pairs = [(sums, g) for sums, g in zip(again, gradients, strict=True) if sums.requires_grad]
                if pairs:
                    given = torch.autograd.grad(
                        [sums for sums, _ in pairs],
                        [tensors[index] for index in wanted],
                        [g for _, g in pairs],
                        create_graph=True,
                        allow_unused=True,
                    )
                    for index, gradient in zip(wanted, given, strict=True):
                        found[index] = gradient
                return (None, *found)
            for index in wanted:
                found[index] = torch.zeros_like(tensors[index], memory_format=torch.contiguous_format)
            scratch = _Scratch(tensors[0], how)
            position = 0
            for product in how.products:
                taken = 2 if product.columns else 1
                part = slice(position, position + taken)
                _backward(product, how, tensors, results[part], gradients[part], found, scratch)
                position += taken
        return (None, *found)


class _Scratch:
    """Two tiles of memory that all tiles of a pass share."""

    def __init__(self, like: Tensor, how: _How) -> None:
        self._size = how.block**2
        self._tiles = [like.new_empty(0), like.new_empty(0)]

    def tile(self, which: int, rows: int, columns: int) -> Tensor:
        if rows * columns > self._tiles[which].numel():
            self._tiles[which] = self._tiles[which].new_empty(rows * columns)
        return self._tiles[which][: rows * columns].view(rows, columns)


def _blocks(count: int, points: int, block: int) -> Iterator[tuple[int, int, bool]]:
    """(start, end, are they points) of tiles: none holds points and mere anchors."""
    for low, high, active in ((0, points, True), (points, count, False)):
        for start in range(low, high, block):
            yield start, min(start + block, high), active


@dataclass(frozen=True)
class _Tile:
    """Rows i of the left set and j of the right one; ``row`` and ``column`` say whose sums are wanted."""

    i: slice
    j: slice
    row: bool
    column: bool
    diagonal: bool


def _tiles(product: Product, tensors: Sequence[Tensor], block: int) -> Iterator[_Tile]:
    columns = product.rows if product.within else product.columns
    for i0, i1, row in _blocks(len(tensors[product.left]), product.rows, block):
        for j0, j1, column in _blocks(len(tensors[product.right]), columns, block):
            if not (row or column) or (product.within and j0 < i0):
                continue  # nobody's sum, or the mirror image of a tile that serves both
            # On the diagonal of a set with itself the columns are the rows.
            column = column and not (product.within and i0 == j0)
            yield _Tile(slice(i0, i1), slice(j0, j1), row, column, product.leave_out and i0 < j1 and j0 < i1)


def _similar(tile: _Tile, left: Tensor, right: Tensor, tau: float, scratch: _Scratch) -> Tensor:
    rows, columns = left[tile.i], right[tile.j]
    out = scratch.tile(0, len(rows), len(columns))
    return torch.addmm(out, rows, columns.T, beta=0, alpha=1 / tau, out=out)


def _own(tile: _Tile, matrix: Tensor) -> Tensor:
    """The entries of a tile that compare row i with row i."""
    return matrix.diagonal(tile.i.start - tile.j.start)


def _forward(product: Product, how: _How, tensors: Sequence[Tensor], scratch: _Scratch) -> list[Tensor]:
    left, right = tensors[product.left], tensors[product.right]
    start = 0.0 if how.unit else -math.inf
    of_rows = left.new_full((product.rows,), start)
    of_columns = of_rows if product.within else left.new_full((product.columns,), start)
    for tile in _tiles(product, tensors, how.block):
        similar = _similar(tile, left, right, how.tau, scratch)
        if how.unit:
            similar.exp_()
            if tile.diagonal:
                _own(tile, similar).zero_()
            if tile.row:
                of_rows[tile.i] += similar.sum(1)
            if tile.column:
                of_columns[tile.j] += similar.sum(0)
            continue
        if tile.diagonal:
            _own(tile, similar).fill_(-math.inf)
        if tile.row:
            of_rows[tile.i] = torch.logaddexp(of_rows[tile.i], similar.logsumexp(1))
        if tile.column:
            of_columns[tile.j] = torch.logaddexp(of_columns[tile.j], similar.logsumexp(0))
    results = [of_rows, of_columns] if product.columns else [of_rows]
    return [total.log_() for total in results] if how.unit else results


def _backward(
    product: Product,
    how: _How,
    tensors: Sequence[Tensor],
    results: Sequence[Tensor],
    gradients: Sequence[Tensor],
    found: list[Tensor | None],
    scratch: _Scratch,
) -> None:
    """Add the gradients of one product to ``found``.

    With u_i = dL/dl_i for the log-sum l_i of row i, and v_j for column j, the similarity s_ij has the gradient
    u_i exp(s_ij - l_i) + v_j exp(s_ij - l_j). Its first part reaches b_j, and its second a_i, as an anchor.
    """
    left, right = tensors[product.left], tensors[product.right]
    d_left, d_right = found[product.left], found[product.right]
    if d_left is None and d_right is None:
        return
    row_sums, row_gradients = results[0], gradients[0]
    column_sums, column_gradients = (row_sums, row_gradients) if product.within else (results[-1], gradients[-1])
    if how.unit:
        row_gradients = row_gradients * (-row_sums).exp()
        column_gradients = column_gradients * (-column_sums).exp()
    scale = 1 / how.tau
    for tile in _tiles(product, tensors, how.block):
        similar = _similar(tile, left, right, how.tau, scratch)
        if how.unit:
            similar.exp_()
        if tile.diagonal:
            _own(tile, similar).fill_(0.0 if how.unit else -math.inf)
        u, v = row_gradients[tile.i, None] if tile.row else None, None
        if tile.column:
            v = column_gradients[None, tile.j]
        both = u is not None and v is not None
        if how.unit and both and not how.detach_anchors:
            part = torch.add(u, v, out=scratch.tile(1, *similar.shape)).mul_(similar)  # type: ignore[arg-type]
            parts = [(part, True, True)]
        else:
            parts = []
            # The last part may overwrite the similarities, the first of two may not.
            if u is not None:
                out = scratch.tile(1, *similar.shape) if both else similar
                by_row = similar if how.unit else torch.sub(similar, row_sums[tile.i, None], out=out).exp_()
                parts.append((torch.mul(by_row, u, out=out), True, not how.detach_anchors))
            if v is not None:
                by_column = similar if how.unit else similar.sub_(column_sums[None, tile.j]).exp_()
                parts.append((by_column.mul_(v), not how.detach_anchors, True))
            if both and not how.detach_anchors:
                parts = [(parts[0][0].add_(parts[1][0]), True, True)]
        if product.within and tile.i == tile.j and not how.detach_anchors:
            # Both roles of the same rows in one product; the part lies in the first tile of the scratch.
            part = parts[0][0]
            parts = [(torch.add(part, part.T, out=scratch.tile(1, *part.shape)), True, False)]
        for part, to_left, to_right in parts:
            if d_left is not None and to_left:
                d_left[tile.i].addmm_(part, right[tile.j], alpha=scale)
            if d_right is not None and to_right:
                d_right[tile.j].addmm_(part.T, left[tile.i], alpha=scale)
