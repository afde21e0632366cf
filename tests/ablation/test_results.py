"""Results of synthetic ablations against loops written out, what is refused, and what a reader is told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from gancore.ablation.jobs import Job
from gancore.ablation.queue import Queue, Slot
from gancore.ablation.results import collect, seconds_per_image, shown_metrics, verdict
from gancore.ablation.tables import as_markdown, as_text, interval, metric_rows, p_value
from gancore.errors import ConfigError

SEEDS = (0, 1, 2, 3)


@pytest.fixture
def finished(plan_of, folder, gan_process):
    """An ablation of r1 and hinge of which every job is over."""

    def make(score=None, seeds=SEEDS, codes=None, plugins=("r1", "hinge")):
        plan = plan_of(plugins, seeds)
        place = folder(plan)
        gan_process.score = score or gan_process.score
        gan_process.codes |= codes or {}
        Queue(place, plan, (Slot(),), gan_process.launch).run()
        return place, plan

    return make


def scores(arm, seed):
    noise = np.random.default_rng([*arm.encode(), seed]).normal(0, 0.3)
    return 30.0 + 5 * seed - {"r1": 4.0, "hinge": 0.0, "r1+hinge": -3.0}.get(arm, 0.0) + noise


def by_hand(arm, seeds=SEEDS):
    """Mean difference, its interval and p, with numpy alone but for Student's distribution."""
    differences = np.array([scores(arm, seed) - scores("baseline", seed) for seed in seeds])
    error = differences.std(ddof=1) / math.sqrt(len(seeds))
    half = stats.t.ppf(0.975, len(seeds) - 1) * error
    p = 2 * stats.t.sf(abs(differences.mean()) / error, len(seeds) - 1)
    return differences.mean(), differences.mean() - half, differences.mean() + half, p


def test_differences_are_paired_and_p_is_corrected(finished):
    found = collect(*finished(scores))["metrics"]["fid"]
    assert found["better"] == "lower"
    assert found["protocol"] == {"samples": 100}
    assert found["tests"] == 3
    p_values = {}
    for arm in ("r1", "hinge", "r1+hinge"):
        difference = found["arms"][arm]["difference"]
        mean, low, high, p_values[arm] = by_hand(arm)
        assert difference["value"] == pytest.approx(mean)
        assert difference["low"] == pytest.approx(low)
        assert difference["high"] == pytest.approx(high)
        assert difference["p"] == pytest.approx(p_values[arm])
        assert difference["seeds"] == 4
    smallest, middle, largest = sorted(p_values, key=lambda arm: p_values[arm])
    corrected = {arm: found["arms"][arm]["p_corrected"] for arm in p_values}
    assert corrected[smallest] == pytest.approx(3 * p_values[smallest])
    assert corrected[middle] == pytest.approx(max(2 * p_values[middle], corrected[smallest]))
    assert corrected[largest] == pytest.approx(max(p_values[largest], corrected[middle]))
    verdicts = {arm: found["arms"][arm]["found"] for arm in p_values}
    assert verdicts == {"r1": "better", "hinge": "unclear", "r1+hinge": "worse"}


def test_means_and_ratios(finished):
    arms = collect(*finished(scores))["metrics"]["fid"]["arms"]
    values = [scores("r1", seed) for seed in SEEDS]
    assert arms["r1"]["mean"]["value"] == pytest.approx(np.mean(values))
    assert list(arms["r1"]["values"].values()) == pytest.approx(values)
    ratios = [value / scores("baseline", seed) for seed, value in zip(SEEDS, values, strict=True)]
    assert arms["r1"]["ratio"]["value"] == pytest.approx(np.prod(ratios) ** 0.25)
    assert arms["baseline"]["difference"] is None


def test_verdicts():
    assert verdict(-1.0, 0.01, "lower") == "better"
    assert verdict(-1.0, 0.01, "higher") == "worse"
    assert verdict(-1.0, 0.01, "") == "lower"
    assert verdict(1.0, 0.01, "") == "higher"
    assert verdict(1.0, 0.05, "lower") == "unclear"
    assert verdict(1.0, None, "lower") is None


def test_diverged_and_failed_runs_are_shown_and_in_no_mean(finished):
    codes = {("r1", 1): [5], ("hinge", 2): [0, 3]}
    results = collect(*finished(scores, codes=codes))
    arms = results["metrics"]["fid"]["arms"]
    assert list(arms["r1"]["values"]) == ["0", "2", "3"]
    mean, _, high, _ = by_hand("r1", (0, 2, 3))
    assert arms["r1"]["difference"]["value"] == pytest.approx(mean)
    assert arms["r1"]["difference"]["high"] == pytest.approx(high)
    text = as_text(results)
    assert "3 of 4, 1 diverged" in text
    assert "3 of 4, 1 failed" in text
    assert "note: r1, seed 1 diverged after step 5 and is in no mean: not finite: loss/d" in text
    assert "note: hinge, seed 2 failed after step 10 and is in no mean: code 3 of eval" in text


def test_one_seed_has_no_interval_and_says_so(finished):
    results = collect(*finished(scores, seeds=(0,)))
    arm = results["metrics"]["fid"]["arms"]["r1"]
    assert (arm["difference"]["low"], arm["p_corrected"], arm["found"]) == (None, None, None)
    assert any(note.startswith("one seed") for note in results["notes"])
    assert "[" not in as_text(results).split("\n\n")[1].replace("[95 %]", "").replace("MEAN", "")


def test_equal_differences_have_no_interval_and_say_so(finished):
    results = collect(*finished(lambda arm, seed: 8.0 - (arm == "r1")))
    arm = results["metrics"]["fid"]["arms"]["r1"]
    assert (arm["difference"]["value"], arm["difference"]["low"]) == (-1.0, None)
    assert "no interval where all seeds differ by the same: fid" in results["notes"]


def test_an_unfinished_ablation_shows_what_there_is(plan_of, folder):
    plan = plan_of()
    results = collect(folder(plan), plan)
    assert results["metrics"] == {}
    assert "4 of 4 runs are not over yet" in results["notes"]
    text = as_text(results)
    assert "baseline  0     waiting  0" in text
    json.dumps(results)


def test_unlike_protocols_are_refused(finished, gan_process):
    place, plan = finished(scores, seeds=(0, 1))
    record = place.record(Job(1, "r1"))
    changed = record.read_text(encoding="utf-8").replace('"samples": 100', '"samples": 50')
    record.write_text(changed, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fid was measured under unlike protocols: samples: 100") as raised:
        collect(place, plan)
    assert "50 (r1, seed 1)" in str(raised.value)
    assert "100 (baseline, seed 0 and 6 more)" in str(raised.value)


def test_a_run_that_does_not_belong_here_is_refused(finished):
    place, plan = finished(scores, seeds=(0, 1))
    first, second = place.run(Job(0, "r1")).path, place.run(Job(1, "r1")).path
    first.rename(first.with_name("aside"))
    second.rename(first)
    with pytest.raises(ConfigError, match="r1, seed 0: .* is not the run of this ablation: it has seed 1"):
        collect(place, plan)


def test_cost_is_paired_and_a_median(finished):
    place, plan = finished(scores, seeds=(0, 1, 2))
    for seed, rate in ((0, 50.0), (1, 25.0), (2, 100.0)):
        run = place.run(Job(seed, "r1"))
        rows = [json.dumps({"step": step, "images_per_second": rate}) for step in (1, 2, 3)]
        run.metrics.write_text("\n".join(rows), encoding="utf-8")
    results = collect(place, plan)
    assert results["cost"]["r1"] == {
        "seconds_per_image": 0.02,
        "ratio": 2.0,
        "ratio_lowest": 1.0,
        "ratio_highest": 4.0,
        "seeds": 3,
    }
    assert results["cost"]["baseline"]["ratio"] == 1.0
    assert "x2.00 (1.00-4.00)" in as_text(results)
    assert metric_rows(results, "fid")[0][-1] == "x1.00"


def test_the_warm_up_is_no_cost(plan_of, folder):
    run = folder(plan_of()).run(Job(0, "r1"))
    run.path.mkdir(parents=True)
    run.append_metrics({"step": 1, "images_per_second": 1.0})
    assert seconds_per_image(run) == 1.0
    run.append_metrics({"step": 2, "images_per_second": 10.0})
    run.append_metrics({"step": 3, "metrics": {}})
    assert seconds_per_image(run) == 0.1


def test_metrics_to_show():
    results = {"metrics": {"fid": {"better": "lower"}, "raw": {"better": ""}}}
    assert shown_metrics(results) == ["fid"]
    assert shown_metrics(results, ["raw"]) == ["raw"]
    assert shown_metrics({"metrics": {"raw": {"better": ""}}}) == ["raw"]
    with pytest.raises(ConfigError, match="--metric fi: it was not measured.*did you mean 'fid'.*fid, raw"):
        shown_metrics(results, ["fi"])


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((31.2154, 29.94, 32.48), "31.22 [29.94, 32.48]"),
        ((0.51234, 0.5021, 0.52243), "0.5123 [0.5021, 0.5224]"),
        ((1234.5, 1000.4, 1500.4), "1234 [1000, 1500]"),
        ((3.5, None, None), "3.5"),
    ],
)
def test_intervals_show_three_digits_of_their_width(found, text):
    value, low, high = found
    assert interval({"value": value, "low": low, "high": high}) == text


def test_signs_and_small_p():
    assert interval({"value": 1.0, "low": -1.0, "high": 3.0}, signed=True) == "+1.00 [-1.00, +3.00]"
    assert interval(None) == "-"
    assert (p_value(0.0004), p_value(0.0315)) == ("<0.001", "0.032")


def test_markdown_can_be_pasted(finished):
    results = collect(*finished(scores))
    text = as_markdown(results)
    assert "gan ablate -p r1" in text
    assert "torch 2.15.0" in text
    assert "1 thread a run, no GPU" in text
    assert "Protocol of fid: samples 100." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["row"]["metrics"].update(fid=None),
        lambda record: record["row"]["metrics"].update(fid=math.nan),
        lambda record: record["row"]["metrics"].update(fid="low"),
        lambda record: record["row"].pop("metrics"),
        lambda record: record["row"].pop("protocols"),
        lambda record: record["row"]["protocols"].clear(),
        lambda record: record.pop("row"),
    ],
)
def test_a_damaged_record_counts_as_not_measured(finished, damage):
    place, plan = finished(scores, seeds=(0, 1), plugins=("r1",))
    path = place.record(Job(1, "r1"))
    record = json.loads(path.read_bytes())
    damage(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    results = collect(place, plan)
    assert [job["state"] for job in results["jobs"]].count("trained") == 1
    assert results["metrics"]["fid"]["arms"]["r1"]["difference"]["seeds"] == 1


def test_a_difference_over_fewer_seeds_than_the_means_says_so(finished):
    results = collect(*finished(scores, codes={("r1", 0): [5], ("baseline", 2): [5]}, plugins=("r1",)))
    assert results["metrics"]["fid"]["arms"]["r1"]["difference"]["seeds"] == 2
    assert "r1: the difference is over the seeds that both arms have, 1, 3" in results["notes"]
    whole = collect(*finished(scores, seeds=(0, 1), plugins=("hinge",)))
    assert not any("both arms" in note for note in whole["notes"])
