"""Whether samples are copies: the nearest training images, authenticity, and what D knows of data it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from gancore.api import DataError
from gancore_fidelity.checks import at_least_float32, check_pair

PIXEL_SIDE = 32
"""Larger images are compared by pixels at this side."""

_BLOCK = 1024
_CANDIDATES = 4


@dataclass(frozen=True)
class Neighbours:
    """For each row of one set its nearest row of another: ``indices`` int64 (N,), ``distances`` (N,)."""

    indices: Tensor
    distances: Tensor


def nearest(rows: Tensor, others: Tensor) -> Neighbours:
    """The nearest of ``others`` (M, D) to each of ``rows`` (N, D), by Euclidean distance, in blocks."""
    check_pair(rows, others, "the generated samples", "the reference")
    rows, others = at_least_float32(rows), at_least_float32(others)
    found = [_least(rows[start : start + _BLOCK], others, None) for start in range(0, len(rows), _BLOCK)]
    return _joined(found)


def nearest_other(rows: Tensor) -> Neighbours:
    """The nearest *other* row to each of ``rows`` (M, D). A second copy of a row is another row.

    Raises:
        DataError: a single row.
    """
    check_pair(rows, rows, "the reference", "the reference")
    if len(rows) < 2:
        raise DataError(f"{len(rows)} reference image has no neighbour; expected at least 2")
    rows = at_least_float32(rows)
    return _joined([_least(rows[start : start + _BLOCK], rows, start) for start in range(0, len(rows), _BLOCK)])


def authenticity(samples: Neighbours, reference: Neighbours) -> float:
    """The share of samples that are no copies, in [0, 1].

    Alaa, van Breugel, Saveliev and van der Schaar, "How Faithful is your Synthetic Data? Sample-level Metrics for
    Evaluating and Auditing Generative Models", ICML 2022, arXiv:2102.08921, section 3.2: a sample g whose nearest
    training image is x counts as a copy when it is nearer to x than any other training image is,

        d(g, x) <= min_{x' != x} d(x', x)

    Samples drawn from the data's own distribution have about 1/2, copies have 0.

    Args:
        samples: nearest training images of the samples. reference: of each training image, its nearest other.
    """
    return float((samples.distances > reference.distances[samples.indices]).double().mean())


def rank_auc(first: np.ndarray, second: np.ndarray) -> float:
    """The probability that a value of ``first`` (N,) is above one of ``second`` (M,), ties counting one half.

    The area under the ROC curve, from the ranks: Mann and Whitney, "On a Test of Whether one of Two Random
    Variables is Stochastically Larger than the Other", 1947.
    """
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, "left")
    up_to = np.searchsorted(ordered, first, "right")
    return float((below + up_to).mean() / (2 * len(second)))


@dataclass(frozen=True)
class Gap:
    """D's logits on data that it was trained on against data that it has not seen.

    Attributes:
        difference: mean on training rows minus mean on held-out rows; 0 for a D that has memorised nothing.
        auc: probability that a training row has the higher logit; 1/2 for a D that has memorised nothing.
    """

    difference: float
    auc: float


def gap(trained: np.ndarray, held_out: np.ndarray) -> Gap:
    """Of logits (N,) on training rows and (M,) on held-out rows."""
    return Gap(float(trained.mean() - held_out.mean()), rank_auc(trained, held_out))


def nearest_pairs(indices: Tensor, distances: Tensor, most: int) -> Tensor:
    """Which samples to show: the nearest first, one for each neighbour.

    A generator that makes one plain image well would else fill a picture with it.

    Args:
        indices, distances: of the nearest training image of each sample, (N,).

    Returns:
        Rows, int64 (at most ``most``,).
    """
    seen: set[int] = set()
    rows = []
    for row in distances.argsort(stable=True).tolist():
        neighbour = int(indices[row])
        if neighbour not in seen:
            seen.add(neighbour)
            rows.append(row)
        if len(rows) == most:
            break
    return torch.tensor(rows, dtype=torch.int64)


def neighbour_sheet(samples: Tensor, neighbours: Tensor, distances: Tensor) -> Image.Image:
    """A sheet of pairs, each sample left of its neighbour with the distance below, in the order given.

    Args:
        samples, neighbours: uint8 (N, C, H, W), C of 1 or 3, row by row. distances: (N,).
    """
    side = samples.shape[-1]
    scale = max(1, -(-64 // side))
    tile, gutter, text = side * scale, 10, 14
    count = len(samples)
    columns = min(count, max(1, 900 // (2 * tile + gutter)))
    rows = -(-count // columns)
    size = (columns * (2 * tile + gutter) + gutter, rows * (tile + text + gutter) + gutter)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        left = gutter + (index % columns) * (2 * tile + gutter)
        top = gutter + (index // columns) * (tile + text + gutter)
        for offset, images in ((0, samples), (tile, neighbours)):
            sheet.paste(_tile(images[index], tile), (left + offset, top))
        draw.line((left + tile, top, left + tile, top + tile), fill=(255, 255, 255))
        draw.text((left, top + tile + 1), f"{float(distances[index]):.3g}", fill=(70, 76, 84))
    return sheet


def pixels(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as float32 vectors in [0, 1], of sides of at most :data:`PIXEL_SIDE`."""
    found = images.float() / 255
    if images.shape[-1] > PIXEL_SIDE:
        side = (PIXEL_SIDE, PIXEL_SIDE)
        found = F.interpolate(found, side, mode="bilinear", antialias=True, align_corners=False)
    return found.flatten(1)


def _tile(image: Tensor, side: int) -> Image.Image:
    array = image.numpy().transpose(1, 2, 0)
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
    return picture.resize((side, side), Image.Resampling.NEAREST)


def _least(rows: Tensor, others: Tensor, offset: int | None) -> Neighbours:
    """Nearest of ``others``; with an offset, ``rows`` are its rows from there on, and are left out by index.

    Products find a few candidates fast; their distances are then computed from differences, since a copy is at a
    distance of 0, which the products' cancellation would hide.
    """
    center = others.mean(0)
    near = [torch.empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64)]
    for start in range(0, len(others), _BLOCK):
        part = others[start : start + _BLOCK] - center
        distances = part.square().sum(1) - 2 * (rows - center) @ part.T
        if offset is not None:
            own = torch.arange(len(rows)) + offset - start
            inside = ((own >= 0) & (own < len(part))).nonzero().flatten()
            distances[inside, own[inside]] = torch.inf
        values, indices = distances.topk(min(_CANDIDATES, len(part)), largest=False)
        values, indices = torch.cat([near[0], values], 1), torch.cat([near[1], indices + start], 1)
        order = values.argsort(1)[:, :_CANDIDATES]
        near = [values.gather(1, order), indices.gather(1, order)]
    apart = torch.stack([torch.linalg.vector_norm(rows - others[index], dim=1) for index in near[1].T], 1)
    apart[near[0].isinf()] = torch.inf
    least, place = apart.min(1)
    return Neighbours(near[1].gather(1, place[:, None]).flatten(), least)


def _joined(parts: list[Neighbours]) -> Neighbours:
    return Neighbours(torch.cat([part.indices for part in parts]), torch.cat([part.distances for part in parts]))
