"""A registry that knows the prototypes, and tiny runs of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import gancore
from gancore import checkpoint
from gancore.api import MethodSpec, hookimpl
from gancore.assembly import Session, assemble
from gancore.config import resolve
from gancore.plugin_manager import Origin, Registry, discover
from gancore.run import Run
from prototypes import ada, augself, cnlsgan, icr, kdd

PROTOTYPES: tuple[ModuleType, ...] = (ada, augself, cnlsgan, icr, kdd)

KDD_FULL = {"kdd.anchors": 2, "kdd.lam_jac": 1e-5}
KDD_TERM = {"kdd.as_term": True, **KDD_FULL}
ADA_FAST = {"ada.p": 0.5, "ada.every": 2, "ada.kimg": 0.1}


class _Plugin:
    @hookimpl
    def register_methods(self, register: Callable[[MethodSpec], None]) -> None:
        for module in PROTOTYPES:
            register(module.SPEC)


def registry() -> Registry:
    """Everything installed and the five prototypes."""
    found = discover()
    found.register(_Plugin(), Origin("prototypes", "0"))
    return found


def config(plugins: str, **options: Any) -> dict[str, Any]:
    """A tiny run; ``plugins`` as one string."""
    names = plugins.split()
    return {
        "plugins": names,
        "data.source": "digits",
        "network.name": "dcgan",
        "network.g_width": 8,
        "network.d_width": 8,
        "train.batch": 8,
        "train.steps": 3,
        "compute.device": "cpu",
        "output.log_every": 1,
        "output.grid": 4,
        "output.snap": 2,
        **(ADA_FAST if "ada" in names else {}),
        **options,
    }


class Lab:
    """Trains configurations below one folder."""

    def __init__(self, known: Registry, folder: Path) -> None:
        self.registry = known
        self.folder = folder
        self._count = itertools.count()

    def train(self, plugins: str, **options: Any) -> Run:
        return gancore.train(
            config(plugins, **options), registry=self.registry, outdir=self.folder / f"run{next(self._count)}"
        )

    def assemble(self, plugins: str, **options: Any) -> Session:
        return assemble(resolve(self.registry, [("test", config(plugins, **options))]), self.registry)


def final_tensors(run: Run) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    return checkpoint.load_latest(run.folder.checkpoints).tensors


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not bit-equal."""
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]
