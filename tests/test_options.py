"""Options: types, ranges, presets, nearest names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from gancore.errors import ConfigError
from gancore.options import Options, describe_options, option, resolve_options


@dataclass(frozen=True, kw_only=True)
class Chosen(Options):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"calm": {}, "wild": {"alpha": 9.0, "mode": "b"}}
    preset: Literal["calm", "wild"] = option("calm", help="Bundle.")
    alpha: float = option(1.0, help="A number.", above=0, maximum=10)
    count: int = option(3, help="A count.", minimum=1)
    mode: Literal["a", "b"] = option("a", help="A choice.")
    betas: tuple[float, float] = option((0.5, 0.9), help="Two numbers.", minimum=0, below=1)
    flag: bool = option(False, help="A switch.")
    text: str = option("x", help="A text.")

    def check(self) -> None:
        if self.flag and self.count == 7:
            raise ValueError("flag does not go with count = 7")


def resolve(**given: Any) -> Chosen:
    return resolve_options(Chosen, given, where="m.")[0]


def test_explicit_wins_over_preset_over_default() -> None:
    chosen, origins = resolve_options(Chosen, {"preset": "wild", "mode": "a"}, where="m.")
    assert (chosen.alpha, chosen.mode, chosen.count) == (9.0, "a", 3)
    assert (origins["alpha"], origins["mode"], origins["count"]) == ("preset wild", "given", "default")


def test_defaults_of_others_yield_to_presets_and_values() -> None:
    chosen, origins = resolve_options(Chosen, {"preset": "wild"}, where="m.", defaults={"alpha": 5.0, "count": 4})
    assert (chosen.alpha, chosen.count) == (9.0, 4)
    assert origins["count"] == "network default"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alhpa": 1.0}, r"unknown option 'm.alhpa' \(did you mean 'alpha'\?\); options: weight, preset, alpha"),
        ({"alpha": 0}, r"m.alpha = 0.0: expected a value > 0"),
        ({"alpha": 11.0}, "expected a value <= 10"),
        ({"alpha": float("nan")}, "finite"),
        ({"alpha": "big"}, "m.alpha = 'big': input should be a valid number"),
        ({"count": 2.5}, "m.count = 2.5: input should be a valid integer"),
        ({"count": True}, "m.count = True"),
        ({"flag": 1}, "m.flag = 1"),
        ({"mode": "c"}, "m.mode = 'c': input should be 'a' or 'b'"),
        ({"betas": [0.5]}, "m.betas"),
        ({"betas": [0.5, 1.0]}, "m.betas = 1.0: expected a value < 1"),
        ({"preset": "wold"}, r"unknown preset 'wold' for 'm.preset' \(did you mean 'wild'\?\)"),
        ({"flag": True, "count": 7}, "options of 'm' do not fit together: flag does not go with count = 7"),
        ({"weight": -1}, "m.weight = -1.0: expected a value >= 0"),
    ],
)
def test_wrong_values_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(**given)


def test_integers_are_numbers_and_lists_are_tuples() -> None:
    chosen = resolve(alpha=2, betas=[0, 0.5])
    assert chosen.alpha == 2.0
    assert chosen.betas == (0.0, 0.5)


def test_the_description_has_every_option() -> None:
    rows = {row["name"]: row for row in describe_options(Chosen)}
    assert rows["alpha"] == {
        "name": "alpha",
        "type": "float",
        "default": 1.0,
        "range": "> 0, <= 10",
        "help": "A number.",
    }
    assert rows["mode"]["type"] == "a | b"
    assert set(rows) == {"weight", "preset", "alpha", "count", "mode", "betas", "flag", "text"}
