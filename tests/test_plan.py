"""Declarations become programs: what is forwarded, for whom, and what is refused."""

from __future__ import annotations

import pytest
from methods_for_tests import ALL, Shrink, spec_of

from gancore.api import Claims, Method, Penalty, hookimpl
from gancore.declaration import Declaration, Declarations
from gancore.errors import PluginError
from gancore.networks.spec import TapSpec
from gancore.plan import StepPlan
from gancore.testing import registry_with, tiny_session

TAPS = {"trunk": TapSpec((4, 4, 4), ""), "pooled": TapSpec((4,), "")}


def plan_of(*declare, claims=None, **more) -> StepPlan:
    """A plan of an objective `adv` and of methods `m0`, `m1`, … that declare something."""
    declarations = Declarations()
    all_claims = {"adv": Claims(exclusive={"objective": "drop -p adv"})}
    adv = Declaration("adv", 1.0, all_claims["adv"], declarations, TAPS, (1, 16, 16), 0)
    adv.term("adv", "d", scores=("real", "fake"))
    adv.term("adv", "g", scores=("fake",))
    for index, method in enumerate(declare):
        name = f"m{index}"
        all_claims[name] = (claims or {}).get(name, Claims())
        method(Declaration(name, more.pop("weight", 1.0), all_claims[name], declarations, TAPS, (1, 16, 16), 0))
    return StepPlan(declarations, all_claims, taps=TAPS, **more)


def groups(plan: StepPlan, phase: str = "d"):
    program = plan.full_program(phase)
    assert program is not None
    return [group.views for group in program.groups]


def test_only_what_is_read_is_forwarded() -> None:
    plan = plan_of(lambda p: p.view("m0.unused", lambda s, x: x, sources=("real",)))
    assert groups(plan) == [("real", "fake")]
    assert groups(plan, "g") == [("fake",)]


def test_raw_views_are_the_views_where_nothing_augments() -> None:
    def declare(p):
        p.term("t", "d", reads={"real_raw": ("trunk",), "real": ("trunk",)})

    assert groups(plan_of(declare)) == [("real", "fake")]
    assert groups(plan_of(declare, augmented_sides=frozenset({"real", "fake"}))) == [("real", "fake", "real_raw")]


def test_two_methods_that_ask_for_a_view_share_it() -> None:
    def declare(p):
        p.term("t", "d", reads={"fake_raw": ("pooled",)})

    plan = plan_of(declare, declare, augmented_sides=frozenset({"fake"}))
    assert groups(plan) == [("real", "fake", "fake_raw")]


def test_the_number_of_rows_is_the_sum_of_what_methods_ask_for() -> None:
    """AdaptiveMix asks for one extra view a side; its mixed features enter at a tap and cost no trunk."""
    for preset, phase, rows in (("paper", "d", 4), ("paper", "g", 1), ("official", "d", 4), ("official", "g", 2)):
        session = tiny_session(["adaptivemix"], {"adaptivemix.preset": preset})
        program = session.plan.full_program(phase)
        assert program is not None
        assert program.rows() == rows
        session.close()


def test_views_of_inactive_terms_are_not_forwarded() -> None:
    def declare(p):
        p.view("m0.extra", lambda s, x: x, sources=("real",))
        p.term("t", "d", reads={"m0.extra": ("logits",)}, every=4)

    plan = plan_of(declare)
    assert plan.program("d", 0) is not plan.program("d", 1)
    assert plan.program("d", 1) is plan.program("d", 3)
    rows = [plan.program("d", update).rows() for update in range(5)]
    assert rows == [3, 2, 2, 2, 3]


def test_lazy_terms_have_a_phase_of_their_own_when_asked() -> None:
    def declare(p):
        p.term("t", "d", every=4, penalty=Penalty("real", "real"))

    plan = plan_of(declare, lazy="separate")
    assert plan.phases == ("d", "d_reg", "g")
    assert plan.interval("d_reg") == 4
    assert groups(plan, "d_reg") == [("real",)]
    assert plan.program("d_reg", 3) is None


def test_a_zero_weight_removes_the_term_and_what_only_it_reads() -> None:
    def declare(p):
        p.view("m0.extra", lambda s, x: x, sources=("real",))
        p.term("t", "d", reads={"m0.extra": ("logits",)}, weight=0.0)

    assert groups(plan_of(declare)) == [("real", "fake")]


def test_views_that_differ_in_a_key_are_forwarded_apart() -> None:
    def declare(p):
        for name, options in (
            ("exact", {"precision": "float32"}),
            ("evaluated", {"train": False}),
            ("many", {"rows": 3}),
            ("constant", {"grad": False}),
            ("plain", {}),
        ):
            p.view(f"m0.{name}", lambda s, x: x, sources=("real",), **options)
            p.term(name, "d", reads={f"m0.{name}": ("trunk",)})

    found = groups(plan_of(declare))
    assert found == [
        ("real", "fake", "m0.plain"),
        ("m0.constant",),
        ("m0.evaluated",),
        ("m0.exact",),
        ("m0.many",),
    ]


def test_two_penalties_on_one_leaf_share_its_group() -> None:
    def declare(p):
        p.term("t", "d", penalty=Penalty("real", "real"))

    assert groups(plan_of(declare, declare)) == [("real",), ("fake",)]


def test_a_penalty_on_the_scores_follows_whoever_owns_them() -> None:
    session = tiny_session(["adaptivemix", "r1"], {"adaptivemix.preset": "official", "r1.output": "scores"})
    program = session.plan.full_program("d")
    assert program is not None
    leaf = {
        view for group in (*program.groups, *program.feature_groups) for view in group.views if group.key.leaves
    }
    assert leaf == {"real", "adaptivemix.real", "adaptivemix.real_features"}
    session.close()


BAD = {
    "unknown view": (
        lambda p: p.term("t", "d", reads={"reel": ("logits",)}),
        r"'m0' reads unknown view 'reel' \(did you mean 'real'\?\)",
    ),
    "unknown tap": (
        lambda p: p.term("t", "d", reads={"real": ("trnk",)}),
        r"'m0' reads 'trnk' of view 'real' \(did you mean 'trunk'\?\); it offers: trunk, pooled, logits, images",
    ),
    "foreign name": (
        lambda p: p.view("real2", lambda s, x: x, sources=("real",)),
        "'m0' declares 'real2'; expected a name 'm0.…'",
    ),
    "view twice": (
        lambda p: [p.latents("m0.z", lambda s, z: z) for _ in range(2)],
        "'m0' declares 'm0.z' twice",
    ),
    "term twice": (
        lambda p: [p.term("t", "d") for _ in range(2)],
        "declares term 't' of network 'd' twice",
    ),
    "interval": (lambda p: p.term("t", "d", every=0), "every = 0; expected >= 1"),
    "circle": (
        lambda p: (
            p.view("m0.a", lambda s, x: x, sources=("m0.b",)),
            p.view("m0.b", lambda s, x: x, sources=("m0.a",)),
            p.term("t", "d", reads={"m0.a": ("logits",)}),
        ),
        "in a circle: m0.a -> m0.b -> m0.a",
    ),
    "network": (lambda p: p.term("t", "D"), "declares network = 'D'; expected 'd' or 'g'"),
    "side": (
        lambda p: p.view("m0.v", None, sources=("real",), augment="Real"),
        "declares augment = 'Real'; expected None or 'real' or 'fake'",
    ),
    "labels": (
        lambda p: (
            p.view("m0.v", None, sources=("real",), labels_from="rael"),
            p.term("t", "d", reads={"m0.v": ("logits",)}),
        ),
        r"has the labels of unknown view 'rael' \(did you mean 'real'\?\)",
    ),
    "margin of a view": (lambda p: p.watch(margins=("real_raw",)), "declares side = 'real_raw'"),
    "unknown source": (
        lambda p: (
            p.view("m0.a", lambda s, x: x, sources=("rael",)),
            p.term("t", "d", reads={"m0.a": ("logits",)}),
        ),
        r"built from unknown view 'rael' \(did you mean 'real'\?\)",
    ),
    "leaf that is no ancestor": (
        lambda p: p.term("t", "d", penalty=Penalty("fake", "real")),
        "differentiates 'fake' with respect to 'real', which it is not built from",
    ),
    "penalty of G": (
        lambda p: p.term("t", "g", penalty=Penalty("fake", "fake")),
        "a penalty on images belongs to the phases of D",
    ),
    "scores without a claim": (
        lambda p: p.scores(lambda s, side: None, reads={}),
        "declares scores without claiming 'scores'",
    ),
    "unknown tap of a feature view": (
        lambda p: p.feature_view("m0.f", lambda s, x: x, tap="trnk", sources=(("real", "trunk"),)),
        r"enters D at tap 'trnk' \(did you mean 'trunk'\?\)",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_declaration_is_refused_before_anything_runs(what: str) -> None:
    declare, message = BAD[what]
    with pytest.raises(PluginError, match=message):
        plan_of(declare)


def test_scores_that_no_objective_reads_are_refused() -> None:
    class Silent(Method):
        @hookimpl
        def declare(self, plan):
            plan.term("adv", "d", reads={"real": ("logits",)})
            plan.term("adv", "g", reads={"fake": ("logits",)})

    claims = Claims(exclusive={"objective": "drop -p silent"}, offers=frozenset({"scalar-logit"}))
    registry = registry_with(spec_of(Silent, "silent", claims=lambda chosen: claims))
    with pytest.raises(
        PluginError, match="'adaptivemix' claims scores, but the objective 'silent' reads none.*adv_on = clean"
    ):
        tiny_session(["silent", "adaptivemix"], {"adaptivemix.preset": "official"}, registry)


def test_an_objective_of_weight_zero_is_refused() -> None:
    with pytest.raises(PluginError, match="the one that is named has weight 0; give it a weight above 0"):
        tiny_session(["hinge"], {"hinge.weight": 0})


def test_needs_are_checked_against_networks_and_data() -> None:
    registry = registry_with(*ALL)
    with pytest.raises(PluginError, match="'brighten' needs data:image: it brightens images"):
        tiny_session(["brighten"], {"network.name": "mlp"}, registry)
    with pytest.raises(PluginError, match="'head' needs margin, which 'wgan' does not offer: it counts signs"):
        tiny_session(["head", "wgan"], registry=registry)
    with pytest.raises(PluginError, match="'adaptivemix' needs tap:trnk.*set adaptivemix.tap"):
        tiny_session(["adaptivemix"], {"adaptivemix.tap": "trnk"})


def test_the_description_tells_owners_groups_and_rows() -> None:
    session = tiny_session(["adaptivemix", "r1"], {"r1.every": 16})
    description = session.plan.describe()
    assert description["objective"] == "nonsaturating"
    assert description["scores"] == "logits"
    d_phase = description["phases"][0]
    assert d_phase["phase"] == "d"
    assert d_phase["rows"] == 4
    terms = {term["name"]: term for term in d_phase["terms"]}
    assert terms["r1/penalty"]["every"] == 16
    assert terms["r1/penalty"]["gradient_of"] == "real"
    session.close()


def test_a_misspelt_hook_and_a_wrapper_are_refused() -> None:
    class Misspelt(Shrink):
        @hookimpl
        def before_d_stpe(self, step):
            pass

    class Wrapping(Shrink):
        @hookimpl(wrapper=True)
        def after_d_step(self, step):
            return (yield)

    class Demanding(Shrink):
        @hookimpl
        def after_d_step(self, step, optimizer):
            pass

    for cls, message in (
        (Misspelt, r"marks 'before_d_stpe' with @hookimpl.*did you mean 'before_d_step'"),
        (Wrapping, "plugin 'm' wraps the training hook 'after_d_step'"),
        (Demanding, "optimizer"),
    ):
        with pytest.raises(PluginError, match=message):
            tiny_session(["m"], registry=registry_with(spec_of(cls, "m")))


def test_the_objective_alone_judges_logits_whoever_owns_the_scores() -> None:
    session = tiny_session(["adaptivemix"], {"adaptivemix.preset": "official"})
    full, alone = session.plan.full_program("d"), session.plan.objective_program("d")
    assert (full.rows(), alone.rows()) == (4, 2)
    assert session.plan.objective_program("d_reg") is None
    session.close()
