"""What every method keeps, for the settings that change KDD's shape."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "objective": Subject("kdd", companions=()),
    "copies": Subject("kdd", options={"kdd.preset": "da3", "kdd.anchors_in_g": 1}, companions=()),
    "jacobian": Subject("kdd", options={"kdd.preset": "jacd"}, companions=()),
    "joint, dagger": Subject(
        "kdd", options={"kdd.preset": "joint_dagger", "kdd.dagger_limit": 1.0, "data.mirror": True}
    ),
    "last, labels": Subject(
        "kdd",
        options={"kdd.reals_in_g": "last", "kdd.projection": "phi_un", "data.conditional": True},
        companions=(),
    ),
}


QUICK = ("objective", "joint, dagger")


@pytest.mark.parametrize(
    "subject", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SUBJECTS]
)
@pytest.mark.parametrize("rule", RULES)
def test_contract(rule: str, subject: str) -> None:
    check(rule, SUBJECTS[subject])
