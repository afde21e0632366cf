"""CN-LSGAN for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import OBJECTIVE, Claims, Clash, MethodSpec, Need, hookimpl
from gancore_cnlsgan.options import CnLsganOptions

SMALLEST_IMAGE = 256
"""Values of the smallest image that gancore trains on, 16x16 in grey."""


def claims(options: CnLsganOptions) -> Claims:
    """What the active parts claim: the objective, the penalty on interpolates, or neither."""
    exclusive: dict[str, str] = {}
    offers: set[str] = set()
    tags: set[str] = set()
    clashes: list[Clash] = []
    needs: list[Need] = []
    cautions: list[Clash] = []
    if options.adv:
        without = " and cnlsgan.lambda_gp = 0 (it needs logits)" if options.lambda_gp else ""
        exclusive[OBJECTIVE] = f"drop -p cnlsgan, or keep its other terms alone: cnlsgan.adv = false{without}"
        offers |= {"margin", "scalar-logit"}
        tags.add("fixed-targets")
    if options.lambda_gp:
        exclusive["penalty:interpolated"] = "set cnlsgan.lambda_gp = 0"
        needs += [
            Need(
                "d:uncoupled",
                "its gradient penalty is on each sample's own gradient, which batch statistics in D mix; choose "
                "a network without BatchNorm in D, or set cnlsgan.lambda_gp = 0",
            ),
            Need(
                "scalar-logit",
                "its gradient penalty differentiates the logit; name an objective of logits, or set "
                "cnlsgan.lambda_gp = 0",
            ),
        ]
        clashes.append(
            Clash("clips-weights", "the gradient penalty stands in for clipping D's weights: set wgan.clip = 0")
        )
    if options.lambda_rec:
        cautions.append(
            Clash(
                "spreads-fakes",
                "opposing forces on G: the reconstruction term pulls every fake to the mean of the data, the "
                "other pushes fakes apart; both are logged. To end it set cnlsgan.lambda_rec = 0 or "
                "cnlsgan.rec_decay = linear",
            )
        )
    return Claims(
        exclusive=exclusive,
        tags=frozenset(tags),
        clashes=tuple(clashes),
        needs=tuple(needs),
        offers=frozenset(offers),
        cautions=tuple(cautions),
        warnings=_warnings(options),
    )


def _warnings(options: CnLsganOptions) -> tuple[str, ...]:
    """From lambda_2 = 1 on fakes may gain more from the mean image than from all that D can say of them.

    In [-1, 1] the reconstruction term is worth up to 1 a pixel, and going from the fake target to the real one is
    worth 1 too.
    """
    if options.reduction == "mean" and options.lambda_rec >= 1:
        return (
            f"lambda_rec = {options.lambda_rec:g} can outweigh the adversarial loss, which is 1 where D is sure: "
            "fakes then gather at the mean image. Lower it, or let it fall with cnlsgan.rec_decay",
        )
    if options.reduction == "sum" and options.lambda_rec * SMALLEST_IMAGE >= 1:
        return (
            f"reduction = sum multiplies lambda_rec = {options.lambda_rec:g} by the values of an image (256 for "
            "16x16 in grey, 3072 for 32x32 RGB), which can outweigh the adversarial loss: fakes then gather at "
            "the mean image. Divide lambda_rec by that number, or set cnlsgan.reduction = mean",
        )
    return ()


SPEC = MethodSpec(
    name="cnlsgan",
    summary="Least squares with a gradient penalty in D and a reconstruction term in G.",
    target="gancore_cnlsgan.method:CnLsgan",
    options=CnLsganOptions,
    claims=claims,
    reference="CN-LSGAN; its least squares are those of Mao et al., 2017, arXiv:1611.04076",
    tested_with=(
        "ada",
        "adaptivemix",
        "augself",
        "cr",
        "diffaugment",
        "icr",
        "kdd",
        "r1",
        "r2",
    ),
)


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    register(SPEC)
