"""The page of a report: what it shows, says is missing and never joins; names are shown and nothing else."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from runs_for_tests import CONFIG, evaluation, tick

pytest.importorskip("matplotlib", reason="needs the extra gancore[report]")
pytest.importorskip("jinja2", reason="needs the extra gancore[report]")

from PIL import Image

from gancore.errors import ConfigError
from gancore.report import build, curves, embed
from gancore.report.reading import RunReader

NASTY = "<b>\"x\" & 'y'</b> $\\frac{1}$ ünïcode 数"


class Text(HTMLParser):
    """Text of a page by section, and a count of its elements; unbalanced elements are an error."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.elements: dict[str, int] = {}
        self.links: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        if tag == "section":
            self._section = dict(attrs)["id"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            before = self.sections.get(self._section, "")
            self.sections[self._section] = f"{before} {' '.join(data.split())}".strip()


def page_of(*paths: Path) -> str:
    return build.report([RunReader(path).read() for path in paths])


def test_a_whole_run(make_run) -> None:
    plan = {
        "phases": [
            {
                "phase": "d",
                "terms": [
                    {
                        "name": "r1/penalty",
                        "weight": 5.0,
                        "every": 4,
                        "reads": ["real"],
                        "gradient_of": "real",
                        "leaf": "raw",
                    }
                ],
                "groups": [{"views": ["real", "fake"], "rows": 2, "gradient": True, "enters": "images"}],
            }
        ]
    }
    shown = {"pictures": {"nearest": {"file": "pictures/nearest.png", "caption": "samples, then neighbours"}}}
    rows = [
        tick(25),
        {**evaluation(25, 40.0, samples=100), **shown, "notes": ["few samples"]},
        {"step": 50, "event": "warning", "method": "r1", "name": "a", "what": "the penalty is zero"},
        tick(50),
        evaluation(50, 31.5, samples=100),
    ]
    history = [
        {"time": "2026-01-01T10:00:00+00:00", "event": "started", "step": 0},
        {"event": "stopped", "step": 25, "reason": "interrupted", "seconds": 90.0, "peak_memory_bytes": 3 << 30},
        {"event": "resumed", "step": 25, "changed": {"train.steps": [50, 100]}, "passed_over": ["a damaged one"]},
    ]
    path = make_run(
        rows=rows, frames=[0, 25, 50], checkpoints=[25, 50], files={"plan.json": plan, "history.jsonl": history}
    )
    Image.new("RGB", (300, 100)).save(path / "pictures" / "nearest.png")
    Image.new("RGB", (30, 10)).save(path / "samples" / "sample-00000050.png")
    text = Text(page_of(path)).sections
    assert "Stopped at step 50 of 100; to continue: gan resume" in text["head"]
    assert "images a second 500 median" in text["head"]
    assert "fid 31.5 step 50" in text["head"]
    assert "warnings 1" in text["head"]
    assert "0 25 50" in text["samples"]
    assert "2 classes; a column of a sheet shows one of them. In order: zero, one." in text["samples"]
    assert "loss (2)" in text["curves"]
    assert "loss/d" in text["curves"]
    assert "last: 1.02" in text["curves"]
    assert "fid (lower is better) 31.5 50 31.5 50" in text["metrics"]
    assert "few samples" in text["metrics"]
    assert "protocol of fid fact value samples 100" in text["metrics"]
    assert "nearest, step 25: samples, then neighbours" in text["pictures"]
    assert "sample-00000050, made by gan sample" in text["pictures"]
    assert "r1/penalty 5 every 4 updates real, gradient of real by raw" in text["plan"]
    assert "real + fake 2 with gradient" in text["plan"]
    assert "run 500 500 to 500 6 s 1 min 30 s 2 3.00 GiB" in text["cost"]
    assert "50 warning r1: the penalty is zero" in text["interventions"]
    assert "25 stopped interrupted" in text["interventions"]
    assert "25 resumed train.steps: 50 -> 100; passed over: a damaged one" in text["interventions"]
    assert "2 keys were chosen" in text["configuration"]
    assert "train.steps 100 command line" in text["configuration"]
    assert "2 keys are at their default" in text["configuration"]
    assert "plugin adaptivemix gancore-adaptivemix 0.1.0" in text["environment"]
    assert "data: classes zero, one" in text["environment"]


def test_a_young_run_says_what_is_missing(make_run) -> None:
    text = Text(page_of(make_run())).sections
    assert "not started Nothing was logged yet; to begin again: gan resume" in text["head"]
    assert "There is no sample sheet yet." in text["samples"]
    assert "Nothing is logged yet." in text["curves"]
    assert "Nothing was measured" in text["metrics"]
    assert "No evaluation kept a picture" in text["pictures"]
    assert "The step plan was not recorded." in text["plan"]
    assert "No speed is logged yet." in text["cost"]
    assert "None is recorded." in text["interventions"]
    assert "There is no checkpoint yet" in text["environment"]


def test_a_diverged_run(make_run) -> None:
    rows = [tick(10, **{"loss/d": None}), {"step": 12, "event": "diverged", "what": "not finite: loss/d"}]
    text = Text(page_of(make_run(rows=rows))).sections
    assert "diverged Diverged by step 12: not finite: loss/d." in text["head"]
    assert "12 diverged not finite: loss/d" in text["interventions"]


def test_a_page_loads_nothing(make_run) -> None:
    page = page_of(make_run(rows=[tick(1), tick(2)], frames=[1, 2]))
    parsed = Text(page)
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert "connect-src 'none'" in page
    assert "default-src 'none'" in page
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)


def test_names_are_only_shown(make_run) -> None:
    rows = [
        tick(1, **{f"{NASTY}/{NASTY}": 1.0, "</script>": 2.0, f"nan{NASTY}": math.nan}),
        {"step": 1, "event": NASTY, "method": NASTY, "what": NASTY},
        {
            "step": 1,
            "metrics": {NASTY: 1.0},
            "protocols": {NASTY: {"better": NASTY, NASTY: NASTY}},
            "notes": [NASTY],
        },
    ]
    config = CONFIG + '"x.y" = "<script>"\n[methods]\n"<script>a</script>" = "</style><script>"\n'
    config = config.replace("[methods]", "\n[methods]")
    path = make_run(
        "a&b <i> 'q' ü", rows=rows, config=config, frames=[1], files={"history.jsonl": [{"event": NASTY}]}
    )
    parsed = Text(page_of(path))
    assert parsed.elements["script"] == 3
    assert parsed.elements["style"] == 1
    assert "i" not in parsed.elements
    assert parsed.elements.get("b", 0) == page_of(path).count("<b>")
    for section in ("curves", "metrics", "interventions"):
        assert " ".join(NASTY.split()) in parsed.sections[section]
    assert "a&b <i> 'q' ü" in parsed.sections["head"]


def test_unlike_protocols_share_no_curve(make_run) -> None:
    rows = [evaluation(step, 50.0 - step, samples=100, seed=0) for step in (10, 20)]
    later = [evaluation(step, 40.0 - step, samples=5000, seed=0) for step in (10, 20)]
    first = make_run(
        "a", rows=rows, files={"evaluations.jsonl": [*later, evaluation(20, 1.5, samples=100, seed=0)]}
    )
    second = make_run("b", rows=[evaluation(10, 7.0, samples=100, seed=0)])
    entries = curves.measured([RunReader(path).read() for path in (first, second)])
    assert [(entry.protocol, entry.points) for entry in entries] == [
        ({"samples": 100, "seed": 0}, {0: {10: 40.0, 20: 1.5}, 1: {10: 7.0}}),
        ({"samples": 5000, "seed": 0}, {0: {10: 30.0, 20: 20.0}}),
    ]
    assert [entry.unlike for entry in entries] == ["samples 100", "samples 5,000"]
    assert (entries[0].best(0), entries[0].newest(0), entries[1].best(1)) == ((20, 1.5), (20, 1.5), None)
    assert len(curves.metric_charts(entries)) == 2
    assert "protocol of fid: samples 5,000" in Text(page_of(first, second)).sections["metrics"]


def test_metrics_keep_the_order_of_their_methods(make_run) -> None:
    rows = [
        {"step": step, "metrics": {"fid": 1.0, "a": 2.0}, "protocols": {"fid": {"n": step}}} for step in (2, 1)
    ]
    entries = curves.measured([RunReader(make_run(rows=rows)).read()])
    assert [(entry.name, entry.protocol) for entry in entries] == [
        ("fid", {"n": 1}),
        ("fid", {"n": 2}),
        ("a", {}),
    ]


def test_best_follows_the_direction() -> None:
    points = {0: {1: 3.0, 2: 9.0, 3: 3.0}}
    assert curves.Measured("a", "lower", {}, points).best(0) == (1, 3.0)
    assert curves.Measured("a", "higher", {}, points).best(0) == (2, 9.0)
    assert curves.Measured("a", "", {}, points).best(0) is None


def test_runs_are_compared(make_run) -> None:
    first = make_run("a", rows=[tick(10), tick(20)], frames=[0, 10, 20])
    second = make_run("b", rows=[tick(10)], frames=[0, 15], config=CONFIG.replace("batch = 64", "batch = 32"))
    page = page_of(first, second)
    text = Text(page).sections
    assert text["head"].startswith("2 runs compared a stopped")
    assert "train.batch 64 32" in text["configuration"]
    assert "train.steps" not in text["configuration"].split("a 2 keys")[0]
    assert json.loads(re.findall(r'data-steps="([^"]+)"', page)[0]) == [0, 10, 15, 20]
    assert "The configurations are equal." in Text(page_of(first, make_run("c"))).sections["configuration"]
    with pytest.raises(ConfigError, match="9 runs in one report; expected at most 8"):
        build.report([RunReader(first).read()] * 9)


def test_runs_of_one_name_are_told_apart(make_run) -> None:
    rows = [tick(10), evaluation(10, 3.0)]
    paths = [make_run("a/run", rows=rows), make_run("b/run", rows=rows, config=CONFIG.replace("64", "32"))]
    text = Text(page_of(*paths)).sections
    for path in paths:
        for section in ("head", "metrics", "cost"):
            assert str(path) in text[section]
    assert f"key {paths[0]} {paths[1]}" in text["configuration"]  # of the table of what differs


def test_hundreds_of_curves(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_CHARTS", 20)
    many = {f"group{index % 7}/value{index:03d}": float(index) for index in range(100 - 2)}
    page = page_of(make_run(rows=[tick(1, **many), tick(2, **many)]))
    text = Text(page).sections["curves"]
    assert page.count("<svg") == curves.MOST_CHARTS + 1
    assert "80 more curves, which are not drawn" in text
    assert all(name in text for name in many)


@pytest.mark.parametrize("plan", [{"phases": 3}, {}, {"phases": [{"phase": "d"}]}, {"phases": ["x"]}])
def test_an_odd_plan(make_run, plan) -> None:
    text = Text(page_of(make_run(files={"plan.json": plan}))).sections["plan"]
    assert "The step plan was not recorded." in text or "holds something else" in text


def test_odd_records_are_no_crash(make_run) -> None:
    odd = [3, None, "x", [1], {"a": 1}, True, -2.5, 10**400]
    rows = [
        {"step": 1, "metrics": {"m": value, "k": 2.0}, "protocols": value, "pictures": value, "notes": value}
        for value in odd
    ]
    rows += [{"step": 1, "event": value, "method": value, "what": value} for value in odd]
    rows += [{"step": 1, "metrics": {"m": 1.0}, "pictures": {"p": value}} for value in odd]
    rows += [
        {"step": 1, "metrics": {"m": 1.0}, "pictures": {"p": {"file": value, "caption": value}}} for value in odd
    ]
    rows += [{"step": 1, "images_per_second": value, "std": value} for value in odd]
    history = [
        dict.fromkeys(
            (
                "event",
                "step",
                "time",
                "reason",
                "seconds",
                "changed",
                "dropped",
                "passed_over",
                "peak_memory_bytes",
            ),
            value,
        )
        for value in odd
    ]
    history += [{**line, "event": "stopped"} for line in history]
    path = make_run(rows=rows, files={"history.jsonl": history})
    for value in odd:
        sidecar = {"environment": value, "data": value, "plugins": value, "step": 1}
        (path / "checkpoints" / "step-00000001.json").write_text(json.dumps(sidecar))
        Text(page_of(path))
    (path / "checkpoints" / "step-00000001.json").write_text(
        json.dumps({"data": {"classes": odd}, "plugins": {"p": 3}})
    )
    Text(page_of(path))


def test_a_picture_outside_of_the_run_is_not_shown(make_run, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    rows = [
        {"step": 1, "metrics": {"m": 1.0}, "pictures": {name: {"file": file, "caption": "c"}}}
        for name, file in (("up", "../secret.png"), ("whole", str(tmp_path / "secret.png")))
    ]
    assert "No evaluation kept a picture" in Text(page_of(make_run(rows=rows))).sections["pictures"]


# Pictures.


def test_evenly() -> None:
    assert embed.evenly(list(range(5)), 9) == [0, 1, 2, 3, 4]
    assert embed.evenly(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert embed.evenly(list(range(10)), 1) == [9]
    assert embed.evenly([], 4) == []


def test_timelines_fit_their_budget(make_run) -> None:
    path = make_run(frames=range(30))
    for step in range(30):
        noise = Image.effect_noise((900, 600), 90)
        noise.save(path / "samples" / f"step-{step:08d}.png")
    (path / "samples" / "step-00000015.png").write_bytes(b"no picture")
    (path / "samples" / "step-00000029.png").write_bytes(
        (path / "samples" / "step-00000028.png").read_bytes()[:5000]
    )
    record = RunReader(path).read()
    frames = embed.timeline(record.frames, 2_000_000)
    assert sum(len(frame.picture.src) for frame in frames) <= 2_000_000
    assert len(frames) > 8
    assert frames[0].step == 0
    assert max(frames[0].picture.width, frames[0].picture.height) == embed.SCALED
    assert embed.embed(path / "samples" / "step-00000015.png") is None
    assert embed.embed(path / "nowhere.png") is None
    assert len(embed.timeline(record.frames, 1)) <= 1


def test_pictures_fit_their_budget(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run()
    for index in range(6):
        Image.effect_noise((200, 200), 90).save(path / "samples" / f"sample-{index}.png")
    monkeypatch.setattr(build, "PICTURE_BYTES", 150_000)
    text = Text(page_of(path)).sections["pictures"]
    shown = text.count("made by gan sample")
    assert 1 <= shown < 6
    assert f"{6 - shown} more would make the page too large" in text
