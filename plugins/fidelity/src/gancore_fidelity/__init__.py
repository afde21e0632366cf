"""Metrics for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import MethodSpec, hookimpl
from gancore_fidelity.options import FidelityOptions

SPEC = MethodSpec(
    name="fidelity",
    summary="FID, KID, precision and recall, memorisation and more, each score with how it was measured.",
    target="gancore_fidelity.method:Fidelity",
    options=FidelityOptions,
    reference="Heusel et al., NeurIPS 2017, arXiv:1706.08500; the others stand on the card",
    observer=True,
)


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    register(SPEC)
