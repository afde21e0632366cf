"""A subject made ready: its companions, networks and data chosen, and the runs that several rules look at."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from gancore.assembly import Session, build_networks, capabilities
from gancore.builtins import DEFAULT_OBJECTIVE
from gancore.compute import choose
from gancore.config import resolve
from gancore.errors import PluginError
from gancore.method import method_state
from gancore.options import resolve_options
from gancore.plugin_manager import Registry, discover
from gancore.specs import OBJECTIVE, Claims, MethodSpec, conflicts, is_method_capability
from gancore.testing import open_once, tensors_of, tiny_config, tiny_session
from gancore.testing.scrutiny import Scrutiny
from gancore.testing.subject import Subject, UnfitSubject
from gancore.testing.watch import Watch
from gancore.testing.watched_step import watching

STEPS = 4
"""G updates of the runs that are compared; a checkpoint lies in the middle."""

PATIENCE = 20
"""G updates after which what a method has not yet done counts as never done."""

_DEFAULT = ("hinge",)
_OTHERS: tuple[tuple[str, ...], ...] = ((), ("lsgan",), ("wgan",))
_NETWORKS = ("dcgan", "sngan", "mlp")


@dataclass(frozen=True)
class Run:
    """What is left of a run: all tensors of its checkpoint, the plain states of its methods, moments of terms."""

    tensors: Mapping[str, Tensor]
    states: Mapping[str, Any]
    moments: Mapping[str, Mapping[str, float]]


class Bench:
    """Runs of one subject.

    Args:
        subject: whom to test; errors in it are raised by what needs them, so that each rule names them.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.name = subject.name
        self._runs: dict[str, Run] = {}
        self._reference: Run
        self._halfway: Run

    @cached_property
    def registry(self) -> Registry:
        """What is installed, or what the test defines."""
        return self.subject.registry or discover()

    @cached_property
    def spec(self) -> MethodSpec:
        """What the method registered."""
        return self.registry.method(self.name)

    @cached_property
    def options(self) -> Any:
        """The method's validated options."""
        return self._options_of(self.name)

    @cached_property
    def claims(self) -> Claims:
        """What it claims with these options."""
        return self.spec.claims(self.options)

    @cached_property
    def owns_objective(self) -> bool:
        """Whether the run needs no other objective."""
        return OBJECTIVE in self.claims.exclusive

    @cached_property
    def companions(self) -> tuple[str, ...]:
        """The methods that it runs with: those of the subject that leave the objective to whoever owns it."""
        given = tuple(name for name in self.subject.companions if name != self.name)
        if self.owns_objective:
            given = tuple(name for name in given if OBJECTIVE not in self._claims_of(name).exclusive)
        found = self._conflicts(given)
        if not found:
            return given
        if self.subject.companions == _DEFAULT and not self.owns_objective:
            for other in _OTHERS:
                if not self._conflicts(other):
                    return other
        raise UnfitSubject(f"{'; '.join(found)}.{self._who_offers()}")

    @cached_property
    def overrides(self) -> dict[str, Any]:
        """Dotted keys of every run: a tiny network and data that have what the methods need."""
        given = {
            "compute.device": "cpu",
            "data.fraction": 0.05,
            "train.steps": STEPS,
            **self.subject.options,
        }
        if self.subject.network:
            given["network.name"] = self.subject.network
        needed = self._needed()
        if "network.name" in given:
            return self._with_labels(given) if "labels" in needed else given
        for network in _NETWORKS:
            candidate = {**given, "network.name": network}
            if "labels" in needed:
                candidate = self._with_labels(candidate)
            simple = needed.keys() <= {"data:image", "labels"}  # the first network has these
            if simple or needed.keys() <= self._capabilities(candidate):
                return candidate
        missing = ", ".join(sorted(needed))
        why = "; ".join(f"{capability}: {why}" for capability, why in sorted(needed.items()))
        raise UnfitSubject(
            f"'{self.name}' and its companions need {missing}, and no included network has all of it ({why}); "
            "name one that has: Subject(network=…), or --gan-set network.name=…"
        )

    @property
    def plugins(self) -> list[str]:
        """All methods of a run, the subject last."""
        return [*self.companions, self.name]

    def needed_by_companions(self) -> str | None:
        """Why there is no run of the companions without the method, if there is none."""
        claims = {name: claim for name, claim in self._all_claims(self.companions).items() if name != self.name}
        if not any(OBJECTIVE in claim.exclusive for claim in claims.values()):
            claims[DEFAULT_OBJECTIVE] = self._claims_of(DEFAULT_OBJECTIVE)
        found = conflicts(claims)
        return f"there is no run without '{self.name}' to compare with: {'; '.join(found)}" if found else None

    # Sessions.

    @contextlib.contextmanager
    def session(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        plugins: list[str] | None = None,
        registry: Registry | None = None,
    ) -> Iterator[Session]:
        """An assembled session of the subject, or of other plugins; options of absent ones are left out."""
        named = self.plugins if plugins is None else plugins
        given = {**self.overrides, **(overrides or {})}
        absent = {name for name in self.plugins if name not in named}
        given = {key: value for key, value in given.items() if _owner(key) not in absent}
        session = tiny_session(named, given, registry or self.registry)
        try:
            yield session
        finally:
            session.close()

    def run(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        steps: int = STEPS,
        plugins: list[str] | None = None,
    ) -> Run:
        """Train some steps, and keep what is left. The same run is trained once."""
        key = repr((sorted((overrides or {}).items()), steps, plugins))
        if key not in self._runs:
            with self.session(overrides, plugins=plugins) as session:
                for _ in range(steps):
                    session.trainer.train_step()
                self._runs[key] = outcome(session)
        return self._runs[key]

    @cached_property
    def watched(self) -> Watch:
        """A run in which everything that the method reads, returns and draws was written down.

        It goes on beyond :data:`STEPS` while something declared was not read, or a term had no gradient.
        """
        watch = Watch(self.name)
        with watching(watch), self.session() as session:
            watch.attach(session)
            for _ in range(STEPS // 2):
                session.trainer.train_step()
            self._halfway = snapshot(session)
            for _ in range(STEPS // 2):
                session.trainer.train_step()
            self._reference = outcome(session)
        if watch.unread() or watch.dead():
            patient = Watch(self.name)
            with watching(patient), self.session({"train.steps": PATIENCE}) as session:
                patient.attach(session)
                for _ in range(PATIENCE):
                    session.trainer.train_step()
                    if not (patient.unread() or patient.dead()):
                        break
            watch.add(patient)
        return watch

    @cached_property
    def reference(self) -> Run:
        """The run of :attr:`watched` after :data:`STEPS` steps; looking on changes no bit."""
        _ = self.watched
        return self._reference

    @property
    def halfway(self) -> Run:
        """The same after half of them."""
        _ = self.watched
        return self._halfway

    @cached_property
    def scrutinised(self) -> Scrutiny:
        """A short run in which every operation of the method's hooks was looked at."""
        scrutiny = Scrutiny(self.name)
        with self.session() as session, watching(scrutiny), scrutiny:
            for _ in range(2):
                session.trainer.train_step()
        return scrutiny

    def registry_with(self, spec: MethodSpec) -> Registry:
        """The registry and one method of the kit's own."""
        origin = self.registry.origins[DEFAULT_OBJECTIVE]
        return dataclasses.replace(
            self.registry,
            methods={**self.registry.methods, spec.name: spec},
            origins={**self.registry.origins, spec.name: origin},
        )

    # Parts.

    def _options_of(self, name: str) -> Any:
        own = {}
        for key, value in self.subject.options.items():
            if _owner(key) == name:
                own[key.removeprefix("methods.").removeprefix(f"{name}.")] = value
        return resolve_options(self.registry.method(name).options, own, where=f"{name}.")[0]

    def _claims_of(self, name: str) -> Claims:
        return self.registry.method(name).claims(self._options_of(name))

    def _all_claims(self, companions: tuple[str, ...]) -> dict[str, Claims]:
        claims = {self.name: self.claims, **{name: self._claims_of(name) for name in companions}}
        if not any(OBJECTIVE in claim.exclusive for claim in claims.values()):
            claims[DEFAULT_OBJECTIVE] = self._claims_of(DEFAULT_OBJECTIVE)
        return claims

    def _conflicts(self, companions: tuple[str, ...]) -> list[str]:
        return conflicts(self._all_claims(companions))

    def _needed(self) -> dict[str, str]:
        """What networks and data must have."""
        claims = self._all_claims(self.companions)
        offered = frozenset[str]().union(*(claim.offers for claim in claims.values()))
        needs = [need for claim in claims.values() for need in claim.needs]
        return {need.capability: need.why for need in needs if need.capability not in offered}

    def _who_offers(self) -> str:
        wanted = [n.capability for n in self.claims.needs if is_method_capability(n.capability)]
        hints = []
        for capability in wanted:
            offering = []
            for name, spec in sorted(self.registry.methods.items()):
                with contextlib.suppress(Exception):  # a third party's code
                    if name != self.name and capability in spec.claims(spec.options()).offers:
                        offering.append(name)
            if offering:
                hints.append(f"{capability} is offered by {', '.join(offering)}")
        named = f" ({'; '.join(hints)})" if hints else ""
        return f" Name other companions: Subject(companions=…), or --gan-with NAME{named}"

    def _with_labels(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"data.conditional": True, **given}

    def _capabilities(self, given: Mapping[str, Any]) -> frozenset[str]:
        own = {key: value for key, value in given.items() if _owner(key) not in self.plugins}
        config = resolve(self.registry, [("test", tiny_config([], own))])
        try:
            dataset = open_once(config.data)
            spec = self.registry.network(config.network_name)
            _, discriminator = build_networks(config, spec, dataset, choose(config.compute, dataset.kind))
        except PluginError:
            return frozenset()
        return capabilities(discriminator, dataset)


def snapshot(session: Session) -> Run:
    """What a checkpoint would hold, without the moments."""
    states = {name: method_state(method) for name, method in sorted(session.manager.methods.items())}
    return Run(tensors_of(session), states, {})


def outcome(session: Session) -> Run:
    """What is left of a session, which ends here: reading the moments begins new ones."""
    return dataclasses.replace(snapshot(session), moments=session.trainer.telemetry.flush())


def _owner(key: str) -> str:
    """The method, or section, whose option a dotted key sets."""
    return key.removeprefix("methods.").split(".")[0]
