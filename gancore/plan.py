"""The step plan: who owns what, which terms are active when, and the program of every phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from gancore.declaration import Declarations, Term
from gancore.errors import ConfigError, PluginError
from gancore.program import Compiler, Program
from gancore.specs import OBJECTIVE, SCORES, Claims, owner_of

LazyMode = Literal["merge", "separate"]


class StepPlan:
    """Immutable once built; programs are compiled on first use and kept, one per (phase, active terms).

    Args:
        declarations: what all methods declared.
        claims: by method name, checked.
        taps: D's taps, from image to logits.
        augmented_sides: base sides on which the augmentation chain has a link.
        lazy: ``"merge"`` computes a due lazy term with the main phase, ``"separate"`` gives lazy terms a phase
            and an optimiser step of their own.

    Raises:
        PluginError: no objective, scores that nobody reads, unknown views.
    """

    def __init__(
        self,
        declarations: Declarations,
        claims: Mapping[str, Claims],
        *,
        taps: Iterable[str],
        augmented_sides: frozenset[str] = frozenset(),
        lazy: LazyMode = "merge",
    ) -> None:
        owner = owner_of(OBJECTIVE, claims)
        if owner is None:
            raise PluginError(
                "no method owns the objective: the one that is named has weight 0; give it a weight above 0, or "
                "leave it out for the default objective"
            )
        self.objective: str = owner
        self.declarations = declarations
        self.claims = claims
        self.lazy = lazy
        known = tuple(taps)

        def compiler(declared: Declarations) -> Compiler:
            return Compiler(declared, taps=known, augmented_sides=augmented_sides, objective=owner)

        self._compiler = compiler(declarations)
        scores = declarations.scores
        plain = declarations if scores is None or scores.method == owner else replace(declarations, scores=None)
        self._alone = compiler(plain)
        self._programs: dict[tuple[str, frozenset[str]], Program] = {}
        self._by_phase = {phase: self._terms_of(phase) for phase in ("d", "d_reg", "g", "g_reg")}
        self._check()

    def active(self, phase: str, update: int) -> tuple[Term, ...]:
        """The terms of a phase that are due in the ``update``-th update of its network (from 0)."""
        return tuple(term for term in self._by_phase[phase] if update % term.every == 0)

    def program(self, phase: str, update: int) -> Program | None:
        """The program of a phase at an update; None when nothing of it is due."""
        return self._program(phase, self.active(phase, update))

    def full_program(self, phase: str) -> Program | None:
        """The program with every term of the phase active."""
        return self._program(phase, self._by_phase[phase])

    def objective_program(self, phase: str) -> Program | None:
        """What the objective alone would compute in a phase, on D's logits: the measure of what others add."""
        terms = tuple(term for term in self._by_phase[phase] if term.method == self.objective)
        return self._alone.compile(phase, terms, ()) if terms else None

    def canonical(self, view: str) -> str:
        """The name under which a view is forwarded: ``real_raw`` is ``real`` where nothing augments reals."""
        return self._compiler.canonical(view)

    def interval(self, phase: str) -> int:
        """The shortest interval of the lazy phase of this phase's network; 1 where it has none.

        The optimiser's correction holds for both phases of a network, since they share the optimiser.
        """
        return min((term.every for term in self._by_phase[f"{phase[0]}_reg"]), default=1)

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that have terms, in order."""
        return tuple(phase for phase, terms in self._by_phase.items() if terms)

    def _program(self, phase: str, terms: tuple[Term, ...]) -> Program | None:
        if not terms:
            return None
        key = (phase, frozenset(term.key for term in terms))
        if key not in self._programs:
            watches = [w for w in self.declarations.watches if w.network == phase]
            self._programs[key] = self._compiler.compile(phase, terms, watches)
        return self._programs[key]

    def _terms_of(self, phase: str) -> tuple[Term, ...]:
        network, regular = phase[0], not phase.endswith("_reg")
        return tuple(
            term
            for term in self.declarations.terms
            if term.network == network and (self.lazy == "merge" or term.every == 1) is regular
        )

    def _check(self) -> None:
        for network in ("d", "g"):
            if not any(t.method == self.objective and t.network == network for t in self.declarations.terms):
                raise ConfigError(
                    f"the objective '{self.objective}' has no active term in the loss of {network.upper()}; "
                    f"give {self.objective}.weight a value above 0 or name another objective"
                )
        scores = owner_of(SCORES, self.claims)
        if scores is not None and not any(term.scores for term in self.declarations.terms):
            raise PluginError(
                f"'{scores}' claims scores, but the objective '{self.objective}' reads none; drop one of them: "
                f"{self.claims[scores].exclusive[SCORES]}"
            )
        for phase in self.phases:
            self.full_program(phase)

    # For people.

    def describe(self) -> dict[str, Any]:
        """Owners, phases, groups, rows and terms, ready for JSON."""
        phases = []
        for phase in self.phases:
            program = self.full_program(phase)
            if program is not None:
                phases.append(_describe_program(program, self.canonical))
        return {
            "objective": self.objective,
            "scores": owner_of(SCORES, self.claims) or "logits",
            "claims": {
                name: sorted(claims.exclusive) for name, claims in sorted(self.claims.items()) if claims.exclusive
            },
            "phases": phases,
        }


def _describe_program(program: Program, canonical: Callable[[str], str]) -> dict[str, Any]:
    def group(entry: Any, where: str) -> dict[str, Any]:
        key = entry.key
        return {
            "views": list(entry.views),
            "enters": where,
            "rows": key.rows * len(entry.views),
            "gradient": key.grad,
            "leaf": sorted(key.leaves),
            "precision": key.precision or "run",
            "outputs": {view: sorted(names) for view, names in entry.outputs.items()},
        }

    return {
        "phase": program.phase,
        "images": [{"name": node.name, "kind": node.kind, "from": list(node.sources)} for node in program.images],
        "groups": [group(entry, "images") for entry in program.groups]
        + [group(entry, entry.key.tap or "") for entry in program.feature_groups],
        "rows": program.rows(),
        "terms": [
            {
                "name": term.key,
                "weight": term.weight if not callable(term.weight) else "scheduled",
                "every": term.every,
                "reads": sorted({*map(canonical, term.reads), *(f"scores:{side}" for side in term.scores)}),
                **({"gradient_of": term.penalty.view, "leaf": term.penalty.leaf} if term.penalty else {}),
            }
            for term in program.terms
        ],
    }
