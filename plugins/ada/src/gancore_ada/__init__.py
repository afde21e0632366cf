"""ADA for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import Claims, Clash, MethodSpec, Need, hookimpl
from gancore.ops import OpLibrary
from gancore_ada.library import LIBRARY
from gancore_ada.options import LEAKS_ABOVE, AdaOptions


def claims(options: AdaOptions) -> Claims:
    """What ADA claims; nothing when its p is fixed at 0 or no op takes part."""
    if not options.acts:
        return Claims(warnings=_warnings(options))
    needs = [Need("data:image", "it augments images; drop -p ada")]
    if options.adapts:
        needs.append(
            Need(
                "margin",
                "p follows the sign of the objective's margin on reals; set ada.target = 0 and a fixed ada.p, or "
                "name an objective with a margin (nonsaturating, hinge, lsgan, relativistic)",
            )
        )
    return Claims(
        exclusive={"augment:ada": "drop -p ada, or set ada.target = 0 and ada.p = 0"},
        tags=frozenset({"augments-scored-images", "hides-parameters"}),
        needs=tuple(needs),
        cautions=(
            Clash(
                "augments-scored-images",
                "both augment the images that D judges, one after the other in the order of -p; drop one of "
                "them unless that is meant",
            ),
        ),
        warnings=_warnings(options),
    )


def _warnings(options: AdaOptions) -> tuple[str, ...]:
    found = []
    if not any(options.multipliers().values()):
        found.append("every multiplier is 0, so nothing is augmented; choose a pipe with ada.preset")
    elif options.debug_percentile > 0:
        found.append(
            f"ada.debug_percentile = {options.debug_percentile:g} is for tests: every image is augmented alike, "
            "whatever p is"
        )
    elif not options.adapts and options.p > LEAKS_ABOVE:
        found.append(
            f"ada.p = {options.p:g} is fixed above {LEAKS_ABOVE:g}, where augmentations are likely to leak into "
            "what G makes; lower it, or let it adapt with ada.target = 0.6"
        )
    return tuple(found)


SPEC = MethodSpec(
    name="ada",
    summary="Augment what D sees, as strongly as D is too sure of the reals.",
    target="gancore_ada.method:Ada",
    options=AdaOptions,
    claims=claims,
    reference="Karras et al., 2020, arXiv:2006.06676",
    tested_with=(
        "adaptivemix",
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
    ),
)


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    register(SPEC)


@hookimpl
def register_ops(register: Callable[[OpLibrary], None]) -> None:
    register(LIBRARY)
