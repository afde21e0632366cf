"""Every included method keeps the contract; how the kit is called. Plugins check it in their own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from methods_for_tests import spec_of

from gancore.api import Claims, Method, Need
from gancore.builtins import METHODS
from gancore.testing import registry_with
from gancore.testing.bench import Bench
from gancore.testing.contract import RULES, Subject, UnfitSubject, check, sentence

PAGE = Path(__file__).parent.parent / "docs" / "testing-a-plugin.md"

SUBJECTS = {
    **{spec.name: Subject(spec.name) for spec in METHODS},
    "wgan unclipped with gp": Subject("wgan", {"wgan.clip": 0.0}, companions=("gp",)),
    "lazy gp on points": Subject("gp", {"gp.every": 2, "train.lazy": "separate"}, network="mlp"),
}


QUICK = ("hinge", "r1", "gp")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SUBJECTS]
)
@pytest.mark.parametrize("rule", RULES)
def test_every_method_keeps_every_rule(rule: str, name: str) -> None:
    check(rule, SUBJECTS[name])


def test_what_a_rule_has_nothing_to_say_about() -> None:
    assert "is an objective" in str(check("weight-zero", Subject("hinge")))
    assert "neither a link" in str(check("double-backward", Subject("hinge")))
    assert check("double-backward", Subject("r1")) is None


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"unknown rule 'finit' \(did you mean 'finite'\?\)"):
        check("finit", Subject("hinge"))


def test_a_companion_that_cannot_be_is_the_callers_mistake() -> None:
    with pytest.raises(UnfitSubject, match="penalty:interpolated|clipping D's weights.*companions"):
        check("finite", Subject("gp", companions=("wgan",)))


def test_the_page_explains_every_rule_in_its_own_words() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    for rule in RULES:
        assert f"### `{rule}`" in page
        assert sentence(rule) in page, f"{rule}: {sentence(rule)}"


# In pytest.


def pytest_in(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """pytest in a folder of a stranger; ``path`` holds what else is installed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_pytest_loads_the_plugin_without_torch_and_without_gancores_modules() -> None:
    code = (
        "import sys, gancore.testing.pytest_plugin\n"
        "own = {m for m in sys.modules if m.startswith('gancore')}\n"
        "assert own == {'gancore', 'gancore.testing', 'gancore.testing.pytest_plugin'}, own\n"
        "assert not {'torch', 'numpy', 'pydantic', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gan-plugin", "hinje"], "unknown plugin 'hinje' (did you mean 'hinge'?)"),
        (["--gan-set", "r1.gamma=1"], "name one with --gan-plugin"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # each is a process of its own
            for case in (
                (["--gan-plugin", "dcgan"], "'dcgan' is a network"),
                (["--gan-plugin", "r1", "--gan-with", "hinje"], "unknown plugin 'hinje' (did you mean 'hinge'?)"),
                (
                    ["--gan-plugin", "r1", "--gan-set", "r1.gama=1"],
                    "unknown option 'r1.gama' (did you mean 'gamma'?)",
                ),
                (["--gan-plugin", "r1", "--gan-set", "r1.gamma"], "expected key=value"),
            )
        ),
    ],
)
def test_a_wrong_call_is_a_usage_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = pytest_in(tmp_path, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert message in done.stderr


@pytest.mark.slow
def test_the_rules_run_in_any_folder_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_other(): assert False\n")
    done = pytest_in(tmp_path, "--gan-plugin", "adaptivemix", "--deselect", "adaptivemix::card", "-v")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("adaptivemix::")]
    assert {line.split()[0].removeprefix("adaptivemix::") for line in lines} == set(RULES) - {"card"}
    assert "test_other" not in done.stdout
    listed = pytest_in(
        tmp_path, "--gan-plugin", "adaptivemix", "--collect-only", "-q", "test_other.py", "-k", "state or other"
    )
    assert listed.stdout.splitlines()[:2] == ["adaptivemix::state", "test_other.py::test_other"]


@pytest.mark.slow
def test_options_and_companions_reach_the_runs(tmp_path: Path) -> None:
    arguments = ["--gan-set", "adaptivemix.preset=official", "--gan-with", "r1", "--gan-with", "hinge"]
    done = pytest_in(tmp_path, "--gan-plugin", "gancore-adaptivemix", *arguments, "-k", "state or order", "-v")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


# What a subject runs with.


def bench_for(*needs: str, offers: str = "", **given: Any) -> Bench:
    class Needy(Method):
        pass

    claims = Claims(needs=tuple(Need(need, "it says so") for need in needs), offers=frozenset(offers.split()))
    registry = registry_with(spec_of(Needy, "needy", claims=lambda chosen: claims))
    return Bench(Subject("needy", registry=registry, **given))


@pytest.mark.parametrize(
    ("needs", "network", "conditional"),
    [
        ((), "dcgan", False),
        (("data:image",), "dcgan", False),
        (("data:points",), "mlp", False),
        (("labels",), "dcgan", True),
        (("d:uncoupled", "tap:pooled"), "dcgan", False),
        (("labels", "data:points"), "mlp", True),
    ],
)
def test_network_and_data_follow_from_what_is_needed(
    needs: tuple[str, ...], network: str, conditional: bool
) -> None:
    chosen = bench_for(*needs).overrides
    assert chosen["network.name"] == network
    assert chosen.get("data.conditional", False) is conditional


def test_what_no_included_network_has_is_named() -> None:
    with pytest.raises(UnfitSubject, match=r"'needy' .* need tap:depth.*Subject\(network=…\).*--gan-set"):
        _ = bench_for("tap:depth").overrides


def test_a_missing_companion_is_named() -> None:
    assert bench_for("margin").companions == ("hinge",)
    with pytest.raises(
        UnfitSubject, match="'needy' needs margin.*it says so.*--gan-with.*margin is offered by .*hinge"
    ):
        _ = bench_for("margin", companions=("wgan",)).companions


def test_an_objective_brings_itself_and_a_companion_that_refuses_hinge_gets_another_one() -> None:
    assert Bench(Subject("lsgan")).companions == ()
    assert Bench(Subject("lsgan", companions=("r1", "hinge"))).companions == ("r1",)


def test_a_network_that_was_named_is_taken() -> None:
    assert Bench(Subject("r1", network="sngan")).overrides["network.name"] == "sngan"
    assert Bench(Subject("r1", {"network.name": "mlp"})).overrides["network.name"] == "mlp"
