"""``gan bench``: what it measures, on runs so small that only its structure can be asserted."""

from __future__ import annotations

import json

import pytest
import torch

from gancore.limits import Limits, Work, best, measure_limits, work_of

SMALL = ["--batch", "8", "--rounds", "3", "-o", "network.g_width=8", "-o", "network.d_width=8"]


def test_bench_measures_the_step_and_each_plugin(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = json.loads(gan("bench", *SMALL, "-p", "adaptivemix", "-p", "r1", "--json").out)
    assert list(tmp_path.iterdir()) == []
    step = facts["step_seconds"]
    assert 0 < step["least"] <= step["lower_quartile"] <= step["median"] <= step["upper_quartile"]
    assert facts["images_per_second"] == pytest.approx(8 / step["median"])
    assert facts["peak_memory_bytes"] > 10 * 2**20
    plugins = facts["plugins"]
    assert plugins["nonsaturating"] == {"kept": "it is the objective"}
    for name in ("adaptivemix", "r1"):
        assert plugins[name]["step_seconds_without"] > 0
        assert plugins[name]["share"]["median"] < 1
    assert facts["work"]["flops"] > 1e6
    assert facts["work"]["bytes"] > 1e5
    assert facts["work"]["share_of_product_limit"] < 1
    assert facts["graphs"] == {"used": False, "notes": []}


def test_a_plugin_that_another_needs_says_so(gan):
    text = gan("bench", *SMALL, "-p", "hinge", "-p", "kdd", "-o", "kdd.as_term=true").out
    assert "share of hinge: not measured, it is the objective" in text
    assert "share of kdd: " in text
    for line in ("a step: ", "peak memory: ", "this machine at its best: ", "products: ", "memory: "):
        assert line in text


def test_work_is_counted_exactly():
    left, right = torch.ones(4, 8), torch.ones(8, 2)
    assert work_of(lambda: left @ right) == Work(2 * 4 * 8 * 2, 4 * (32 + 16 + 8), 1)
    assert work_of(lambda: left.view(8, 4).t()) == Work(0, 0, 0)
    assert work_of(lambda: left.add_(1)).bytes == 4 * 64
    assert Work(100, 50, 1).seconds(Limits(products=50, bytes=25)) == 4


def test_limits_of_this_machine_are_plausible(monkeypatch):
    monkeypatch.setattr("gancore.limits.SIDE", {"cpu": 128})
    monkeypatch.setattr("gancore.limits.COPIED", {"cpu": 1 << 16})
    found = measure_limits(torch.device("cpu"), torch.float32)
    assert 1e6 < found.products < 1e15
    assert 1e6 < found.bytes < 1e15
    calls: list[int] = []
    assert best(lambda: calls.append(0), torch.device("cpu"), rounds=3) >= 0
    assert len(calls) == 4
