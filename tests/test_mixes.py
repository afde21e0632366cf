"""Every mix of the methods in this repository: what can be mixed trains and resumes, the rest says why not.

The table of pairs below is written by hand, from what the methods are; the code adds up what they claim. A
method says with whom it was tested, and may say no more than stands here.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pytest

from gancore import checkpoint
from gancore.api import PluginError
from gancore.assembly import Session
from gancore.cli.plugins import compatibility
from gancore.plugin_manager import discover
from gancore.testing import different, largest_relative_difference, run_steps, tensors_of, tiny_session
from gancore.training import restore, state

FAST_ADA = {"ada.p": 0.5, "ada.interval": 1, "ada.kimg": 0.1}
VARIANTS: dict[str, dict[str, object]] = {
    "ada": FAST_ADA,
    "adaptivemix": {},
    "adaptivemix official": {"adaptivemix.preset": "official"},
    "augself": {},
    "cnlsgan": {},
    "cr": {},
    "diffaugment": {},
    "gp": {},
    "hinge": {},
    "icr": {},
    "kdd": {"kdd.anchors": 1},
    "kdd term": {"kdd.as_term": True, "kdd.lambda_jac": 1e-5},
    "lsgan": {},
    "nonsaturating": {},
    "r1": {"r1.every": 2},
    "r2": {},
    "relativistic": {},
    "wgan": {},
}
OBJECTIVES = ("cnlsgan", "hinge", "kdd", "lsgan", "nonsaturating", "relativistic", "wgan")
BUILT_IN = ("gp", "hinge", "lsgan", "nonsaturating", "r1", "r2", "relativistic", "wgan")

INCOMPATIBLE: dict[tuple[str, str], tuple[str, ...]] = {
    **{pair: ("objective claimed by both",) for pair in itertools.combinations(OBJECTIVES, 2)},
    ("ada", "augself"): ("'augself' and 'ada'", "heads must know", "augself.preset = plus"),
    ("ada", "kdd"): ("'kdd' and 'ada'", "kdd.augmented = true", "kdd.as_term = true"),
    ("ada", "wgan"): ("'ada' needs margin", "ada.target = 0"),
    ("adaptivemix official", "kdd"): ("'kdd' and 'adaptivemix'", "adaptivemix.adv_on = clean"),
    ("adaptivemix official", "kdd term"): ("'kdd' and 'adaptivemix'", "adaptivemix.adv_on = clean"),
    ("augself", "diffaugment"): ("augment:diffaugment", "'augself' and 'diffaugment'", "set augself.policy"),
    ("cnlsgan", "gp"): ("penalty:interpolated", "'cnlsgan' and 'gp'", "cnlsgan.lambda_gp = 0", "drop -p gp"),
    ("cr", "icr"): ("consistency:real", "'cr' and 'icr'", "icr.lambda_real = 0", "drop -p cr"),
    ("cr", "kdd"): ("'cr' needs scalar-logit", "cr.output"),
    ("diffaugment", "kdd"): ("'kdd' and 'diffaugment'", "kdd.augmented = true"),
    ("gp", "kdd"): ("'gp' needs scalar-logit",),
    ("gp", "wgan"): ("'gp' and 'wgan'", "wgan.clip = 0"),
    ("icr", "kdd"): ("'icr' needs scalar-logit", "icr.output"),
    ("kdd", "r1"): ("'r1' needs scalar-logit",),
    ("kdd", "r2"): ("'r2' needs scalar-logit",),
}

CAUTIONED: dict[tuple[str, str], str] = {
    ("ada", "diffaugment"): "one after the other in the order of -p",
    ("adaptivemix official", "cnlsgan"): "adaptivemix.adv_on = mixed_mean",
    ("adaptivemix official", "hinge"): "adaptivemix.adv_on = mixed_mean",
    ("adaptivemix official", "lsgan"): "adaptivemix.adv_on = mixed_mean",
    ("augself", "cr"): "cr.transform = flip",
    ("augself", "icr"): "icr.transform = flip",
    ("cnlsgan", "icr"): "opposing forces on G",
}

WAYS_OUT: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "kdd on augmented images": (("kdd", "ada"), {"kdd.augmented": True, **FAST_ADA}),
    "kdd and consistency of its features": (("kdd", "icr"), {"icr.output": "kdd.phi"}),
    "kdd and a shrunk phi_un": (("kdd", "adaptivemix"), {"adaptivemix.tap": "kdd.phi_un"}),
    "kdd and the reconstruction alone": (("kdd", "cnlsgan"), {"cnlsgan.adv": False, "cnlsgan.lambda_gp": 0.0}),
    "official features, clean scores": (
        ("kdd", "adaptivemix"),
        {"adaptivemix.preset": "official", "adaptivemix.adv_on": "clean"},
    ),
    "augself and flips": (("augself", "icr"), {"icr.transform": "flip"}),
    "wgan with a penalty": (("wgan", "gp"), {"wgan.clip": 0.0}),
    "fixed strength without a margin": (("wgan", "ada"), {"ada.target": 0.0, "ada.p": 0.4}),
    "one penalty on interpolates": (("cnlsgan", "gp"), {"cnlsgan.lambda_gp": 0.0}),
    "cr beside bcr of fakes": (("cr", "icr"), {"icr.lambda_real": 0.0}),
}


def method(variant: str) -> str:
    return variant.split()[0]


def pairs() -> list[tuple[str, str]]:
    return [pair for pair in itertools.combinations(sorted(VARIANTS), 2) if method(pair[0]) != method(pair[1])]


def compatible(variants: tuple[str, ...]) -> bool:
    return not any(pair in INCOMPATIBLE for pair in itertools.combinations(sorted(variants), 2))


def triples() -> list[tuple[str, ...]]:
    """All of the methods that have plugins, with at least one that augments."""
    plugins = [variant for variant in sorted(VARIANTS) if variant not in BUILT_IN]
    return [
        triple
        for triple in itertools.combinations(plugins, 3)
        if len({method(variant) for variant in triple}) == 3
        and {"ada", "augself", "diffaugment"} & set(triple)
        and compatible(triple)
    ]


@functools.cache
def registry():
    return discover()


def session_of(variants: tuple[str, ...], **options: object) -> Session:
    given = {key: value for variant in variants for key, value in VARIANTS[variant].items()}
    return tiny_session([method(v) for v in variants], {**given, "data.fraction": 0.05, **options}, registry())


def trains_and_resumes(plugins, options, folder: Path) -> Session:
    """Two steps; and one, a checkpoint on disk, and one from there: all tensors alike, all losses finite."""
    unbroken = run_steps(tiny_session(plugins, options, registry()), 1)
    tensors, meta = state(unbroken)
    checkpoint.save(folder, 1, tensors, meta)
    run_steps(unbroken, 1)
    assert unbroken.trainer.telemetry.is_finite()
    resumed = tiny_session(plugins, options, registry())
    restore(resumed, checkpoint.load_latest(folder))
    run_steps(resumed, 1)
    assert different(tensors_of(unbroken), tensors_of(resumed)) == []
    resumed.close()
    return unbroken


def quick_or_slow(pair: tuple[str, str]) -> object:
    """A quarter of the pairs, with every variant in some, is in the default selection; the rest is slow."""
    first, second = (list(VARIANTS).index(variant) for variant in pair)
    quick = (first + second) % 4 == 0 or "kdd" in pair
    return pytest.param(pair, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("pair", [quick_or_slow(p) for p in pairs() if compatible(p)], ids=" + ".join)
def test_a_compatible_pair(pair, tmp_path) -> None:
    options = {"data.fraction": 0.05, **VARIANTS[pair[0]], **VARIANTS[pair[1]]}
    session = trains_and_resumes([method(variant) for variant in pair], options, tmp_path)
    named = set(map(method, pair))
    told = [text for text in session.warnings if " with " in text.split(":")[0]]
    assert bool(told) == (pair in CAUTIONED)
    if told:
        assert CAUTIONED[pair] in told[0]
    assert named <= set(session.manager.methods)
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("triple", triples(), ids=" + ".join)
def test_a_compatible_triple_with_an_augmenter(triple, tmp_path) -> None:
    options = {"data.fraction": 0.05}
    for variant in triple:
        options.update(VARIANTS[variant])
    trains_and_resumes([method(variant) for variant in triple], options, tmp_path).close()


@pytest.mark.parametrize("pair", sorted(INCOMPATIBLE), ids=" + ".join)
def test_an_incompatible_pair(pair) -> None:
    """Before any data is known, and again when a run is built."""
    options = {**VARIANTS[pair[0]], **VARIANTS[pair[1]]}
    answer = compatibility(registry(), [method(variant) for variant in pair], options)
    assert not answer["compatible"]
    text = "; ".join(answer["reasons"])
    assert [part for part in INCOMPATIBLE[pair] if part not in text] == []
    assert all(method(variant) in text for variant in pair)
    assert len(answer["reasons"]) == 1, "one reason a pair"
    with pytest.raises(PluginError) as caught:
        session_of(pair)
    assert str(caught.value) == text


@pytest.mark.parametrize("way", WAYS_OUT)
def test_the_ways_out_lead_out(way, tmp_path) -> None:
    plugins, options = WAYS_OUT[way]
    trains_and_resumes(list(plugins), {"data.fraction": 0.05, **options}, tmp_path).close()


FOUR = ("nonsaturating", "kdd term", "icr", "adaptivemix")
FIVE = (*FOUR, "ada")


@pytest.mark.parametrize("mix", [FOUR, FIVE, ("augself", "cnlsgan", "adaptivemix", "kdd term")], ids=" + ".join)
def test_order_and_execution_change_nothing(mix) -> None:
    """The order of ``-p`` no bit; concatenated and one by one 1e-10 of float64.

    Without a hinge, where the gradient of the last bias is rounding alone and Adam makes it large.
    """
    exact = {"compute.precision": "float64"}
    runs = [
        run_steps(session_of(chosen, **exact, **{"compute.execution": how}), 2)
        for chosen, how in ((mix, "concat"), (tuple(reversed(mix)), "concat"), (mix, "sequential"))
    ]
    tensors = [tensors_of(session) for session in runs]
    for session, found in zip(runs, tensors, strict=True):
        del found["telemetry.sums"]
        session.close()
    assert different(tensors[0], tensors[1]) == []
    assert largest_relative_difference(tensors[0], tensors[2]) < 1e-10


def test_shared_views_are_forwarded_once() -> None:
    """Four methods that read reals, and D looks at each set of images once."""
    session = session_of(("hinge", "kdd term", "icr", "adaptivemix"), **{"kdd.lambda_jac": 0.0})
    program = session.plan.full_program("d")
    views = [view for group in program.groups for view in group.views]
    own = {"adaptivemix.fake", "adaptivemix.real", "icr.fake_t", "icr.near_seen", "icr.real_t"}
    assert sorted(views) == sorted({"real", "fake", *own})
    assert len(program.groups) == 1
    session.close()


def test_methods_say_with_whom_they_were_tested() -> None:
    tested: dict[str, set[str]] = {method(variant): set() for variant in VARIANTS}
    for pair in pairs():
        if compatible(pair):
            first, second = map(method, pair)
            tested[first].add(second)
            tested[second].add(first)
    said = {name: set(registry().methods[name].tested_with) for name in tested}
    expected = {
        name: others & set(BUILT_IN) if name in BUILT_IN else others for name, others in sorted(tested.items())
    }
    assert said == expected


def test_heads_read_a_tap_that_another_method_derives() -> None:
    given = {"kdd.as_term": True, "augself.tap": "kdd.phi"}
    run_steps(tiny_session(["augself", "hinge", "kdd"], given), 1).close()


def test_without_its_terms_augself_is_an_augmentation_that_kdd_does_not_see() -> None:
    with pytest.raises(
        PluginError, match="'kdd' and 'augself' cannot be mixed: KDD is evaluated on clean images"
    ):
        tiny_session(["kdd", "augself"], {"augself.lambda_d": 0.0, "augself.lambda_g": 0.0})
