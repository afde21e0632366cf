"""Fused operations: what an author declares, what is built, what a run uses.

An operation has a reference path in plain torch, which is its definition, and may have fused paths in C++ and
CUDA. Their sources ship in the package of the plugin that owns them; nothing is compiled at import or at first
use: ``gan ops build`` does it, once a machine. ``docs/ops.md`` shows the whole of a plugin's operation.

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import Any

from gancore.ops.library import MODES, OpLibrary

__all__ = ["MODES", "OpLibrary", "bias_act", "define", "ready", "upfirdn2d", "using"]

_HOMES = {
    **{name: "gancore.ops.runtime" for name in ("define", "ready", "using")},
    "bias_act": "gancore.ops.activation",
    "upfirdn2d": "gancore.ops.resampling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
