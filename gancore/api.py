"""The only module of the core that plugins import (besides ``gancore.testing``).

Importing it does not import torch, so that a plugin's package can register its spec at no cost; names that
need torch are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gancore.declaration import Declaration, Penalty
from gancore.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    DivergedError,
    GancoreError,
    PluginError,
    nearest,
)
from gancore.hookspecs import hookimpl
from gancore.method import LossTerms, Method, merge_reads
from gancore.networks.spec import NetworkSpec, TapSpec
from gancore.options import Options, option
from gancore.sinks import Sink, SinkRun, SinkSpec
from gancore.specs import HOOK_API, OBJECTIVE, SCORES, Claims, Clash, MethodSpec, Need

if TYPE_CHECKING:
    from gancore.augment import Augment as Augment
    from gancore.builtins.penalties import gradient_norm as gradient_norm
    from gancore.builtins.penalties import interpolate as interpolate
    from gancore.builtins.penalties import zero_centred as zero_centred
    from gancore.metrics import Samples as Samples
    from gancore.metrics import Score as Score
    from gancore.networks.protocols import Discriminator as Discriminator
    from gancore.networks.protocols import Generator as Generator
    from gancore.randomness import Rng as Rng
    from gancore.run_context import RunContext as RunContext
    from gancore.step import DOutput as DOutput
    from gancore.step import Step as Step
    from gancore.step import StepKey as StepKey

_LAZY = {
    "Augment": "gancore.augment",
    "DOutput": "gancore.step",
    "Discriminator": "gancore.networks.protocols",
    "Generator": "gancore.networks.protocols",
    "Rng": "gancore.randomness",
    "RunContext": "gancore.run_context",
    "Samples": "gancore.metrics",
    "Score": "gancore.metrics",
    "Step": "gancore.step",
    "StepKey": "gancore.step",
    "gradient_norm": "gancore.builtins.penalties",
    "interpolate": "gancore.builtins.penalties",
    "zero_centred": "gancore.builtins.penalties",
}

__all__ = [
    "HOOK_API",
    "OBJECTIVE",
    "SCORES",
    "Augment",
    "CheckpointError",
    "Claims",
    "Clash",
    "ConfigError",
    "DOutput",
    "DataError",
    "Declaration",
    "DeviceError",
    "Discriminator",
    "DivergedError",
    "GancoreError",
    "Generator",
    "LossTerms",
    "Method",
    "MethodSpec",
    "Need",
    "NetworkSpec",
    "Options",
    "Penalty",
    "PluginError",
    "Rng",
    "RunContext",
    "Samples",
    "Score",
    "Sink",
    "SinkRun",
    "SinkSpec",
    "Step",
    "StepKey",
    "TapSpec",
    "gradient_norm",
    "hookimpl",
    "interpolate",
    "merge_reads",
    "nearest",
    "option",
    "zero_centred",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gancore.api' has no attribute {name!r}")
