"""``gan plugins`` and ``gan doctor``."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from gancore import plugin_manager
from gancore.cli import doctor as doctor_module
from gancore.options import Options, option_fields
from gancore.specs import Claims, Clash, MethodSpec


class BrokenEntryPoint:
    name = "shaky"
    dist = None

    def load(self):
        raise ImportError("no module named 'missing'")


@pytest.fixture
def broken(monkeypatch):
    """One entry point that cannot be imported, and nothing else besides the core."""
    discover = plugin_manager.discover
    monkeypatch.setattr(plugin_manager, "discover", lambda: discover([BrokenEntryPoint()]))


@pytest.fixture
def installed(monkeypatch):
    """Add methods to what is installed."""

    def add(*specs: MethodSpec) -> None:
        registry = plugin_manager.discover([])
        for spec in specs:
            registry._add(registry.methods, spec, plugin_manager.Origin("gancore-test", "0.3"))
        monkeypatch.setattr(plugin_manager, "discover", lambda: registry)

    return add


def test_list(gan):
    rows = {row["name"]: row for row in json.loads(gan("plugins", "list", "--json").out)}
    assert rows["hinge"]["kind"] == "objective"
    assert rows["r1"]["kind"] == "method"
    assert rows["dcgan"] == {
        "name": "dcgan",
        "kind": "network",
        "version": importlib.metadata.version("gancore"),
        "distribution": "gancore",
        "summary": rows["dcgan"]["summary"],
    }
    text = gan("plugins", "list").out
    assert text.splitlines()[0].split() == ["NAME", "KIND", "VERSION", "DISTRIBUTION", "SUMMARY"]
    assert all(name in text for name in rows)


def test_broken_plugin_is_listed_with_the_reason(gan, broken):
    outcome = gan("plugins", "list")
    assert outcome.code == 0
    assert "broken: ImportError: no module named 'missing'" in outcome.out
    row = next(r for r in json.loads(gan("plugins", "list", "--json").out) if r["name"] == "shaky")
    assert row["kind"] == "broken"
    for command in (["plugins", "show", "shaky"], ["plugins", "check", "shaky"], ["train", "-p", "shaky"]):
        refused = gan(*command)
        assert refused.code == 3
        assert "installed but broken: ImportError" in refused.err


def test_plugin_for_another_hook_api_is_broken(gan, installed):
    installed(MethodSpec(name="future", summary="From tomorrow.", target="x:Y", api=(9, 0)))
    row = next(r for r in json.loads(gan("plugins", "list", "--json").out) if r["name"] == "future")
    assert row["kind"] == "broken"
    assert "hook API 9.0" in row["reason"]
    assert gan("plugins", "show", "future").code == 3


def test_plugin_whose_claims_raise_is_broken(gan, installed):
    installed(MethodSpec(name="rude", summary="x", target="x:Y", claims=lambda options: 1 / 0))
    assert "broken: ZeroDivisionError" in gan("plugins", "list").out
    assert gan("plugins", "show", "rude").code == 3


def test_show_a_method(gan):
    facts = json.loads(gan("plugins", "show", "gp", "--json").out)
    spec = plugin_manager.discover().methods["gp"]
    assert [row["name"] for row in facts["options"]] == list(option_fields(spec.options))
    assert "penalty:interpolated" in facts["claims"]
    assert "d:uncoupled" in facts["needs"]
    assert facts["reference"] == spec.reference
    text = gan("plugins", "show", "gp").out
    assert "gp.weight" in text
    assert ">= 0" in text
    assert spec.summary in text
    assert "gan train -p gp" in text


def test_show_a_network(gan):
    facts = json.loads(gan("plugins", "show", "sngan", "--json").out)
    assert facts["sizes"] == [16, 32, 64, 128]
    text = gan("plugins", "show", "sngan").out
    assert "network.d_width" in text
    assert "gan train --network sngan" in text


@pytest.mark.parametrize("command", ["show", "check"])
def test_unknown_names_the_nearest(gan, command):
    outcome = gan("plugins", command, "hing")
    assert outcome.code == 3
    assert "did you mean 'hinge'?" in outcome.err
    assert "pip install gancore-hing" in outcome.err


def test_check_compatible(gan):
    outcome = gan("plugins", "check", "hinge", "r1", "gp", "-o", "r1.every=4")
    assert outcome.code == 0
    assert "objective: hinge; scores: logits" in outcome.out
    assert "depends on network and data: gp needs d:uncoupled" in outcome.out
    assert json.loads(gan("plugins", "check", "r1", "--json").out)["objective"] == "nonsaturating"


def test_check_says_no_with_the_reason(gan, installed):
    outcome = gan("plugins", "check", "hinge", "wgan")
    assert outcome.code == 1
    assert "objective claimed by both 'hinge' and 'wgan'" in outcome.out
    clash = Claims(clashes=(Clash("odd", "it is odd; leave one out"),))
    installed(
        MethodSpec(name="even", summary="x", target="x:Y", options=Options, claims=lambda options: clash),
        MethodSpec(name="odd", summary="x", target="x:Y", claims=lambda o: Claims(tags=frozenset({"odd"}))),
    )
    outcome = gan("plugins", "check", "even", "odd", "--json")
    assert outcome.code == 1
    answer = json.loads(outcome.out)
    assert answer["compatible"] is False
    assert "leave one out" in answer["reasons"][0]


def test_check_refuses_wrong_options_and_networks(gan):
    outcome = gan("plugins", "check", "hinge", "-o", "hinge.wight=1")
    assert outcome.code == 2
    assert "did you mean 'weight'?" in outcome.err
    assert "--network dcgan" in gan("plugins", "check", "dcgan").err


def test_doctor(gan):
    outcome = gan("doctor", "--json")
    document = json.loads(outcome.out)
    names = {finding["name"] for finding in document["findings"]}
    assert {
        "python",
        "platform",
        "gancore",
        "torch",
        "torchvision",
        "threads",
        "bf16",
        "disk",
        "fused operations",
    } <= names
    assert "operations for cpu" in names
    assert outcome.code == (0 if document["ok"] else 1)
    assert document["ok"] == all(finding["ok"] for finding in document["findings"])


def test_doctor_says_what_is_wrong_and_what_to_do(gan, broken, monkeypatch):
    monkeypatch.setattr(doctor_module, "LEAST_DISK", 1e9)
    outcome = gan("doctor")
    assert outcome.code == 1
    assert "plugin shaky: update or remove" in outcome.out
    assert "disk: free some space" in outcome.out
    assert outcome.out.splitlines()[-1] == "something is wrong; see above"
    assert outcome.err == ""
