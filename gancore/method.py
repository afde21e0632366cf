"""The base class of every method. Hooks are ordinary methods marked with ``@hookimpl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from gancore.errors import PluginError
from gancore.options import Options
from gancore.specs import MethodSpec

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.step import Step


class LossTerms(dict[str, "Tensor"]):
    """Named raw terms of one method in one phase; 0-d tensors, before any weight."""

    def __init__(self, method: str, terms: Mapping[str, Tensor]) -> None:
        super().__init__(terms)
        self.method = method


class Method:
    """A training method: hooks around pure functions.

    Attributes:
        spec: what it said of itself at registration.
        options: its validated options.
        capturable: False when a hook reads tensor values on the host or allocates new shapes; a run that
            captures steps then falls back to eager execution and says so.
    """

    capturable: ClassVar[bool] = True

    def __init__(self, spec: MethodSpec, options: Any) -> None:
        self.spec = spec
        self.options = options

    @property
    def name(self) -> str:
        """The name that the user writes after ``-p``."""
        return self.spec.name

    def terms(self, **terms: Tensor) -> LossTerms:
        """The return value of a loss hook: raw terms by declared name."""
        return LossTerms(self.name, terms)

    def state_dict(self) -> dict[str, int | float | str | bool]:
        """Plain counters to save beside the modules; tensors belong into ``run.add_module``."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        if state:
            raise PluginError(
                f"checkpoint holds state {sorted(state)} for '{self.name}', which has no load_state_dict"
            )


class Objective(Method):
    """A method that can own the adversarial loss. Claim ``"objective"`` in its spec.

    A subclass reads ``step.scores(side)`` rather than logits, so that a method that claims ``scores`` can
    stand in for D's logits.
    """

    margin_reads: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
        "real": {"real": ("logits",)},
        "fake": {"fake": ("logits",)},
    }
    """For each side, the views and outputs that :meth:`margin` reads."""

    def margin(self, step: Step, side: str) -> Tensor | None:
        """How far D says "real" for each sample of a side, on the objective's own scale; (B,).

        Zero is the objective's own point of indifference. Controllers read this, never raw logits. None when
        the objective has no such point; it must then not offer ``"margin"``.

        Args:
            side: ``"real"`` or ``"fake"``.
        """
        raise NotImplementedError


def merge_reads(*reads: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The union of several ``{view: outputs}`` maps."""
    merged: dict[str, tuple[str, ...]] = {}
    for part in reads:
        for view, outputs in part.items():
            merged[view] = tuple(dict.fromkeys((*merged.get(view, ()), *outputs)))
    return merged


__all__ = ["LossTerms", "Method", "Objective", "Options", "merge_reads"]
