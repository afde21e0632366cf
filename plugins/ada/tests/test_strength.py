"""How p moves: the rule against a loop, and in a run with several updates of D, lazy phases, a resume."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

import gancore
from gancore.step import Step
from gancore.testing import different, run_steps, tiny_config, tiny_session
from gancore_ada import functional
from gancore_ada.method import Ada, Controller


def controller_of(session) -> Controller:
    return session.trainer.modules.modules["ada.controller"]


def test_strength_follows_the_signs() -> None:
    """Against the loop over everything that was reported, in float64."""
    random = np.random.default_rng(0)
    for upper in (1.0, 0.05, math.inf):
        p, expected = torch.tensor(0.02, dtype=torch.float64), 0.02
        for _ in range(60):
            margins = random.normal(random.choice([-1.0, 0.0, 2.0]), 1.0, 64)
            signs, rows = functional.count_signs(torch.tensor(margins))
            p = functional.next_strength(p, signs, rows, target=0.6, images=10_000.0, upper=upper)
            mean = sum(1 if m > 0 else -1 if m < 0 else 0 for m in margins) / len(margins)
            expected += (1 if mean > 0.6 else -1 if mean < 0.6 else 0) * 64 / 10_000
            expected = min(max(expected, 0.0), upper)
            assert float(p) == pytest.approx(expected, abs=1e-12)


def test_a_margin_that_is_no_number_does_not_count() -> None:
    signs, rows = functional.count_signs(torch.tensor([1.0, math.nan, -2.0, math.inf, 0.0]))
    assert (float(signs), float(rows)) == (1.0, 4.0)
    p = torch.tensor(0.3)
    signs, rows = functional.count_signs(torch.full((4,), math.nan))
    assert torch.equal(functional.next_strength(p, signs, rows, target=0.6, images=100.0), p)


def test_without_an_upper_bound_strength_integrates_above_one() -> None:
    p = torch.tensor(0.9)
    for _ in range(5):
        p = functional.next_strength(p, torch.tensor(50.0), torch.tensor(50.0), target=0.6, images=100.0)
    assert float(p) == pytest.approx(3.4)
    shape = (50, 1, 4, 4)
    everyone = functional.sample(shape, p, {"scale": 1.0}, generator=torch.Generator().manual_seed(0))
    assert (everyone["scale"] != 1).all()


class Loop:
    """The controller in plain numbers."""

    def __init__(self, p: float, interval: int, target: float, images: float, upper: float) -> None:
        self.p, self.interval, self.target, self.images, self.upper = p, interval, target, images, upper
        self.heard: list[float] = []
        self.count = 0

    def hear(self, margins) -> None:
        self.heard += [float(np.sign(m)) for m in margins if not math.isnan(m)]
        self.count += 1
        if self.count == self.interval:
            if self.heard:
                direction = np.sign(np.mean(self.heard) - self.target)
                self.p = min(max(self.p + direction * len(self.heard) / self.images, 0.0), self.upper)
            self.heard, self.count = [], 0


@pytest.mark.parametrize(("interval", "upper"), [(4, 1.0), (1, 0.8), (3, math.inf)])
def test_the_controller_is_the_loop(interval: int, upper: float) -> None:
    random = np.random.default_rng(interval)
    controller, loop = Controller(0.7).double(), Loop(0.7, interval, 0.6, 400.0, upper)
    for _ in range(100):
        margins = random.normal(random.choice([-0.5, 1.0, 3.0]), 1.0, 16)
        margins[random.random(16) < 0.1] = math.nan
        if random.random() < 0.2:
            margins[:] = math.nan
        signs, rows = functional.count_signs(torch.tensor(margins))
        controller.hear(signs, rows, interval=interval, target=0.6, images=400.0, upper=upper)
        loop.hear(margins)
        assert float(controller.p) == pytest.approx(loop.p, abs=1e-12)
        assert int(controller.updates) == loop.count
        assert math.isfinite(float(controller.sign))
    assert loop.p >= 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train.n_critic": 3},
        {"train.n_critic": 2, "train.lazy": "separate", "r1.every": 2},
    ],
)
def test_p_follows_the_margins_of_d(options, monkeypatch) -> None:
    """Every update of D counts once, whatever n_critic is, and phases of penalties do not."""
    heard = []
    plain = Ada.after_d_step

    def after_d_step(self, step):
        if step.phase == "d":
            heard.append(step.margin("real").tolist())
        plain(self, step)

    monkeypatch.setattr(Ada, "after_d_step", gancore.api.hookimpl(after_d_step))
    given = {"ada.p": 0.5, "ada.kimg": 0.4, "ada.target": 0.2, **options}
    session = run_steps(tiny_session(["ada", "r1"], given), 7)
    chosen = session.manager.methods["ada"].options
    loop = Loop(chosen.p, chosen.interval, 0.2, 400.0, chosen.upper)
    for margins in heard:
        loop.hear(margins)
    assert len(heard) == 7 * given.get("train.n_critic", 1)
    assert float(controller_of(session).p) == pytest.approx(loop.p, abs=1e-6)
    assert loop.p != chosen.p
    session.close()


def test_p_stays_within_its_bound(monkeypatch) -> None:
    monkeypatch.setattr(Step, "margin", lambda self, side: torch.ones(8))
    session = run_steps(tiny_session(["ada"], {"ada.kimg": 0.001, "ada.interval": 1, "ada.p_max": 0.6}), 2)
    assert float(controller_of(session).p) == pytest.approx(0.6)
    monkeypatch.setattr(Step, "margin", lambda self, side: torch.full((8,), math.nan))
    run_steps(session, 3)
    assert float(controller_of(session).p) == pytest.approx(0.6)
    session.close()


def test_without_a_bound_p_goes_on(monkeypatch) -> None:
    monkeypatch.setattr(Step, "margin", lambda self, side: torch.ones(8))
    options = {"ada.kimg": 0.008, "ada.interval": 2, "ada.unbounded": True, "ada.p": 0.5}
    session = run_steps(tiny_session(["ada"], options), 4)
    assert float(controller_of(session).p) == pytest.approx(4.5)
    session.close()


def test_resume_is_an_unbroken_run(tmp_path) -> None:
    config = tiny_config(
        ["ada", "r1"],
        {
            "train.steps": 6,
            "train.n_critic": 3,  # updates of D since the last move are state, too
            "ada.p": 0.5,
            "ada.kimg": 0.4,
            "ada.target": 0.2,
            "ada.preset": "bgcfnc",
            "output.snap": 3,
            "output.log_every": 1,
            "train.lazy": "separate",
            "r1.every": 2,
        },
    )
    run = gancore.train(config, outdir=tmp_path / "run")
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    for suffix in ("json", "safetensors"):
        (copy / "checkpoints" / f"step-00000006.{suffix}").unlink()
    resumed = gancore.run.resume(copy)

    def rows(which):
        return [(row["ada/p"], row["ada/sign"]) for row in which.metrics if "ada/p" in row]

    assert rows(resumed) == rows(run)
    assert len({p for p, _ in rows(run)}) > 2
    first, second = (gancore.checkpoint.load_latest(r.folder.checkpoints).tensors for r in (run, resumed))
    assert different(first, second) == []
