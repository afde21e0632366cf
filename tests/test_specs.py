"""Claims: what makes a mix possible, and the messages when it is not."""

from __future__ import annotations

import pytest

from gancore.api import Claims, Clash, MethodSpec, Need
from gancore.errors import PluginError
from gancore.specs import check_claims

OWNER = Claims(exclusive={"objective": "drop -p a"}, offers=frozenset({"margin"}))


def test_two_owners_are_both_named_with_the_way_out() -> None:
    other = Claims(exclusive={"objective": "set b.as_term = true"})
    with pytest.raises(PluginError) as caught:
        check_claims({"b": other, "a": OWNER})
    assert str(caught.value) == (
        "objective claimed by both 'a' and 'b'; keep one: drop -p a; or set b.as_term = true"
    )
    assert caught.value.exit_code == 3


def test_any_exclusive_claim_has_one_owner() -> None:
    claims = Claims(exclusive={"penalty:interpolated": "set gp = 0"})
    with pytest.raises(
        PluginError, match="penalty:interpolated claimed by both 'x' and 'y'; keep one: set gp = 0"
    ):
        check_claims({"x": claims, "y": claims})


def test_a_clash_shows_its_message() -> None:
    refusing = Claims(clashes=(Clash("mixes-scores", "set mixer.adv_on = clean"),))
    mixing = Claims(tags=frozenset({"mixes-scores"}))
    with pytest.raises(PluginError, match="'refuser' and 'mixer' cannot be mixed: set mixer.adv_on = clean"):
        check_claims({"refuser": refusing, "mixer": mixing})
    check_claims({"refuser": refusing})
    check_claims({"mixer": mixing, "twin": mixing})


def test_needs_of_methods_are_met_by_offers() -> None:
    controller = Claims(needs=(Need("margin", "it counts signs; take another objective"),))
    check_claims({"controller": controller, "a": OWNER})
    with pytest.raises(PluginError, match="'controller' needs margin: it counts signs"):
        check_claims({"controller": controller})


def test_needs_of_networks_and_data_are_checked_once_those_are_known() -> None:
    claims = {"m": Claims(needs=(Need("tap:trunk", "set m.tap"),))}
    check_claims(claims)
    check_claims(claims, frozenset({"tap:trunk"}))
    with pytest.raises(PluginError, match="'m' needs tap:trunk .taps: pooled.: set m.tap"):
        check_claims(claims, frozenset({"tap:pooled"}))


@pytest.mark.parametrize(
    ("api", "message"), [((2, 0), "hook API 2.0; this gancore has 1.0"), ((1, 9), "upgrade gancore")]
)
def test_a_plugin_for_another_api_is_refused(api: tuple[int, int], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        MethodSpec(name="m", summary="", target="x:Y", api=api).check_api()


def test_a_target_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(
        PluginError, match="plugin 'm' cannot be loaded from 'no_such:Thing': ModuleNotFoundError"
    ):
        MethodSpec(name="m", summary="", target="no_such:Thing").load()
