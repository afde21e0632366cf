"""Walks between latents, and between classes: what lies on the way from one sample to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gancore.errors import ConfigError
from gancore.networks.protocols import Generator
from gancore.sampling import BATCH

Way = Callable[[Tensor, Tensor, float], Tensor]

SMALL_ANGLE = 1e-8
"""In radians: below it the direction from one vector to the other is rounding alone."""

TINY = 1e-300


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The straight way: (1 - t) a + t b, for (..., D) and t in [0, 1].

    Between two Gaussian latents the length falls to 1/sqrt(2) of theirs in the middle, where the generator has
    seen few.
    """
    return torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The way along the sphere: directions on their great circle at even speed, lengths on a straight line.

    With unit vectors u of a and v of b and the angle w between them, the direction is
    sin((1 - t) w)/sin(w) u + sin(t w)/sin(w) v: Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH
    1985; for latents of a GAN White, "Sampling Generative Networks", 2016, arXiv:1609.04468, section 2.1. It is
    computed as cos(t w) u + sin(t w) n, n being the unit vector of v - <u, v> u, which is the same and loses no
    digits at small angles.

    Opposite vectors have no one great circle; the one through a fixed coordinate axis is taken. Where either
    vector is zero, or there is one dimension, no circle exists, and the way is straight.

    Args:
        a, b: (..., D). t: in [0, 1]; 0 and 1 give a and b exactly.

    Returns:
        (..., D), in the type of ``a``; computed in float64.
    """
    if t in (0, 1) or a.shape[-1] < 2:
        return lerp(a, b, t)
    start, end = a.double(), b.double()
    lengths = (
        torch.linalg.vector_norm(start, dim=-1, keepdim=True),
        torch.linalg.vector_norm(end, dim=-1, keepdim=True),
    )
    u, v = start / lengths[0].clamp(min=TINY), end / lengths[1].clamp(min=TINY)
    angle = 2 * torch.atan2(
        torch.linalg.vector_norm(u - v, dim=-1, keepdim=True),
        torch.linalg.vector_norm(u + v, dim=-1, keepdim=True),
    )
    rest = _across(u, v)
    rest = torch.where(
        torch.linalg.vector_norm(rest, dim=-1, keepdim=True) > SMALL_ANGLE, rest, _across(u, _axis(u))
    )
    normal = rest / torch.linalg.vector_norm(rest, dim=-1, keepdim=True).clamp(min=TINY)
    direction = torch.cos(t * angle) * u + torch.sin(t * angle) * normal
    on_sphere = direction * torch.lerp(*lengths, t)
    # Nearly parallel: chord and arc agree to the square of the angle.
    straight = (angle < SMALL_ANGLE) | (lengths[0] == 0) | (lengths[1] == 0)
    return torch.where(straight, lerp(start, end, t), on_sphere).to(a.dtype)


WAYS: dict[str, Way] = {"slerp": slerp, "lerp": lerp}


def _across(u: Tensor, v: Tensor) -> Tensor:
    """The part of v at right angles to the unit vector u; taken twice, so that rounding leaves none along u."""
    once = v - (u * v).sum(-1, keepdim=True) * u
    return once - (u * once).sum(-1, keepdim=True) * u


def _axis(u: Tensor) -> Tensor:
    """The unit vector of the coordinate in which u is smallest: never along u."""
    return nn.functional.one_hot(u.abs().argmin(-1), u.shape[-1]).to(u.dtype)


def ease(t: float) -> float:
    """3 t^2 - 2 t^3: from 0 to 1 with no speed at both ends, so that a walk has no corner at a stop."""
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Walk:
    """P walkers on their way past K stops each.

    Attributes:
        latents: (K, P, D), K of at least 2.
        labels: (K, P) of int64, the class at each stop; None when unconditional.
        frames: pictures from one stop to the next.
        closed: whether the way leads back to the first stop, which is then not repeated at the end. An open one
            ends with a picture of the last stop.
        way: between two stops. smooth: slow down towards every stop (:func:`ease`), else even speed.
    """

    latents: Tensor
    labels: Tensor | None
    frames: int
    closed: bool = True
    way: Way = slerp
    smooth: bool = True

    def __len__(self) -> int:
        """How many pictures there are."""
        stops = len(self.latents)
        return stops * self.frames if self.closed else (stops - 1) * self.frames + 1

    def places(self) -> list[tuple[int, int, float]]:
        """Of every picture: stop before, stop after, share of the way in [0, 1)."""
        stops = len(self.latents)
        numbers = (divmod(index, self.frames) for index in range(len(self)))
        pace = ease if self.smooth else float
        return [(stop, (stop + 1) % stops, pace(frame / self.frames)) for stop, frame in numbers]


@torch.no_grad()
def render(generator: Generator, walk: Walk, device: torch.device) -> Iterator[Tensor]:
    """The pictures of a walk, one at a time; pictures are generated together where few walkers leave room.

    Yields:
        (P, C, H, W) in [-1, 1], or points (P, 2), float32 on the CPU.

    Raises:
        ConfigError: the walk passes from class to class, and this generator has nothing between classes.
    """
    refuse_class_walk(generator, walk, device)
    dtype = next(generator.parameters()).dtype
    walkers = walk.latents.shape[1]
    places = walk.places()
    together = max(1, BATCH // walkers)
    for first in range(0, len(places), together):
        part = places[first : first + together]
        latents = torch.cat([walk.way(walk.latents[i], walk.latents[j], t) for i, j, t in part])
        latents = latents.to(device=device, dtype=dtype)
        if walk.labels is None:
            images = generator(latents)
        else:
            before = torch.cat([walk.labels[i] for i, _, _ in part]).to(device)
            after = torch.cat([walk.labels[j] for _, j, _ in part]).to(device)
            shares = torch.tensor([t for _, _, t in part], device=device, dtype=dtype).repeat_interleave(walkers)
            images = between_classes(generator, latents, before, after, shares)
        yield from images.float().cpu().split(walkers)


def between_classes(
    generator: Generator, latents: Tensor, before: Tensor, after: Tensor, shares: Tensor
) -> Tensor:
    """Generate with the rows of every class embedding on the straight line between two classes.

    It is the category morphing of Miyato and Koyama, "cGANs with Projection Discriminator", 2018,
    arXiv:1802.05637, where the rows are scales and shifts of conditional BatchNorm.

    Args:
        latents: (N, D). before, after: (N,) of int64. shares: (N,) in [0, 1]; 0 is ``before``, 1 is ``after``.

    Returns:
        As the generator's forward.
    """

    def blend(table: nn.Module, inputs: tuple[Tensor, ...], rows: Tensor) -> Tensor | None:
        if inputs[0] is not before:  # not a class: a position, for example
            return None
        return torch.lerp(rows, table.forward(after), shares.to(rows.dtype)[:, None])

    tables = [module for module in generator.modules() if isinstance(module, nn.Embedding)]
    handles = [table.register_forward_hook(blend) for table in tables]
    try:
        images: Tensor = generator(latents, before)
    finally:
        for handle in handles:
            handle.remove()
    return images


def refuse_class_walk(generator: Generator, walk: Walk, device: torch.device) -> None:
    """Find out whether a generator reads its classes through embeddings alone, so that a way lies between them.

    At the end of the way from one class to another the picture has to be, bit for bit, the other class's own.

    Raises:
        ConfigError: the walk passes from class to class, and the generator reads them in another way.
    """
    if walk.labels is None:
        return
    pairs = torch.stack([walk.labels, walk.labels.roll(-1, dims=0)], dim=-1).flatten(0, 1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].to(device)
    if not len(pairs):
        return
    before, after = pairs[:1].unbind(1)  # in one way, as all classes are read in one way
    dtype = next(generator.parameters()).dtype
    latents = walk.latents[0, :1].to(device=device, dtype=dtype)
    reached = between_classes(generator, latents, before, after, torch.ones(1, device=device, dtype=dtype))
    if not torch.equal(reached, generator(latents, after)):
        raise ConfigError(
            f"{type(generator).__name__} does not read classes through torch.nn.Embedding alone, so nothing lies "
            "between two classes; name one class"
        )


def share_out(seeds: Sequence[int], walkers: int, least: int) -> list[list[int]]:
    """The stops of each walker: equal parts of ``seeds``, in order.

    Raises:
        ConfigError: they cannot be shared out, or a walker has fewer than ``least``.
    """
    each, left = divmod(len(seeds), walkers)
    if left or each < least:
        who = "a walk" if walkers == 1 else f"each of the {walkers} tiles"
        given = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}"
        wanted = f"--seeds 0-{walkers * max(each, least, 2) - 1}"
        even = "" if walkers == 1 else ", the same number for each"
        raise ConfigError(f"{given}: {who} needs at least {least}{even}; such as {wanted}")
    return [list(seeds[index * each : (index + 1) * each]) for index in range(walkers)]
