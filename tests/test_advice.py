"""What the user is told besides errors: of options, of pairs, of the numbers of a run."""

from __future__ import annotations

import pytest
from methods_for_tests import BRIGHTEN, spec_of

import gancore
from gancore.api import Claims, Clash, ConfigError, Method, MethodSpec, Need, PluginError, hookimpl
from gancore.cli.plugins import compatibility
from gancore.plugin_manager import discover
from gancore.specs import conflicts, pairs_tested, warnings_of
from gancore.testing import registry_with, tiny_config, tiny_session


class Advisor(Method):
    answer: object = None

    @hookimpl
    def declare(self, plan):
        plan.watch("d", reads={"real": ("logits",)})

    @hookimpl
    def after_d_step(self, step):
        step.log(size=step.d["real"].logits.abs().mean())

    @hookimpl
    def advise(self, values):
        assert list(values) == ["size"]
        return {"size": f"large: {values['size']:.3f}"} if self.answer is None else self.answer


def test_warnings_and_cautions_name_who_gives_them() -> None:
    claims = {
        "b": Claims(warnings=("b.tau = 3 does nothing",), cautions=(Clash("loud", "turn a down"),)),
        "a": Claims(tags=frozenset({"loud"})),
    }
    assert warnings_of(claims) == ["b: b.tau = 3 does nothing", "b with a: turn a down"]
    del claims["a"]
    assert warnings_of(claims) == ["b: b.tau = 3 does nothing"]


def test_a_session_holds_them() -> None:
    spec = spec_of(Advisor, "adviser", claims=lambda chosen: Claims(warnings=("mind the gap",)))
    session = tiny_session(["adviser"], registry=registry_with(spec))
    assert session.warnings == ["adviser: mind the gap"]
    session.close()


def test_advice_is_given_once_a_run_and_kept_in_its_metrics(tmp_path) -> None:
    registry = registry_with(spec_of(Advisor, "adviser"))
    config = tiny_config(["adviser"], {"output.log_every": 1, "output.snap": 2})
    run = gancore.train(config, registry=registry, outdir=tmp_path / "run")
    said = [row for row in run.metrics if row.get("event") == "warning"]
    assert [(row["step"], row["method"], row["name"]) for row in said] == [(1, "adviser", "size")]
    assert said[0]["what"].startswith("large: ")
    for suffix in ("json", "safetensors"):
        (run.path / "checkpoints" / f"step-00000004.{suffix}").unlink()
    resumed = gancore.run.resume(run.path, registry=registry)
    assert [row for row in resumed.metrics if row.get("event")] == said


@pytest.mark.parametrize("answer", ["text", {"name": 3}])
def test_wrong_advice_names_the_plugin(tmp_path, answer) -> None:
    wrong = type("Wrong", (Advisor,), {"answer": answer})
    registry = registry_with(spec_of(wrong, "wrong"))
    with pytest.raises(PluginError, match=r"plugin 'wrong', hook 'advise' \(step 4\) returned .*texts by name"):
        gancore.train(tiny_config(["wrong"]), registry=registry, outdir=tmp_path / "run")


def test_weight_zero_leaves_no_conflict_behind() -> None:
    registry = discover()
    both = compatibility(registry, ["hinge", "lsgan"], {})
    assert both["reasons"] == [
        "objective claimed by both 'hinge' and 'lsgan'; keep one: drop -p hinge; or drop -p lsgan"
    ]
    answer = compatibility(registry, ["hinge", "lsgan"], {"lsgan.weight": 0.0})
    assert (answer["compatible"], answer["objective"]) == (True, "hinge")


def test_pairs_are_tested_when_either_says_so() -> None:
    specs = {
        name: MethodSpec(name=name, summary="", target="", tested_with=others)
        for name, others in {"a": ("b",), "b": (), "c": ()}.items()
    }
    assert pairs_tested(specs, ["c", "b", "a"]) == {("a", "b"): True, ("a", "c"): False, ("b", "c"): False}


def test_setup_may_warn_of_what_only_shapes_show() -> None:
    class Wide(Method):
        @hookimpl
        def setup(self, run):
            run.warn(f"{run.shape} is wide")

    session = tiny_session(["wide"], registry=registry_with(spec_of(Wide, "wide")))
    assert session.warnings == ["wide: (1, 16, 16) is wide"]
    session.close()


class Maybe(Method):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", weight=0.0, reads={"real": ("logits",)})

    @hookimpl
    def augment(self, run):
        return None


class Tells(Maybe):
    @hookimpl
    def setup(self, run):
        run.warn("everything is off")


def test_a_method_that_does_nothing_is_named_once() -> None:
    session = tiny_session(
        ["maybe", "tells"], registry=registry_with(spec_of(Maybe, "maybe"), spec_of(Tells, "tells"))
    )
    assert len(session.warnings) == 2
    assert session.warnings[0] == "tells: everything is off"
    assert session.warnings[1].startswith("maybe: it does nothing with these options")
    session.close()


def test_an_augmentation_that_no_term_looks_at_is_refused() -> None:
    registry = registry_with(BRIGHTEN)
    with pytest.raises(
        ConfigError, match="'brighten' would do nothing.*'kdd' judges clean ones.*drop -p brighten"
    ):
        tiny_session(["kdd", "brighten"], registry=registry)
    for plugins, options in ((["kdd", "brighten"], {"kdd.augmented": True}), (["brighten"], {})):
        tiny_session(plugins, options, registry=registry).close()


def test_a_need_that_the_objective_leaves_unmet_tells_how_to_change_it() -> None:
    owner = Claims(exclusive={"objective": "set b.as_term = true"})
    needs = Claims(needs=(Need("margin", "set a.target = 0"),))
    assert conflicts({"a": needs, "b": owner}) == [
        "'a' needs margin, which 'b' does not offer: set a.target = 0; or, to have another objective: set "
        "b.as_term = true"
    ]
