"""AugSelf-GAN for gancore. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from gancore.api import Claims, Clash, MethodSpec, Need, hookimpl
from gancore_augself.options import AugSelfOptions
from gancore_diffaugment.policy import WORDS


def claims(options: AugSelfOptions) -> Claims:
    """It brings DiffAugment itself, and must know everything that lies between the two features it compares."""
    exclusive = {"augment:diffaugment": "drop -p augself (it brings DiffAugment: set augself.policy instead)"}
    image = Need("data:image", "it augments images; drop -p augself")
    if options.augments_only:
        return Claims(exclusive=exclusive, tags=frozenset({"augments-scored-images"}), needs=(image,))
    predicted = {name for word in options.head_words for name in WORDS[word]}
    cautions = []
    if "translation" in predicted:
        cautions.append(
            Clash(
                "invariant:translation",
                "one asks D to ignore translations, the other to tell them apart; set "
                "icr.transform = flip (cr.transform for cr), or leave translation out of augself.heads",
            )
        )
    warnings = []
    if options.invisible:
        names = ", ".join(options.invisible)
        warnings.append(
            f"its heads predict {names}, which cannot be seen at strength 0; raise the strength, or leave it out "
            "of augself.heads"
        )
    return Claims(
        exclusive=exclusive,
        clashes=(
            Clash(
                "hides-parameters",
                "heads must know how each image was augmented, and this augmentation does not tell; drop it, "
                "since augself augments by itself (augself.policy and strengths, or augself.preset = plus), "
                "or drop -p augself",
            ),
            Clash(
                "augments-scored-images",
                "its heads compare D's features of an image before and after augmentation, and can explain only "
                "what augself applies; drop the other augmentation, or drop -p augself",
            ),
        ),
        cautions=tuple(cautions),
        needs=(
            image,
            Need(f"tap:{options.tap}", "its heads read features of D there; set augself.tap to a tap that D has"),
        ),
        warnings=tuple(warnings),
    )


SPEC = MethodSpec(
    name="augself",
    summary="D predicts how an image was augmented, with the sign reversed for fakes, and G plays against it.",
    target="gancore_augself.method:AugSelf",
    options=AugSelfOptions,
    claims=claims,
    reference="Hou et al., NeurIPS 2023, Augmentation-Aware Self-Supervision for Data-Efficient GAN Training",
    tested_with=(
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
