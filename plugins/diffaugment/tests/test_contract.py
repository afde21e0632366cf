"""The contract that every method keeps."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "default": Subject("diffaugment"),
    "another order, with r1": Subject(
        "diffaugment", options={"diffaugment.policy": "cutout,translation,contrast"}, companions=("hinge", "r1")
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "subject", [name if name == "default" else pytest.param(name, marks=pytest.mark.slow) for name in SUBJECTS]
)
def test_contract(rule: str, subject: str) -> None:
    reason = check(rule, SUBJECTS[subject])
    if reason:
        pytest.skip(reason)
