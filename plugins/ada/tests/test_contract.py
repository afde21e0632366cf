"""The contract that every method keeps, for an adapting and for a fixed strength."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "adapting": Subject("ada", options={"ada.p": 0.5, "ada.kimg": 0.1}),
    "fixed, all ops": Subject(
        "ada", options={"ada.preset": "bgcfnc", "ada.target": 0.0, "ada.p": 0.7}, companions=("hinge", "r1")
    ),
    "exact, without a margin": Subject(
        "ada", options={"ada.blit": "exact", "ada.target": 0.0, "ada.p": 0.7}, companions=("wgan",)
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "subject", [name if name == "adapting" else pytest.param(name, marks=pytest.mark.slow) for name in SUBJECTS]
)
def test_contract(rule: str, subject: str) -> None:
    reason = check(rule, SUBJECTS[subject])
    if reason:
        pytest.skip(reason)
