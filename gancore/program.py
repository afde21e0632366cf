"""Compile what the active terms of a phase read into a program: which images, which groups of D forwards.

Pure data in, pure data out; :mod:`gancore.forward` executes it. One program exists per (phase, active terms).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gancore.declaration import Declarations, FeatureView, ImageView, Penalty, Reads, Term, Watch
from gancore.errors import PluginError, nearest


@dataclass(frozen=True)
class ImageNode:
    """A tensor of images in a phase.

    ``kind`` is ``"reals"``, ``"generated"`` (by G from the latent set of the same name), ``"augmented"`` (the
    chain on a base side) or ``"built"`` (a declared view). ``leaves`` are the penalty leaves whose gradient
    must flow through it.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    side: str
    rows: int
    from_g: bool
    leaves: frozenset[str]
    view: ImageView | None = None


@dataclass(frozen=True)
class GroupKey:
    """Views that may share a forward pass agree in all of this."""

    leaves: frozenset[str]
    grad: bool
    precision: str | None
    train: bool
    rows: int
    tap: str | None = None


@dataclass(frozen=True)
class Group:
    """Views that D forwards together. ``key.tap`` is set for feature views, which enter D there."""

    key: GroupKey
    views: tuple[str, ...]
    outputs: Mapping[str, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Program:
    """Everything a phase computes before its losses, for one set of active terms."""

    phase: str
    network: str
    terms: tuple[Term, ...]
    images: tuple[ImageNode, ...]
    latents: tuple[str, ...]
    groups: tuple[Group, ...]
    feature_groups: tuple[Group, ...]
    readable: Mapping[str, Mapping[str, frozenset[str]]]
    score_sides: Mapping[str, frozenset[str]]
    margin_sides: Mapping[str, frozenset[str]]
    sides: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_reals(self) -> bool:
        """Whether the phase reads real images."""
        return any(node.kind == "reals" for node in self.images)

    @property
    def augments(self) -> bool:
        """Whether the augmentation chain works on any image of this phase."""
        return any(node.kind == "augmented" or (node.view and node.view.augment) for node in self.images)

    def rows(self) -> int:
        """Rows that D forwards from images in this phase, in batches; feature views enter later."""
        return sum(g.key.rows * len(g.views) for g in self.groups)


class Compiler:
    """Compiles programs for one run."""

    def __init__(
        self,
        declarations: Declarations,
        *,
        taps: Iterable[str],
        augmented_sides: frozenset[str],
        objective: str,
    ) -> None:
        self.declarations = declarations
        self.taps = tuple(taps)
        self.objective = objective
        self.alias = {
            f"{side}_raw": side for side in ("real", "fake") if side not in augmented_sides
        }  # without a chain the raw view *is* the view
        self._known = {"real", "fake", "real_raw", "fake_raw"}
        self._known |= {*declarations.images, *declarations.features, *declarations.latents}

    def compile(self, phase: str, terms: Iterable[Term], watches: Iterable[Watch]) -> Program:
        """The program of a phase whose active terms and observers are given."""
        network = phase[0]
        terms = tuple(sorted(terms, key=lambda term: term.key))
        readable, score_sides, margin_sides = self._collect(terms, watches)
        outputs: dict[str, set[str]] = {}
        for reads in readable.values():
            for view, names in reads.items():
                outputs.setdefault(view, set()).update(names)
        self._add_feature_sources(outputs)
        names = self._order(self._with_sources(outputs))
        leaves, forward_leaves = self._leaves(phase, terms, names)
        nodes = tuple(self._node(name, leaves) for name in names if name not in self.declarations.features)
        by_name = {node.name: node for node in nodes}
        groups, feature_groups = self._groups(network, outputs, by_name, forward_leaves)
        return Program(
            phase=phase,
            network=network,
            terms=terms,
            images=nodes,
            latents=tuple(n.name for n in nodes if n.kind == "generated" and n.name in self.declarations.latents),
            groups=groups,
            feature_groups=feature_groups,
            readable={m: {v: frozenset(o) for v, o in reads.items()} for m, reads in readable.items()},
            score_sides={m: frozenset(s) for m, s in score_sides.items()},
            margin_sides={m: frozenset(s) for m, s in margin_sides.items()},
            sides={
                **{n.name: n.side for n in nodes},
                **{f: self._side(f) for f in self.declarations.features},
            },
        )

    def canonical(self, view: str) -> str:
        """The name under which a view is forwarded: raw views are the views where nothing augments."""
        return self.alias.get(view, view)

    # What is read, by whom.

    def _collect(self, terms: Iterable[Term], watches: Iterable[Watch]):  # type: ignore[no-untyped-def]
        readable: dict[str, dict[str, set[str]]] = {}
        score_sides: dict[str, set[str]] = {}
        margin_sides: dict[str, set[str]] = {}

        def read(method: str, reads: Reads) -> None:
            for view, names in reads.items():
                self._check_read(method, view, names)
                readable.setdefault(method, {}).setdefault(self.canonical(view), set()).update(names)

        def read_scores(method: str, sides: Iterable[str]) -> None:
            for side in sides:
                score_sides.setdefault(method, set()).add(side)
                owner = self.declarations.scores
                if owner is None:
                    read(method, {side: ("logits",)})
                else:
                    read(owner.method, owner.reads[side])

        for term in terms:
            read(term.method, term.reads)
            read_scores(term.method, term.scores)
            if term.penalty is not None:
                if term.penalty.output == "scores":
                    read_scores(term.method, (term.penalty.view,))
                else:
                    read(term.method, {term.penalty.view: (term.penalty.output,)})
        for watch in watches:
            read(watch.method, watch.reads)
            read_scores(watch.method, watch.scores)
            for side in watch.margins:
                margin_sides.setdefault(watch.method, set()).add(side)
                owner = self.declarations.margin
                if owner is None:
                    raise PluginError(f"'{watch.method}' watches margins; '{self.objective}' declares none")
                read(owner.method, owner.reads[side])
        return readable, score_sides, margin_sides

    def _check_read(self, method: str, view: str, names: tuple[str, ...]) -> None:
        if view not in self._known:
            raise PluginError(f"'{method}' reads unknown view '{view}'{nearest(view, self._known)}")
        for name in names:
            allowed = ("logits",) if view in self.declarations.features else (*self.taps, "logits", "images")
            if name not in allowed:
                raise PluginError(
                    f"'{method}' reads '{name}' of view '{view}'{nearest(name, allowed)}; "
                    f"it offers: {', '.join(allowed)}"
                )

    # The graph of views.

    def _sources(self, name: str) -> tuple[str, ...]:
        if name in self.declarations.features:
            return tuple(self.canonical(view) for view, _ in self.declarations.features[name].sources)
        if name in self.declarations.images:
            return tuple(self.canonical(view) for view in self.declarations.images[name].sources)
        if name in ("real", "fake") and f"{name}_raw" not in self.alias:
            return (f"{name}_raw",)
        return ()

    def _add_feature_sources(self, outputs: dict[str, set[str]]) -> None:
        for name in [view for view in outputs if view in self.declarations.features]:
            for view, tap in self.declarations.features[name].sources:
                self._check_read(self.declarations.features[name].method, view, (tap,))
                outputs.setdefault(self.canonical(view), set()).add(tap)

    def _with_sources(self, views: Iterable[str]) -> set[str]:
        found: set[str] = set()
        pending = list(views)
        while pending:
            name = pending.pop()
            if name not in self._known:
                raise PluginError(f"a view is built from unknown view '{name}'{nearest(name, self._known)}")
            if name not in found:
                found.add(name)
                pending.extend(self._sources(name))
        return found

    def _order(self, names: set[str]) -> list[str]:
        """Sources before what is built from them; otherwise base views first, then by name."""
        base = ("real_raw", "fake_raw", "real", "fake")
        rank = {name: index for index, name in enumerate(base)}
        ordered: list[str] = []

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                raise PluginError(f"views are built from each other in a circle: {' -> '.join((*path, name))}")
            if name not in ordered:
                for source in sorted(self._sources(name)):
                    visit(source, (*path, name))
                ordered.append(name)

        for name in sorted(names, key=lambda name: (rank.get(name, len(base)), name)):
            visit(name, ())
        return ordered

    def _leaves(
        self, phase: str, terms: Iterable[Term], names: list[str]
    ) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
        """For each view, the penalty leaves whose gradient flows through its images, and through D on it.

        The second is smaller: the images of a raw leaf lie between leaf and output, but D's pass on them does
        not, and a pass that the double backward need not visit stays out of the leaf's group.
        """
        flows: dict[str, set[str]] = {}
        forwards: dict[str, set[str]] = {}
        for term in terms:
            if term.penalty is None:
                continue
            if phase[0] != "d":
                raise PluginError(f"term '{term.key}': a penalty on images belongs to the phases of D")
            leaf = self.canonical(term.penalty.leaf)
            targets = self._penalty_targets(term.penalty)
            between = self._between(leaf, targets, names)
            if not targets & between:
                raise PluginError(
                    f"term '{term.key}' differentiates '{term.penalty.view}' with respect to "
                    f"'{term.penalty.leaf}', which it is not built from"
                )
            for name in between:
                flows.setdefault(name, set()).add(leaf)
            features = targets & set(self.declarations.features)
            passes = targets.union(*(self._sources(name) for name in features))
            for name in passes & between:
                forwards.setdefault(name, set()).add(leaf)
        return (
            {name: frozenset(found) for name, found in flows.items()},
            {name: frozenset(found) for name, found in forwards.items()},
        )

    def _penalty_targets(self, penalty: Penalty) -> set[str]:
        owner = self.declarations.scores
        if penalty.output == "scores" and owner is not None:
            return {self.canonical(view) for view in owner.reads[penalty.view]}
        return {self.canonical(penalty.view)}

    def _between(self, leaf: str, targets: set[str], names: list[str]) -> set[str]:
        below = {leaf}
        for name in names:
            if any(source in below for source in self._sources(name)):
                below.add(name)
        above = self._with_sources(targets)
        return below & above

    def _side(self, name: str) -> str:
        """The base side whose labels a view carries."""
        while name not in ("real", "fake", "real_raw", "fake_raw"):
            if name in self.declarations.latents:
                return "fake"
            if name not in self._known:
                raise PluginError(f"a view has the labels of unknown view '{name}'{nearest(name, self._known)}")
            declared: FeatureView | ImageView
            declared = self.declarations.features.get(name) or self.declarations.images[name]
            name = declared.labels_from
        return name.removesuffix("_raw")

    def _rows(self, name: str) -> int:
        if name in self.declarations.features:
            return self._rows(self.declarations.features[name].sources[0][0])
        if name in self.declarations.images:
            view = self.declarations.images[name]
            return view.rows * self._rows(view.sources[0])
        return 1

    def _from_g(self, name: str) -> bool:
        if name in ("fake", "fake_raw") or name in self.declarations.latents:
            return True
        return any(self._from_g(source) for source in self._sources(name))

    def _node(self, name: str, leaves: Mapping[str, frozenset[str]]) -> ImageNode:
        view = self.declarations.images.get(name)
        sources = self._sources(name)
        if view is not None:
            kind = "built"
        elif name in self.declarations.latents:
            kind = "generated"
        elif sources:
            kind = "augmented"
        else:
            kind = "reals" if name.startswith("real") else "generated"
        return ImageNode(
            name=name,
            kind=kind,
            sources=sources,
            side=self._side(name),
            rows=self._rows(name),
            from_g=self._from_g(name),
            leaves=leaves.get(name, frozenset()),
            view=view,
        )

    # Groups.

    def _groups(
        self,
        network: str,
        outputs: Mapping[str, set[str]],
        nodes: Mapping[str, ImageNode],
        leaves: Mapping[str, frozenset[str]],
    ) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        images: dict[GroupKey, list[str]] = {}
        features: dict[GroupKey, list[str]] = {}
        for name, node in nodes.items():
            if not outputs.get(name, set()) - {"images"}:
                continue
            view = node.view
            grad = (view.grad if view else True) and (network == "d" or node.from_g)
            key = GroupKey(
                leaves=leaves.get(name, frozenset()),
                grad=grad,
                precision=view.precision if view else None,
                train=view.train if view else True,
                rows=node.rows,
            )
            images.setdefault(key, []).append(name)
        for name in sorted(set(outputs) & set(self.declarations.features)):
            declared = self.declarations.features[name]
            key = GroupKey(
                leaves=leaves.get(name, frozenset()),
                grad=True if network == "d" else self._from_g(name),
                precision=declared.precision,
                train=True,
                rows=self._rows(name),
                tap=declared.tap,
            )
            features.setdefault(key, []).append(name)
        return self._as_groups(images, outputs), self._as_groups(features, outputs)

    def _as_groups(
        self, members: Mapping[GroupKey, list[str]], outputs: Mapping[str, set[str]]
    ) -> tuple[Group, ...]:
        groups = []
        for key, views in members.items():
            # Views that need logits come first, so that the head runs on one leading block of rows.
            views = sorted(views, key=lambda view: "logits" not in outputs[view])
            wanted = {view: frozenset(outputs[view] - {"images"}) for view in views}
            groups.append(Group(key, tuple(views), wanted))
        return tuple(groups)
