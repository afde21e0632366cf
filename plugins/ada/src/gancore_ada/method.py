"""ADA in gancore's hooks: one link of the augmentation chain, and the controller of its strength."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gancore.api import Augment, ConfigError, Declaration, Method, RunContext, Step, hookimpl
from gancore_ada import functional
from gancore_ada.options import LEAKS_ABOVE, AdaOptions


class Controller(nn.Module):
    """The strength p, and what has been heard of D since it last moved. All buffers are 0-d and saved.

    Attributes:
        p: the strength. sign: the last mean sign that was heard.
        signs, rows: sum of the signs of the reals' margins since the last move, and their number, over all ranks.
        updates: updates of D since the last move.
    """

    p: Tensor
    sign: Tensor
    signs: Tensor
    rows: Tensor
    updates: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        for name, value in (("p", p), ("sign", 0.0), ("signs", 0.0), ("rows", 0.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))  # the run narrows it
        self.register_buffer("updates", torch.tensor(0))

    @torch.no_grad()
    def hear(
        self, signs: Tensor, rows: Tensor, *, interval: int, target: float, images: float, upper: float
    ) -> None:
        """Take in one update of D; move p when it is the ``interval``-th. The host neither waits nor branches.

        Args:
            signs, rows: of this update, see :func:`~gancore_ada.functional.count_signs`.
            interval, target, images, upper: see :func:`~gancore_ada.functional.next_strength`.
        """
        self.sign.copy_(torch.where(rows > 0, signs / rows.clamp(min=1), self.sign))
        self.signs.add_(signs)
        self.rows.add_(rows)
        self.updates.add_(1)
        due = self.updates >= interval
        moved = functional.next_strength(self.p, self.signs, self.rows, target=target, images=images, upper=upper)
        self.p.copy_(torch.where(due, moved, self.p))
        for heard in (self.signs, self.rows, self.updates):
            heard.mul_((~due).to(heard.dtype))


class Link:
    """The augmentation: draws with the strength of the moment, and applies what was drawn."""

    sides: tuple[str, ...] = ("real", "fake")

    def __init__(self, options: AdaOptions, p: Tensor) -> None:
        self._options = options
        self._multipliers = options.multipliers()
        self._p = p

    def draw(self, step: Step, side: str, shape: tuple[int, ...]) -> Mapping[str, Tensor]:
        """See :func:`gancore_ada.functional.draw`."""
        chosen = self._options
        return functional.draw(
            shape,
            self._p,
            self._multipliers,
            generator=step.rng(side).torch,
            device=step.device,
            dtype=self._p.dtype,
            percentile=chosen.debug_percentile or None,
            blit=chosen.blit,
        )

    def transform(self, images: Tensor, draw: Mapping[str, Tensor]) -> Tensor:
        """See :func:`gancore_ada.functional.apply`."""
        return functional.apply(images, draw)


class Ada(Method):
    """Augments every image that D judges; p follows how many of the reals D takes for real."""

    options: AdaOptions

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        chosen = self.options
        if not chosen.acts:
            return
        if len(plan.shape) == 3 and plan.shape[0] not in (1, 3):
            raise ConfigError(
                f"'ada' augments grey (1) and RGB (3) images; these have {plan.shape[0]} channels: prepare the "
                "set with data.channels = 'rgb' or 'grey', or drop -p ada"
            )
        if chosen.blit == "exact":
            try:
                functional.check_exact(plan.shape, chosen.rotate90 > 0)
            except ValueError as error:
                raise ConfigError(f"ada.blit = 'exact': {error}") from None
        if chosen.adapts:
            plan.watch("d", margins=("real",))

    @hookimpl
    def setup(self, run: RunContext) -> None:
        if self.options.acts:
            self._controller = run.add_module("controller", Controller(self.options.p))

    @hookimpl
    def augment(self, run: RunContext) -> Augment | None:
        return Link(self.options, self._controller.p) if self.options.acts else None

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        chosen = self.options
        if step.phase != "d" or not chosen.adapts:
            return
        heard = step.reduce_sum(torch.stack(functional.count_signs(step.margin("real"))))
        signs, rows = heard.to(self._controller.p.dtype)
        self._controller.hear(
            signs,
            rows,
            interval=chosen.interval,
            target=chosen.target,
            images=chosen.kimg * 1000,
            upper=chosen.upper,
        )
        step.log(p=self._controller.p, sign=self._controller.sign)

    @hookimpl
    def advise(self, values: Mapping[str, float]) -> Mapping[str, str] | None:
        p = values.get("p", 0.0)
        if p <= LEAKS_ABOVE:
            return None
        return {
            "leaks": f"p = {p:.2f}: above {LEAKS_ABOVE:g} augmentations are likely to leak into what G makes; "
            f"set ada.p_max = {LEAKS_ABOVE:g}, lower ada.target, or take more data"
        }
