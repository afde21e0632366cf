"""The contract of every method, for both methods and the options that change what they declare."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "icr": Subject("icr"),
    "icr, clean features": Subject(
        "icr", options={"icr.on": "clean", "icr.output": "pooled", "icr.reduction": "sum"}
    ),
    "zcr on points": Subject(
        "icr",
        options={"icr.lambda_real": 0.0, "icr.lambda_fake": 0.0, "icr.gen_bound": 0.1},
        companions=("nonsaturating",),
        network="mlp",
    ),
    "cr": Subject("cr"),
}

SLOW = {"zcr on points", "icr, clean features"}
CASES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SUBJECTS]


@pytest.mark.parametrize("subject", CASES)
@pytest.mark.parametrize("rule", RULES)
def test_contract(rule: str, subject: str) -> None:
    check(rule, SUBJECTS[subject])
