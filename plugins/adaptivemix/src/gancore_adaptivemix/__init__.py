"""AdaptiveMix for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import SCORES, Claims, Clash, MethodSpec, Need, hookimpl
from gancore.ops import OpLibrary
from gancore_adaptivemix.library import LIBRARY
from gancore_adaptivemix.options import AdaptiveMixOptions

TWICE = Clash(
    "fixed-targets",
    "the sum of two logits is compared with targets that are made for one; adaptivemix.adv_on = mixed_mean keeps "
    "their scale",
)


def claims(options: AdaptiveMixOptions) -> Claims:
    """What AdaptiveMix claims: nothing exclusive unless the adversarial loss is taken on mixed samples."""
    needs = [
        Need(
            f"tap:{options.tap}",
            "it shrinks features of D there; set adaptivemix.tap to a tap that D has, or name the method that "
            "derives it",
        )
    ]
    if options.adv_on == "clean":
        return Claims(needs=tuple(needs))
    needs.append(
        Need(
            "scalar-logit",
            "adv_on = mixed sums logits of mixed samples; name an objective of logits, or set "
            "adaptivemix.adv_on = clean",
        )
    )
    return Claims(
        exclusive={SCORES: "set adaptivemix.adv_on = clean"},
        tags=frozenset({"mixes-scores"}),
        cautions=(TWICE,) if options.adv_on == "mixed_sum" else (),
        needs=tuple(needs),
    )


SPEC = MethodSpec(
    name="adaptivemix",
    summary="Pull D's features of mixed samples towards mixed features.",
    target="gancore_adaptivemix.method:AdaptiveMix",
    options=AdaptiveMixOptions,
    claims=claims,
    reference="Liu et al., CVPR 2023, AdaptiveMix: Improving GAN Training via Feature Space Shrinkage",
    tested_with=(
        "ada",
        "augself",
        "cnlsgan",
        "cr",
        "diffaugment",
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
