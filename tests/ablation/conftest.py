from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ablation_for_tests import STEPS, FakeGan, registry_with_gauge

from gancore.ablation import queue
from gancore.ablation.arms import resolve_arms, subsets
from gancore.ablation.jobs import AblationFolder
from gancore.ablation.plan import Plan, make_plan, save_plan
from gancore.plugin_manager import Registry

BASE: list[tuple[str, dict[str, Any]]] = [
    ("command line", {"data.source": "gaussians", "train.steps": STEPS, "train.batch": 4})
]


@pytest.fixture
def registry() -> Registry:
    return registry_with_gauge()


@pytest.fixture
def plan_of(registry: Registry) -> Callable[..., Plan]:
    """A plan of subsets of plugins."""

    def make(plugins: Sequence[str] = ("r1",), seeds: Sequence[int] = (0, 1), **keys: Any) -> Plan:
        drafts, baseline = subsets(plugins, "all")
        arms = resolve_arms(registry, [*BASE, ("command line", keys)], drafts, baseline)
        return make_plan(arms, seeds, registry, "gan ablate -p r1")

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Plan], AblationFolder]:
    """The folder of a plan, as it is before the first job."""

    def make(plan: Plan) -> AblationFolder:
        made = AblationFolder(tmp_path / "ablation")
        made.path.mkdir(exist_ok=True)
        (made.path / "configs").mkdir(exist_ok=True)
        for arm, text in plan.tomls.items():
            made.config(arm).write_text(text, encoding="utf-8")
        save_plan(made.plan, plan)
        return made

    return make


@pytest.fixture
def gan_process(monkeypatch: pytest.MonkeyPatch) -> FakeGan:
    monkeypatch.setattr(queue, "POLL", 0.0)
    return FakeGan()
