"""ADA, rough: flip, whole-pixel shift, brightness and contrast, each gated per sample with probability p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from gancore.api import (
    Augment,
    Claims,
    Declaration,
    Method,
    MethodSpec,
    Need,
    Options,
    RunContext,
    Step,
    hookimpl,
    option,
)
from prototypes import pixelops


@dataclass(frozen=True, kw_only=True)
class AdaOptions(Options):
    """``ada``."""

    p: float = option(0.0, help="Strength at the start.", minimum=0, maximum=1)
    target: float = option(0.6, help="E[sign(margin)] on reals to hold; 0 keeps p fixed.")
    every: int = option(4, help="Updates of D between updates of p.", minimum=1)
    kimg: float = option(500.0, help="Thousand images in which p can go from 0 to 1.", above=0)
    p_max: float = option(1.0, help="Upper bound of p.", above=0, maximum=1)


class Pipe(nn.Module):
    """The state of the controller, and the link of the chain.

    ``nn.Module`` has an ``apply`` of its own, so the link is the object below and not this module.
    """

    p: Tensor
    signs: Tensor
    rows: Tensor
    updates: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p))
        self.register_buffer("signs", torch.tensor(0.0))
        self.register_buffer("rows", torch.tensor(0.0))
        self.register_buffer("updates", torch.tensor(0))

    def adjust(self, margin: Tensor, *, target: float, every: int, speed: float, p_max: float) -> None:
        """Accumulate the signs of a batch; every ``every`` calls move p. No host sync and no branch."""
        self.signs += torch.nan_to_num(margin).sign().sum()
        self.rows += len(margin)
        self.updates += 1
        due = self.updates >= every
        mean = self.signs / self.rows
        moved = (self.p + (mean - target).sign() * speed).clamp(0, p_max)
        self.p.copy_(torch.where(due, moved, self.p))
        for buffer in (self.signs, self.rows, self.updates):
            buffer.copy_(torch.where(due, torch.zeros_like(buffer), buffer))


class Link:
    """xflip, shift, contrast, brightness."""

    sides = ("real", "fake")

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Gates are resolved here, against p as it is now."""
        batch, _, height, width = shape
        rng = step.rng(side)
        gates = rng.uniform(batch, 4) < self.pipe.p
        coin = rng.uniform(batch) < 0.5
        size = torch.tensor([height, width], device=step.device)
        shift = ((rng.uniform(batch, 2) * 2 - 1) * 0.125 * size).round().to(torch.int64)
        normal = rng.normal(batch, 2)
        return {
            "flip": gates[:, 0] & coin,
            "shift": shift * gates[:, 1, None],
            "contrast": torch.where(gates[:, 2], torch.exp2(normal[:, 0] * 0.5), 1.0),
            "brightness": torch.where(gates[:, 3], normal[:, 1] * 0.2, 0.0),
        }

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        """Pure; linear in the images up to an offset."""
        images = pixelops.flip(images, draw["flip"])
        images = pixelops.shift_reflect(images, *draw["shift"].unbind(1))
        contrast, brightness = (draw[name].to(images.dtype) for name in ("contrast", "brightness"))
        return images * pixelops.per_sample(contrast) + pixelops.per_sample(brightness)


class Ada(Method):
    """``-p ada``."""

    options: AdaOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        if self.options.target:
            plan.watch("d", margins=("real",))

    @hookimpl
    def setup(self, run: RunContext) -> None:
        self._speed = run.batch * self.options.every / (self.options.kimg * 1000)
        self._pipe = cast(Pipe, run.add_module("pipe", Pipe(self.options.p)))

    @hookimpl
    def augment(self, run: RunContext) -> Augment | None:
        chosen = self.options
        return None if chosen.p == 0 and not chosen.target else Link(self._pipe)

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        if step.phase != "d" or not self.options.target:
            return
        chosen = self.options
        self._pipe.adjust(
            step.margin("real"),
            target=chosen.target,
            every=chosen.every,
            speed=self._speed,
            p_max=chosen.p_max,
        )
        step.log(p=self._pipe.p)


def claims(options: Any) -> Claims:
    needs = [Need("data:image", "it augments images")]
    if options.target:
        needs.append(
            Need("margin", "p follows the sign of the margin; name another objective or set ada.target = 0")
        )
    return Claims(tags=frozenset({"augments"}), needs=tuple(needs))


SPEC = MethodSpec(
    name="ada",
    summary="Adaptive discriminator augmentation (rough).",
    target=f"{__name__}:Ada",
    options=AdaOptions,
    claims=claims,
)
