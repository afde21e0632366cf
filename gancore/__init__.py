"""gancore: a small GAN trainer with named hooks; every training method is a plugin, and methods mix.

Importing this package imports neither torch nor pluggy, so that ``gan --help`` stays fast; the names below are
loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gancore.run import Run as Run
    from gancore.run import load as load
    from gancore.run import train as train

_LAZY = {"train": "gancore.run", "load": "gancore.run", "Run": "gancore.run"}

__all__ = ["Run", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gancore' has no attribute {name!r}")
