"""KDD GAN as pure functions; every random draw is an argument.

Lemkhenter, Bielski, Sari and Favaro, "Generative Adversarial Learning via Kernel Density Discrimination", 2021,
arXiv:2107.06197.

Symbols: phi_UN(x) in R^K what D says of x, phi = phi_UN / ||phi_UN||, K_tau(a, b) = exp(<a, b> / tau) up to a
constant that cancels, S_r and S_g reals and fakes, p^_r and p^_g their kernel densities in the space of phi, and
r(x) = log p^_r(phi(x)) - log p^_g(phi(x)). B is the batch.

Points, where r is evaluated, are the first rows of the anchors of their side: anchors that are no points
(augmented copies, rows of other ranks) come after them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gancore_kdd.kernel import BLOCK, Product, log_sums, log_sums_by_matrix

Divisor = Literal["rows", "literal"]
Form = Literal["auto", "blocked", "matrix"]

SMALL = 2**15
"""Up to so many pairs of a point and an anchor, the plain matrices are the faster form on a CPU."""

SMALL_ELSEWHERE = 2**22
"""The same on other devices, where a launch costs more: not measured yet."""

NO_DIRECTION = 1e-12
"""Largest entry up to which a feature has no direction."""


def unit(features: Tensor) -> Tensor:
    """phi = phi_UN / ||phi_UN||_2, row by row.

    Args:
        features: (B, …), float32 or wider.

    Returns:
        (B, K), the flattened features. A row whose largest entry is below 1e-12 gives zeros and no gradient,
        instead of NaN. What is not finite stays so: a run that diverges must look it.
    """
    rows = features.flatten(1)
    largest = rows.detach().abs().amax(1, keepdim=True)
    no_direction = largest <= NO_DIRECTION
    one = torch.ones_like(largest)
    # The direction does not depend on a scale; with it, squares neither overflow nor vanish.
    scaled = rows / torch.where(no_direction, one, largest)
    # Both branches of a `where` are differentiated, so the unused one must be finite too.
    length = torch.where(no_direction, one, scaled.square().sum(1, keepdim=True)).sqrt()
    return torch.where(no_direction, torch.zeros_like(rows), scaled / length)


def log_ratios(
    real: Tensor,
    fake: Tensor,
    tau: float = 1.0,
    *,
    real_points: int | None = None,
    fake_points: int | None = None,
    memory: Tensor | None = None,
    detach_anchors: bool = False,
    divisor: Divisor = "rows",
    unit_rows: bool = False,
    form: Form = "auto",
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """r at the reals and r at the fakes, with leave-one-out: a point is no anchor of its own density.

    Args:
        real, fake: (N_r, K) and (N_g, K), the anchors of p^_r and p^_g, points first; one floating type.
        real_points, fake_points: how many rows are points; by default all. 0 skips what only they need.
        memory: (N_m, K), anchors of p^_r in place of ``real``, of which row i belongs to real point i; then
            ``real`` is read for its points alone.
        detach_anchors: no gradient through the anchors, only through the points.
        divisor: by which p^ divides its sum: ``rows``, the number of rows in it, one less under leave-one-out;
            or ``literal``, |S|, which lowers the point's own side by log((|S| - 1) / |S|).
        unit_rows: the caller promises that no row is longer than 1, as after :func:`unit`; saves exponentials.
        form: ``blocked`` keeps no matrix of pairs for the backward, ``matrix`` does, ``auto`` goes by size.
        block: side of a tile of the blocked form; by default that of :func:`default_block`.

    Returns:
        (real_points,) and (fake_points,). With unit rows |r| <= 2 / tau, but for what ``literal`` adds.

    Raises:
        ValueError: shapes or types that do not fit, tau <= 0, a side whose only anchor is the point itself.

    Reference: equations 3 and 4; section 2.1 for leave-one-out and for anchors that are no points.
    """
    at_real = len(real) if real_points is None else real_points
    at_fake = len(fake) if fake_points is None else fake_points
    tensors = [real, fake] if memory is None else [real, fake, memory]
    _check(tensors, at_real, at_fake, tau)
    if memory is None:
        products = [
            Product(0, 0, at_real, leave_out=True),
            Product(0, 1, at_real, at_fake),
            Product(1, 1, at_fake, leave_out=True),
        ]
    else:
        products = [
            Product(0, 2, at_real, leave_out=True),
            Product(0, 1, at_real),
            Product(1, 2, at_fake),
            Product(1, 1, at_fake, leave_out=True),
        ]
    products = [_turned(product) for product in products if product.rows or product.columns]
    on_cpu = real.device.type == "cpu"
    if form == "auto":
        form = "matrix" if _pairs(products, tensors) <= (SMALL if on_cpu else SMALL_ELSEWHERE) else "blocked"
    if form == "blocked":
        block = block or default_block(real.device)
        sums = log_sums(tensors, products, tau, detach_anchors=detach_anchors, unit=unit_rows, block=block)
    else:
        sums = log_sums_by_matrix(tensors, products, tau, detach_anchors=detach_anchors)
    found = dict(zip(_names(products), sums, strict=True))
    anchors = (0 if memory is None else 2, 1)
    rows = tuple(len(tensors[index]) for index in anchors)
    out = []
    for side, points in ((0, at_real), (1, at_fake)):
        if not points:
            out.append(tensors[side].new_zeros(0))
            continue
        summed = [rows[other] - (other == side and divisor == "rows") for other in (0, 1)]
        shift = math.log(summed[1]) - math.log(summed[0])
        out.append(found[side, anchors[0]] - found[side, anchors[1]] + shift)
    return out[0], out[1]


def default_block(device: torch.device) -> int:
    """Side of a tile of the blocked form: 512 on one thread of a CPU, 1024 on several, 2048 on other devices.

    Larger tiles mean fewer operations, at whose ends threads wait for each other, and take more memory: two tiles
    lie in memory at a time.
    """
    if device.type != "cpu":
        return 2048
    return BLOCK if torch.get_num_threads() == 1 else 2 * BLOCK


def log_density(
    points: Tensor,
    anchors: Tensor,
    scale: float = 1.0,
    *,
    kernel: Literal["dot", "gaussian"] = "dot",
    leave_out: bool = False,
    divisor: Divisor = "rows",
) -> Tensor:
    """log p^(xi) at each point, up to the kernel's constant; (P,).

    Args:
        points: (P, K). anchors: (N, K).
        scale: tau of the kernel exp(<a, xi> / tau), or sigma of exp(-||a - xi||^2 / (2 sigma^2)).
        leave_out: row i of the anchors is no anchor of point i.
        divisor: as in :func:`log_ratios`.

    Reference: equation 4; appendix A for the Gaussian kernel, without normalised features.
    """
    if kernel == "gaussian":
        squares = points.square().sum(1)[:, None] + anchors.square().sum(1)[None, :]
        similar = (points @ anchors.T - squares / 2) / scale**2
    else:
        similar = points @ anchors.T / scale
    if leave_out:
        own = torch.eye(len(points), len(anchors), dtype=torch.bool, device=points.device)
        similar = similar.masked_fill(own, -math.inf)
    count = len(anchors) - (1 if leave_out and divisor == "rows" else 0)
    return similar.logsumexp(1) - math.log(count)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """mean_{S_g} max(0, 1 + r) + mean_{S_r} max(0, 1 - r); 0-d. Reference: equation 3."""
    return F.relu(1 + fake).mean() + F.relu(1 - real).mean()


def active(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Which share of the reals and of the fakes has a gradient in :func:`hinge`; 0-d each."""
    return (real < 1).to(real.dtype).mean(), (fake > -1).to(fake.dtype).mean()


def projection(features: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
    """y^T V phi, with y one-hot; (B,).

    Args:
        features: (B, K). embedding: V, (classes, K). labels: (B,) int64.

    Reference: section 2.3.
    """
    out: Tensor = (embedding[labels] * features.flatten(1)).sum(1)
    return out


def directions(noise: Tensor) -> Tensor:
    """Unit vectors of the space of images, uniform on its sphere when ``noise`` is Gaussian; as ``noise``."""
    return unit(noise).reshape(noise.shape)


def jacobian(at: Tensor, near: Tensor, delta: float) -> Tensor:
    """mean | ||phi_UN(x + delta dx) - phi_UN(x)||_2 / delta - 1 | over the rows of one side; 0-d.

    Args:
        at, near: (B, …), phi_UN at x and at x + delta dx with unit dx, in float32 or wider.

    Reference: equation 8, which divides the sum over both sides by |S_r|: add the values of both sides.
    """
    slope: Tensor = torch.linalg.vector_norm((near - at).flatten(1), dim=1) / delta
    return (slope - 1).abs().mean()


def _check(tensors: Sequence[Tensor], at_real: int, at_fake: int, tau: float) -> None:
    real, fake, *rest = tensors
    for name, value in zip(("real", "fake", "memory"), tensors, strict=False):
        if value.dim() != 2 or value.shape[1] != real.shape[1] or value.dtype != real.dtype:
            raise ValueError(
                f"{name} is {tuple(value.shape)} {value.dtype}; expected (N, K) of one K and one type for all "
                f"(real is {tuple(real.shape)} {real.dtype})"
            )
    if real.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features are {real.dtype}; densities are computed in float32 or float64: convert them")
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau = {tau}; expected a finite value above 0")
    real_anchors = rest[0] if rest else real
    for side, points, rows, anchors in (
        ("real", at_real, real, real_anchors),
        ("fake", at_fake, fake, fake),
    ):
        if not 0 <= points <= min(len(rows), len(anchors)):
            raise ValueError(
                f"{points} {side} points: expected at most the {len(rows)} rows and the {len(anchors)} anchors"
            )
        if points and len(anchors) < 2:
            raise ValueError(
                f"one {side} sample: leave-one-out takes it away from its own density, and no anchor is left; "
                "give two or more"
            )
        if not len(anchors):
            raise ValueError(f"no {side} anchors: the density needs at least one")


def _turned(product: Product) -> Product:
    """The same sums as rows, where only columns are wanted."""
    if product.rows or product.within:
        return product
    return Product(product.right, product.left, product.columns)


def _pairs(products: Sequence[Product], tensors: Sequence[Tensor]) -> int:
    """The largest number of pairs of a point and an anchor in a product."""
    return max(
        (max(p.rows, p.columns) * max(len(tensors[p.left]), len(tensors[p.right])) for p in products), default=0
    )


def _names(products: Sequence[Product]) -> list[tuple[int, int]]:
    """(points, anchors) of each result of :func:`log_sums`."""
    names = []
    for product in products:
        names.append((product.left, product.right))
        if product.columns:
            names.append((product.right, product.left))
    return names
