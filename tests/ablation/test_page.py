"""The page of an ablation: whole, self-contained, safe with any name, at every stage."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from gancore.ablation.jobs import Job, jobs_of
from gancore.ablation.outputs import write_page
from gancore.ablation.page import page
from gancore.ablation.queue import Queue, Slot
from gancore.ablation.results import collect


@pytest.fixture
def finished(plan_of, folder, gan_process):
    plan = plan_of(("r1", "hinge"), (0, 1))
    place = folder(plan)
    gan_process.score = lambda arm, seed: 20.0 + seed * 0.3 - 4 * (arm == "r1") + 0.01 * seed * len(arm)
    Queue(place, plan, (Slot(),), gan_process.launch).run()
    for job in jobs_of(plan):
        run = place.run(job)
        Image.new("RGB", (64, 64), (200, 10, 10)).save(run.samples / "step-00000010.png")
        for step in (2, 6, 10):
            run.append_metrics({"step": step, "images_seen": 4 * step, "loss/d": 1.0 / step, "loss/g": 2.0})
            row = {"step": step, "images_seen": 4 * step, "metrics": {"fid": 30.0 - step}}
            run.append_metrics({**row, "protocols": {"fid": {"better": "lower", "samples": 100}}})
    return place, plan


def test_the_page_has_everything_and_loads_nothing(finished):
    place, plan = finished
    text = page(place, plan, collect(place, plan))
    for part in (
        "fid, lower is better",
        "Difference to baseline",
        "Protocol of fid",
        "Learning curves",
        "fid over images seen",
        "loss/d over images seen",
        "Samples of r1+hinge",
        "seconds an image",
        "gan ablate -p r1",
        "All 8 runs",
    ):
        assert part in text, part
    assert text.count('<img src="data:image/') == 4
    assert not re.search(r"(href|src)=[\"']?(https?:|//|file:)", text.replace("http://www.w3.org", ""))


def test_curves_of_another_protocol_are_not_drawn(finished):
    place, plan = finished
    for job in jobs_of(plan):
        metrics = place.run(job).metrics
        metrics.write_text(metrics.read_text(encoding="utf-8").replace(": 100}}", ": 50}}"), encoding="utf-8")
    text = page(place, plan, collect(place, plan))
    assert "fid over images seen" not in text
    assert "loss/d over images seen" in text


def test_a_page_before_the_first_result(plan_of, folder):
    plan = plan_of()
    place = folder(plan)
    text = page(place, plan, collect(place, plan))
    assert "Nothing has been measured yet." in text
    assert "There is no curve yet." in text
    assert "No run has ended yet." in text
    assert [path.name for path in write_page(place, plan, collect(place, plan))] == ["report.html"]


def test_a_page_without_the_sheet_of_a_run(finished):
    place, plan = finished
    (place.run(Job(0, "r1")).samples / "step-00000010.png").write_bytes(b"no picture")
    text = page(place, plan, collect(place, plan))
    assert text.count('<img src="data:image/') == 3


def test_names_are_escaped(finished):
    place, plan = finished
    results = collect(place, plan)
    results["notes"] = ["<script>alert(1)</script>"]
    results["metrics"]["fid/<b>"] = results["metrics"].pop("fid")
    for job in results["jobs"]:
        job["metrics"] = {}
    text = page(place, plan, results)
    assert "<script>alert" not in text
    assert "fid/&lt;b&gt;" in text
    names = [path.name for path in write_page(place, plan, results)]
    assert names == ["report.html", "forest-fid-b-.svg", "forest-fid-b-.png"]
