"""ICR (bCR and zCR) and CR for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import Claims, MethodSpec, Need, hookimpl
from gancore_icr.options import CrOptions, IcrOptions


def icr_claims(options: IcrOptions) -> Claims:
    """What ICR claims for its active terms; a term of weight 0 claims and needs nothing."""
    balanced = bool(options.lambda_real or options.lambda_fake)
    tags = {"invariant:translation"} if balanced and options.translates else set()
    if options.lambda_gen:
        tags.add("spreads-fakes")
    needs = []
    if balanced:
        needs.append(
            Need(
                "data:image",
                "bCR flips and shifts images; for points set icr.lambda_real = 0 and icr.lambda_fake = 0, which "
                "leaves zCR",
            )
        )
    if balanced or options.lambda_dis:
        needs.append(_output_need("icr", options.output))
    return Claims(
        exclusive={"consistency:real": "set icr.lambda_real = 0"} if options.lambda_real else {},
        tags=frozenset(tags),
        needs=tuple(needs),
    )


def cr_claims(options: CrOptions) -> Claims:
    """What CR claims: consistency on reals, which counts once."""
    if not options.lambda_real:
        return Claims()
    return Claims(
        exclusive={"consistency:real": "drop -p cr"},
        tags=frozenset({"invariant:translation"}) if options.translates else frozenset(),
        needs=(Need("data:image", "it flips and shifts images: drop -p cr"), _output_need("cr", options.output)),
    )


def _output_need(method: str, output: str) -> Need:
    if output == "logits":
        return Need(
            "scalar-logit",
            f"{method}.output = logits compares logits; name an objective of logits, or set {method}.output to a "
            "tap: pooled, or one that the objective offers",
        )
    return Need(
        f"tap:{output}", f"{method}.output compares D there; set {method}.output to logits or a tap that D has"
    )


ICR = MethodSpec(
    name="icr",
    summary="D agrees on an image and its small changes (bCR) and on neighbouring latents (zCR).",
    target="gancore_icr.method:Icr",
    options=IcrOptions,
    claims=icr_claims,
    reference="Zhao et al., AAAI 2021, arXiv:2002.04724, Improved Consistency Regularization for GANs",
    tested_with=(
        "ada",
        "adaptivemix",
        "augself",
        "cnlsgan",
        "diffaugment",
        "gp",
        "hinge",
        "kdd",
        "lsgan",
        "nonsaturating",
        "r1",
        "r2",
        "relativistic",
        "wgan",
    ),
)

CR = MethodSpec(
    name="cr",
    summary="D agrees on a real image and its small changes.",
    target="gancore_icr.method:Cr",
    options=CrOptions,
    claims=cr_claims,
    reference="Zhang et al., ICLR 2020, arXiv:1910.12027, Consistency Regularization for Generative Adversarial "
    "Networks",
    tested_with=(
        "ada",
        "adaptivemix",
        "augself",
        "cnlsgan",
        "diffaugment",
        "gp",
        "hinge",
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
    register(ICR)
    register(CR)
