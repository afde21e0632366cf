"""The contract that every method keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from gancore.testing.contract import RULES, Subject, check


@pytest.mark.parametrize("rule", RULES)
def test_contract(rule: str, cache: Path) -> None:
    options = {"fidelity.cache": str(cache), "fidelity.samples": 64, "fidelity.references": 64}
    reason = check(rule, Subject("fidelity", options))
    if reason:
        pytest.skip(reason)
