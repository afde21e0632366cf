"""The contract of every method, for both presets and the options that change what is read or drawn."""

from __future__ import annotations

import pytest

from gancore.testing.contract import RULES, Subject, check

SUBJECTS = {
    "paper": Subject("adaptivemix"),
    "official": Subject("adaptivemix", {"adaptivemix.preset": "official"}),
    "official, labels, penalty of the scores": Subject(
        "adaptivemix",
        {"adaptivemix.preset": "official", "data.conditional": True, "r1.output": "scores"},
        companions=("nonsaturating", "r1"),
    ),
    "each sample its own lambda, on points": Subject(
        "adaptivemix",
        {
            "adaptivemix.per_sample_lambda": True,
            "adaptivemix.derange": True,
            "adaptivemix.tap": "pooled",
            "adaptivemix.distance": "l2",
            "adaptivemix.apply_in_g": True,
        },
        network="mlp",
    ),
}

QUICK = {"paper", "official"}
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SUBJECTS]


@pytest.mark.parametrize("subject", CASES)
@pytest.mark.parametrize("rule", RULES)
def test_contract(rule: str, subject: str) -> None:
    check(rule, SUBJECTS[subject])
