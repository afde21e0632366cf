"""What a method says of itself without torch and without data: name, options, claims, needs and offers.

The table of compatible pairs is the sum of these statements; the core names no method.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gancore.errors import PluginError, nearest
from gancore.options import Options

HOOK_API = (1, 0)
"""Version of the hooks: another major is refused, a newer minor is refused with "upgrade gancore"."""

OBJECTIVE = "objective"
"""Claim of the method that owns the adversarial loss. Exactly one method of a run holds it."""

SCORES = "scores"
"""Claim of the method that replaces D's logits on the base views by scores of its own. At most one."""


@dataclass(frozen=True)
class Need:
    """A capability without which the method cannot run.

    ``capability`` is offered by another method (``"margin"``), by the discriminator (``"tap:NAME"``,
    ``"d:uncoupled"``) or by the data (``"data:image"``, ``"data:points"``, ``"labels"``); ``why`` completes
    "METHOD needs CAPABILITY: …" and says how to get it.
    """

    capability: str
    why: str


@dataclass(frozen=True)
class Clash:
    """A capability tag of *another* method that this one cannot, or should not, work with.

    ``message`` says why and gives the way out.
    """

    tag: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Everything a method claims for one set of options.

    Args:
        exclusive: what only one method of a run may hold (``"objective"``, ``"scores"``,
            ``"penalty:interpolated"``, …), each with the way to give it up, as it is shown in a conflict.
        tags: capability tags that others may clash with.
        clashes: tags of others that this method refuses.
        cautions: tags of others that it works with, at a price that the user is told.
        needs: capabilities that must be present.
        offers: capabilities that others may need.
        warnings: what the user is told of these options whatever else is in the run.
    """

    exclusive: Mapping[str, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    clashes: tuple[Clash, ...] = ()
    cautions: tuple[Clash, ...] = ()
    needs: tuple[Need, ...] = ()
    offers: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A method as it is registered: readable without importing torch.

    Args:
        name: what the user writes after ``-p``; lower-case letters, digits, ``-`` and ``_``, a letter first.
        summary: one sentence.
        target: ``"module:Class"`` of the :class:`~gancore.api.Method`, imported only when a run names it.
        options: its options class.
        claims: ``options -> Claims``; pure, no torch.
        reference: the paper.
        api: the hook API version it was written for.
        tested_with: methods with which its tests train and resume a run. ``gan plan`` marks every other pair as
            untested; it is enough that one of the two names the other.
        observer: it only measures: the one hook that it has is ``evaluate``. It changes no bit of a run, mixes
            with everything, may be changed on resume, and ``gan eval`` asks it.
    """

    name: str
    summary: str
    target: str
    options: type[Options] = Options
    claims: Callable[[Any], Claims] = lambda options: Claims()
    reference: str = ""
    api: tuple[int, int] = HOOK_API
    tested_with: tuple[str, ...] = ()
    observer: bool = False

    def check_api(self) -> None:
        """Raise :class:`PluginError` when this gancore cannot serve the version the method asks for."""
        if self.api[0] != HOOK_API[0]:
            raise PluginError(
                f"plugin '{self.name}' was written for hook API {self.api[0]}.{self.api[1]}; this gancore has "
                f"{HOOK_API[0]}.{HOOK_API[1]}: install a version of the plugin made for it"
            )
        if self.api[1] > HOOK_API[1]:
            raise PluginError(
                f"plugin '{self.name}' needs hook API {self.api[0]}.{self.api[1]}; this gancore has "
                f"{HOOK_API[0]}.{HOOK_API[1]}: upgrade gancore"
            )

    def load(self) -> type[Any]:
        """Import and return the method's class."""
        module_name, _, attribute = self.target.partition(":")
        try:
            loaded: type[Any] = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:
            raise PluginError(
                f"plugin '{self.name}' cannot be loaded from '{self.target}': {type(error).__name__}: {error}"
            ) from error
        return loaded


def check_claims(claims: Mapping[str, Claims], capabilities: frozenset[str] | None = None) -> None:
    """Check that methods with these claims can share a run.

    Args:
        claims: by method name.
        capabilities: what networks and data offer; None leaves needs of that kind unchecked, which is how
            methods are compared before any data is known.

    Raises:
        PluginError: every conflict, each with both methods and the way out.
    """
    found = conflicts(claims, capabilities)
    if found:
        raise PluginError("; ".join(found))


def conflicts(claims: Mapping[str, Claims], capabilities: frozenset[str] | None = None) -> list[str]:
    """Why methods with these claims cannot share a run: one reason a pair, then unmet needs; none when they can.

    Takes the arguments of :func:`check_claims`.
    """
    names = sorted(claims)
    found: dict[frozenset[str], str] = {}
    owners: dict[str, str] = {}
    for name in names:
        for claim, way_out in claims[name].exclusive.items():
            if claim in owners:
                other = owners[claim]
                ways = "; or ".join(dict.fromkeys((claims[other].exclusive[claim], way_out)))
                text = f"{claim} claimed by both '{other}' and '{name}'; keep one: {ways}"
                found.setdefault(frozenset((name, other)), text)
            owners.setdefault(claim, name)
    for name in names:
        for clash in claims[name].clashes:
            for other in names:
                if other != name and clash.tag in claims[other].tags:
                    text = f"'{name}' and '{other}' cannot be mixed: {clash.message}"
                    found.setdefault(frozenset((name, other)), text)
    offered = frozenset().union(*(claims[name].offers for name in names)) | (capabilities or frozenset())
    unmet = []
    objective = owner_of(OBJECTIVE, claims)
    for name in names:
        for need in claims[name].needs:
            of_method = is_method_capability(need.capability)
            if need.capability in offered or (capabilities is None and not of_method):
                continue
            if of_method and frozenset((name, objective)) in found:
                continue
            missing = way_out = ""
            if need.capability.startswith("tap:"):
                missing = _taps_instead(need.capability.removeprefix("tap:"), offered)
            elif of_method and objective:
                missing = f", which '{objective}' does not offer"
                way_out = f"; or, to have another objective: {claims[objective].exclusive[OBJECTIVE]}"
            unmet.append(f"'{name}' needs {need.capability}{missing}: {need.why}{way_out}")
    return [*found.values(), *unmet]


def _taps_instead(name: str, offered: Iterable[str]) -> str:
    taps = sorted(tap.removeprefix("tap:") for tap in offered if tap.startswith("tap:"))
    if taps:
        return f"{nearest(name, taps)} (taps: {', '.join(taps)})"
    return ", which no method of this run derives"


def warnings_of(claims: Mapping[str, Claims]) -> list[str]:
    """What the user is told of methods that can share a run: warnings of each, cautions of pairs."""
    found = []
    for name in sorted(claims):
        found += [f"{name}: {text}" for text in claims[name].warnings]
        for caution in claims[name].cautions:
            others = [other for other in sorted(claims) if other != name and caution.tag in claims[other].tags]
            found += [f"{name} with {other}: {caution.message}" for other in others]
    return found


def pairs_tested(specs: Mapping[str, MethodSpec], names: Iterable[str]) -> dict[tuple[str, str], bool]:
    """For each pair of methods, in order of names, whether the tests of one of them cover it.

    Observers are left out: they take no part in training.
    """
    names = [name for name in names if not specs[name].observer]
    return {
        (first, second): second in specs[first].tested_with or first in specs[second].tested_with
        for first, second in itertools.combinations(sorted(names), 2)
    }


def is_method_capability(capability: str) -> bool:
    """Whether a capability comes from a method rather than from networks (``tap:``, ``d:``) or data.

    A tap with a dot in its name, ``tap:METHOD.something``, is one that a method derives.
    """
    if capability.startswith("tap:"):
        return "." in capability
    return not (capability.startswith(("d:", "data:")) or capability == "labels")


def owner_of(claim: str, claims: Mapping[str, Claims]) -> str | None:
    """The method that holds an exclusive claim, or None."""
    return next((name for name in sorted(claims) if claim in claims[name].exclusive), None)
