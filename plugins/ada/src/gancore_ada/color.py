"""Colour: one affine map of (R, G, B) an image, composed of all ops."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gancore_ada.matrices import matrix, product


def color_matrix(parameters: Mapping[str, Tensor]) -> Tensor | None:
    """All colour ops as one homogeneous matrix, (B, 4, 4); None when there are none.

    C = saturation hue lumaflip contrast brightness, with v = (1, 1, 1) / sqrt(3) the grey axis: brightness moves
    along it, contrast scales about 0, lumaflip is the Householder reflection I - 2 v v^T, hue rotates about v,
    saturation scales what is orthogonal to v.

    Args:
        parameters: from :func:`~gancore_ada.sampling.sample`.

    Reference: arXiv:2006.06676, appendix B, "color transformations".
    """
    steps = []
    if "brightness" in parameters:
        b = parameters["brightness"]
        steps.append(matrix(b, [[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]]))
    if "contrast" in parameters:
        c = parameters["contrast"]
        steps.append(matrix(c, [[c, 0, 0, 0], [0, c, 0, 0], [0, 0, c, 0], [0, 0, 0, 1]]))
    if "lumaflip" in parameters:
        # I - 2 i v v^T: the part along v is scaled by 1 - 2 i.
        flipped = parameters["lumaflip"]
        steps.append(_about_grey(1 - 2 * flipped, torch.ones_like(flipped), torch.zeros_like(flipped)))
    if "hue" in parameters:
        angle = parameters["hue"]
        steps.append(_about_grey(torch.ones_like(angle), angle.cos(), angle.sin()))
    if "saturation" in parameters:
        factor = parameters["saturation"]
        steps.append(_about_grey(torch.ones_like(factor), factor, torch.zeros_like(factor)))
    if not steps:
        return None
    total = steps[0]
    for step in steps[1:]:
        total = product(step, total)
    return total


def _about_grey(along: Tensor, across: Tensor, turned: Tensor) -> Tensor:
    """along * v v^T + across * (I - v v^T) + turned * [v]_x, homogeneous, (B, 4, 4)."""
    diagonal = (along + 2 * across) / 3
    other = (along - across) / 3
    twist = turned * 3**-0.5
    rows: list[list[Tensor | float]] = [
        [diagonal, other - twist, other + twist, 0],
        [other + twist, diagonal, other - twist, 0],
        [other - twist, other + twist, diagonal, 0],
        [0, 0, 0, 1],
    ]
    return matrix(along, rows)


def apply_color(images: Tensor, color: Tensor) -> Tensor:
    """Each pixel through the map of its image.

    Args:
        images: (B, C, H, W), C = 3 or 1. A grey pixel g stands for (g, g, g) and becomes the mean of the result.
        color: (B, 4, 4).

    Raises:
        ValueError: another number of channels.
    """
    batch, channels, height, width = images.shape
    linear, offset = color[:, :3, :3], color[:, :3, 3:]
    if channels == 1:
        linear = linear.mean(1, keepdim=True).sum(2, keepdim=True)
        offset = offset.mean(1, keepdim=True)
    elif channels != 3:
        raise ValueError(f"images have {channels} channels; expected 1 (grey) or 3 (RGB)")
    mapped = linear @ images.reshape(batch, channels, height * width) + offset
    return mapped.reshape(images.shape)
