"""KDD GAN for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import OBJECTIVE, Claims, Clash, MethodSpec, Need, hookimpl
from gancore_kdd.options import KddOptions

FLAT_TAU = 2.0
SHARP_TAU = 0.2
NEAREST_TAU = 0.05


def claims(options: KddOptions) -> Claims:
    """The objective, unless ``as_term``; in both cases the taps ``kdd.phi_un`` and ``kdd.phi``."""
    needs = [Need(f"tap:{options.tap}", "W reads features of D there; set kdd.tap to a tap that D has")]
    if options.anchors or options.copies_in_g:
        needs.append(
            Need("data:image", "its anchors are augmented images; set kdd.anchors = 0 and kdd.anchors_in_g = 0")
        )
    offers = {"tap:kdd.phi_un", "tap:kdd.phi"}
    clashes = [
        Clash(
            "mixes-scores",
            "a kernel density compares samples one by one, and mixed scores are none; make the other judge clean "
            "images (adaptivemix.adv_on = clean)",
        )
    ]
    exclusive = {}
    if not options.as_term:
        exclusive[OBJECTIVE] = "drop -p kdd, or set kdd.as_term = true to train jointly"
        offers.add("margin")
        if not options.augmented:
            clashes.append(
                Clash(
                    "augments-scored-images",
                    "KDD is evaluated on clean images, so the augmentation would do nothing; set "
                    "kdd.augmented = true to evaluate the augmented ones, set kdd.as_term = true beside "
                    "another objective, or drop the augmentation",
                )
            )
    return Claims(
        exclusive=exclusive,
        clashes=tuple(clashes),
        needs=tuple(needs),
        offers=frozenset(offers),
        warnings=_warnings(options),
    )


def _warnings(options: KddOptions) -> tuple[str, ...]:
    found = []
    bound = 2 / options.tau
    if options.tau >= FLAT_TAU:
        found.append(
            f"kdd.tau = {options.tau:g}: unit features bound the log-ratio by 2 / tau = {bound:g}, so the hinge "
            "never saturates and, without a class term, D's loss stays between "
            f"{2 - 2 * bound:g} and {2 + 2 * bound:g}; the paper's tau is 1"
        )
    if options.tau < SHARP_TAU and (options.anchors or options.copies_in_g):
        found.append(
            f"kdd.tau = {options.tau:g} with augmented anchors: an image's own copies stay among its anchors and "
            "outweigh all others, the log-ratio (bounded by 2 / tau = "
            f"{bound:g}) passes 1, and the hinge has no gradient; take tau near 1, or kdd.anchors = 0"
        )
    elif options.tau < NEAREST_TAU:
        found.append(
            f"kdd.tau = {options.tau:g}: the densities are decided by the nearest anchor alone, the log-ratio "
            f"(bounded by 2 / tau = {bound:g}) passes 1 at most samples, and there the hinge has no gradient; "
            "take tau near 1"
        )
    if options.lambda_jac and options.anchors and not options.as_term:
        found.append(
            "kdd.lambda_jac with kdd.anchors and no other objective: the paper's run of this on ImageNet-64 "
            "diverged (FID 79.8); the Jacobian term helped beside another objective (kdd.as_term = true)"
        )
    return tuple(found)


SPEC = MethodSpec(
    name="kdd",
    summary="Judge samples by the ratio of two kernel densities of D's features.",
    target="gancore_kdd.method:Kdd",
    options=KddOptions,
    claims=claims,
    reference="Lemkhenter et al., 2021, arXiv:2107.06197, Generative Adversarial Learning via Kernel Density "
    "Discrimination",
    tested_with=(
        "ada",
        "adaptivemix",
        "augself",
        "cnlsgan",
        "cr",
        "diffaugment",
        "gp",
        "hinge",
        "icr",
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
