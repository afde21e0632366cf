"""What the methods say of themselves: claims, what they refuse, what they warn of."""

from __future__ import annotations

import pytest

from gancore.api import Claims, ConfigError, PluginError
from gancore.specs import check_claims
from gancore.testing import tiny_session
from gancore_icr import CR, ICR
from gancore_icr.options import CrOptions, IcrOptions


def test_claims_follow_the_options() -> None:
    claims = ICR.claims(IcrOptions())
    assert claims.exclusive == {"consistency:real": "set icr.lambda_real = 0"}
    assert claims.tags == {"spreads-fakes", "invariant:translation"}
    assert {need.capability for need in claims.needs} == {"data:image", "scalar-logit"}
    quiet = ICR.claims(IcrOptions(lambda_real=0, lambda_gen=0, transform="flip", output="pooled"))
    assert quiet.exclusive == {}
    assert quiet.tags == frozenset()
    assert {need.capability for need in quiet.needs} == {"data:image", "tap:pooled"}
    latent = ICR.claims(IcrOptions(lambda_real=0, lambda_fake=0))
    assert latent.tags == {"spreads-fakes"}
    assert {need.capability for need in latent.needs} == {"scalar-logit"}
    assert ICR.claims(IcrOptions(lambda_real=0, lambda_fake=0, lambda_dis=0, lambda_gen=0)) == Claims()
    assert CR.claims(CrOptions()).tags == {"invariant:translation"}
    assert CR.claims(CrOptions(max_shift=0.0)).tags == frozenset()
    assert CR.claims(CrOptions(lambda_real=0)) == Claims()


def test_consistency_on_reals_counts_once() -> None:
    message = "consistency:real claimed by both 'cr' and 'icr'; keep one: drop -p cr; or set icr.lambda_real = 0"
    with pytest.raises(PluginError, match=message):
        tiny_session(["icr", "cr"])
    tiny_session(["icr", "cr"], {"icr.lambda_real": 0.0}).close()


@pytest.mark.parametrize("method", ["icr", "cr"])
def test_an_objective_without_logits_is_told_of_the_output_option(method: str) -> None:
    spec, options = {"icr": (ICR, IcrOptions), "cr": (CR, CrOptions)}[method]
    vector = Claims(exclusive={"objective": "drop it"}, offers=frozenset({"tap:kde.phi"}))
    with pytest.raises(
        PluginError,
        match=f"'{method}' needs scalar-logit, which 'kde' does not offer: .*{method}.output to a tap: pooled",
    ):
        check_claims({method: spec.claims(options()), "kde": vector})
    check_claims({method: spec.claims(options(output="kde.phi")), "kde": vector})


def test_points_are_refused_with_the_way_out() -> None:
    with pytest.raises(PluginError, match="'icr' needs data:image: .*lambda_real = 0 and icr.lambda_fake = 0"):
        tiny_session(["icr"], {"network.name": "mlp"})
    with pytest.raises(PluginError, match="'cr' needs data:image: .*drop -p cr"):
        tiny_session(["cr"], {"network.name": "mlp"})


BAD = {
    "an unknown tap": (
        {"icr.output": "poolde"},
        "needs tap:poolde .did you mean .pooled..*: icr.output compares D there",
    ),
    "a T that does nothing": ({"icr.transform": "translation", "icr.max_shift": 0.0}, "changes nothing"),
    "a shift below a pixel": (
        {"icr.transform": "translation", "icr.max_shift": 0.05},
        "moves 16x16 images by less than a pixel.*at least 0.0625",
    ),
    "another T": ({"icr.transform": "rotation"}, "icr.transform = 'rotation'"),
    "no noise": ({"icr.sigma": 0.0}, "icr.sigma = 0.0: expected a value > 0"),
    "a negative weight": ({"icr.lambda_gen": -0.5}, "expected a value >= 0"),
    "a shift beyond the image": ({"icr.max_shift": 1.5}, "expected a value <= 1"),
    "an unknown preset": ({"icr.preset": "bigan"}, "biggan"),
    "an option that does not exist": ({"icr.lambda_rael": 1.0}, "lambda_real"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises((ConfigError, PluginError), match=message):
        tiny_session(["icr"], options)


@pytest.mark.parametrize("method", ["icr", "cr"])
def test_the_user_is_told_where_mirror_images_may_leak(method: str) -> None:
    def warnings(**given: object) -> list[str]:
        session = tiny_session([method], {key.replace("__", "."): value for key, value in given.items()})
        session.close()
        return [text for text in session.warnings if "mirror images" in text]

    (text,) = warnings()
    assert text.startswith(f"{method}: ")
    assert f"set {method}.transform = translation" in text
    assert not warnings(data__mirror=True)
    assert not warnings(**{f"{method}__transform": "translation"})
    off = {f"{method}__lambda_{side}": 0.0 for side in (["real", "fake"] if method == "icr" else ["real"])}
    assert not warnings(**off)


def test_the_user_is_told_when_g_follows_its_term_too_far() -> None:
    session = tiny_session(["icr"])
    advise = session.manager.methods["icr"].advise
    assert not advise({"near": 0.001, "far": 0.6})
    assert not advise({"near": 0.0, "far": 0.0})
    assert not advise({})
    assert "icr.lambda_gen" in advise({"near": 0.4, "far": 0.6})["neighbours"]
    assert "icr.gen_bound" in advise({"near": 3.0, "far": 50.0})["range"]
    session.close()
