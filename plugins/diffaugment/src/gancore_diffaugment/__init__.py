"""DiffAugment for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import Claims, MethodSpec, Need, hookimpl
from gancore.ops import OpLibrary
from gancore_diffaugment.library import LIBRARY
from gancore_diffaugment.options import DiffAugmentOptions


def claims(options: DiffAugmentOptions) -> Claims:
    """It augments what the objective judges; nothing at all when no operation can change an image."""
    if options.idle:
        return Claims()
    return Claims(
        exclusive={"augment:diffaugment": "drop -p diffaugment"},
        tags=frozenset({"augments-scored-images"}),
        needs=(Need("data:image", "it augments images; drop -p diffaugment"),),
    )


SPEC = MethodSpec(
    name="diffaugment",
    summary="Differentiable colour, translation and cutout in front of D, for reals and fakes.",
    target="gancore_diffaugment.method:DiffAugment",
    options=DiffAugmentOptions,
    claims=claims,
    reference="Zhao et al., NeurIPS 2020, Differentiable Augmentation for Data-Efficient GAN Training",
    tested_with=(
        "ada",
        "adaptivemix",
        "cnlsgan",
        "cr",
        "gp",
        "hinge",
        "icr",
        "kdd",
        "lsgan",
        "nonsaturating",
        "r1",
        "r2",
        "relativistic",
        "wgan",
    ),
)


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    register(SPEC)


@hookimpl
def register_ops(register: Callable[[OpLibrary], None]) -> None:
    register(LIBRARY)
