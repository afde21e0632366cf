"""The contract of every method, for the objective and for its parts beside another one."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "objective": Subject("cnlsgan"),
    "extras, decaying": Subject(
        "cnlsgan", options={"cnlsgan.adv": False, "cnlsgan.rec_decay": "cosine"}, companions=("hinge",)
    ),
    "points": Subject("cnlsgan", network="mlp"),
}

SLOW = {"points"}
CASES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SUBJECTS]


@pytest.mark.parametrize("subject", CASES)
@pytest.mark.parametrize("rule", RULES)
def test_contract(rule: str, subject: str) -> None:
    check(rule, SUBJECTS[subject])
