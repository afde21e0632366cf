"""What comes with gancore: methods, networks, operations, sinks, through the hooks that any plugin uses."""

from __future__ import annotations

from collections.abc import Callable

from gancore.builtins import options
from gancore.hookspecs import hookimpl
from gancore.networks.builtin import BUILTIN as NETWORKS
from gancore.networks.spec import NetworkSpec
from gancore.ops.core import LIBRARY
from gancore.ops.library import OpLibrary
from gancore.sinks import SinkSpec
from gancore.specs import Claims, Clash, MethodSpec, Need

DEFAULT_OBJECTIVE = "nonsaturating"
"""Taken when no named method claims the objective."""


def _objective(name: str, *tags: str) -> Callable[..., Claims]:
    claims = Claims(
        exclusive={"objective": f"drop -p {name}"},
        offers=frozenset({"margin", "scalar-logit"}),
        tags=frozenset(tags),
    )
    return lambda chosen: claims


def _wasserstein(chosen: options.WassersteinOptions) -> Claims:
    return Claims(
        exclusive={"objective": "drop -p wgan"},
        offers=frozenset({"scalar-logit"}),
        tags=frozenset({"clips-weights"}) if chosen.clip else frozenset(),
    )


_LOGIT = Need(
    "scalar-logit", "it differentiates D's logit, and the objective trains none; name an objective of logits"
)


def _interpolated(chosen: options.GradientPenaltyOptions) -> Claims:
    return Claims(
        exclusive={"penalty:interpolated": "drop -p gp"},
        clashes=(Clash("clips-weights", "the penalty stands in for clipping D's weights: set wgan.clip = 0"),),
        needs=(
            Need(
                "d:uncoupled",
                "the penalty is on each sample's own gradient, which batch statistics in D mix; "
                "choose a network without BatchNorm in D",
            ),
            _LOGIT,
        ),
    )


def _zero_centred(chosen: options.ZeroCentredOptions) -> Claims:
    return Claims(needs=(_LOGIT,))


METHODS = (
    MethodSpec(
        name="nonsaturating",
        summary="Non-saturating logistic loss, the default objective.",
        target="gancore.builtins.objectives:NonSaturating",
        claims=_objective("nonsaturating"),
        reference="Goodfellow et al., 2014, arXiv:1406.2661",
        tested_with=("gp", "r1", "r2"),
    ),
    MethodSpec(
        name="hinge",
        summary="Hinge loss for D, the raw logit for G.",
        target="gancore.builtins.objectives:Hinge",
        claims=_objective("hinge", "fixed-targets"),
        reference="Lim and Ye, 2017, arXiv:1705.02894",
        tested_with=("gp", "r1", "r2"),
    ),
    MethodSpec(
        name="lsgan",
        summary="Least squares towards a target for real and one for fake.",
        target="gancore.builtins.objectives:LeastSquares",
        options=options.LeastSquaresOptions,
        claims=_objective("lsgan", "fixed-targets"),
        reference="Mao et al., 2017, arXiv:1611.04076",
        tested_with=("gp", "r1", "r2"),
    ),
    MethodSpec(
        name="wgan",
        summary="Wasserstein loss, with weight clipping.",
        target="gancore.builtins.objectives:Wasserstein",
        options=options.WassersteinOptions,
        claims=_wasserstein,
        reference="Arjovsky et al., 2017, arXiv:1701.07875",
        tested_with=("r1", "r2"),
    ),
    MethodSpec(
        name="relativistic",
        summary="How much more real a real is than a fake; paired by default (RpGAN).",
        target="gancore.builtins.objectives:Relativistic",
        options=options.RelativisticOptions,
        claims=_objective("relativistic"),
        reference="Jolicoeur-Martineau, 2018, arXiv:1807.00734",
        tested_with=("gp", "r1", "r2"),
    ),
    MethodSpec(
        name="r1",
        summary="Squared gradient of D on reals.",
        target="gancore.builtins.penalties:R1",
        options=options.ZeroCentredOptions,
        claims=_zero_centred,
        reference="Mescheder et al., 2018, arXiv:1801.04406",
        tested_with=("gp", "hinge", "lsgan", "nonsaturating", "r2", "relativistic", "wgan"),
    ),
    MethodSpec(
        name="r2",
        summary="Squared gradient of D on fakes.",
        target="gancore.builtins.penalties:R2",
        options=options.ZeroCentredOptions,
        claims=_zero_centred,
        reference="Mescheder et al., 2018, arXiv:1801.04406",
        tested_with=("gp", "hinge", "lsgan", "nonsaturating", "r1", "relativistic", "wgan"),
    ),
    MethodSpec(
        name="gp",
        summary="Gradient norm of D pulled to 1 between reals and fakes (WGAN-GP's penalty).",
        target="gancore.builtins.penalties:GradientPenalty",
        options=options.GradientPenaltyOptions,
        claims=_interpolated,
        reference="Gulrajani et al., 2017, arXiv:1704.00028",
        tested_with=("hinge", "lsgan", "nonsaturating", "r1", "r2", "relativistic"),
    ),
)

SINKS = (
    SinkSpec(
        name="tensorboard",
        summary="Event files in RUN/tensorboard, for TensorBoard.",
        target="gancore.builtins.sinks:TensorBoard",
        requires=("tensorboard",),
        install="gancore[tensorboard]",
    ),
    SinkSpec(
        name="wandb",
        summary="A run of Weights & Biases, set up as for any program: wandb login, WANDB_PROJECT, WANDB_MODE.",
        target="gancore.builtins.sinks:WeightsAndBiases",
        requires=("wandb",),
        install="gancore[wandb]",
    ),
)


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    for spec in METHODS:
        register(spec)


@hookimpl
def register_networks(register: Callable[[NetworkSpec], None]) -> None:
    for spec in NETWORKS:
        register(spec)


@hookimpl
def register_ops(register: Callable[[OpLibrary], None]) -> None:
    register(LIBRARY)


@hookimpl
def register_sinks(register: Callable[[SinkSpec], None]) -> None:
    for spec in SINKS:
        register(spec)
