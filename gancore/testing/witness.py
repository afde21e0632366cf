"""A method that only draws, and writes down what a method sees; it is put beside the one that is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gancore.api import Declaration, Method, MethodSpec, RunContext, Step, hookimpl

NAME = "contract-witness"
SPEC = MethodSpec(
    name=NAME, summary="Writes down draws, for the contract.", target="gancore.testing.witness:Witness"
)


class Witness(Method):
    """``seen`` holds, in order: phase, step, critic, and the tensors of the draws by name."""

    def __init__(self, spec: MethodSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.seen: list[tuple[str, int, int, dict[str, Tensor]]] = []

    @hookimpl
    def declare(self, plan: Declaration) -> None:
        plan.watch("d", reads={"real_raw": ("images",)})
        plan.watch("g", reads={"real_raw": ("images",)})

    @hookimpl
    def setup(self, run: RunContext) -> None:
        run.add_module("initial", nn.Linear(5, 5))

    @hookimpl
    def after_d_step(self, step: Step) -> None:
        self._write(step)

    @hookimpl
    def after_g_step(self, step: Step) -> None:
        self._write(step)

    def _write(self, step: Step) -> None:
        found: dict[str, Tensor | None] = {
            "real images": step.images["real_raw"],
            "latents": step.latents,
            "labels of reals": step.labels["real"],
            "labels of fakes": step.labels["fake"],
            "indices": step.indices,
            "draws of another method": step.rng().normal(4),
        }
        keep: Callable[[Tensor], Tensor] = lambda value: value.detach().clone()  # noqa: E731
        tensors = {name: keep(value) for name, value in found.items() if value is not None}
        self.seen.append((step.phase, step.index, step.critic, tensors))
