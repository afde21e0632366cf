"""What a method declares in its ``declare`` hook: terms, views, feature views, latent sets, reads of ``observe``.

A declaration is data. :mod:`gancore.plan` compiles all of them into the step plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gancore.errors import PluginError, nearest
from gancore.networks.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.specs import Claims
    from gancore.step import Step

Reads = Mapping[str, tuple[str, ...]]
"""View name -> what is read of it: tap names, ``"logits"``, ``"images"``."""

Network = Literal["d", "g"]


@dataclass(frozen=True)
class Penalty:
    """The gradient of an output of D with respect to an image.

    Args:
        view: the view whose output is differentiated.
        leaf: the view whose images are the variable: ``view`` itself or one that it is built from. With
            ``view="real", leaf="real_raw"`` the gradient flows through the augmentation.
        output: ``"logits"``, a tap, or ``"scores"`` (then ``view`` is the side).
    """

    view: str
    leaf: str
    output: str = "logits"


@dataclass(frozen=True)
class Term:
    """One named term of a loss. ``weight`` is a constant or a function of progress in [0, 1]."""

    method: str
    name: str
    network: Network
    weight: float | Callable[[float], float]
    every: int
    reads: Reads
    scores: tuple[str, ...]
    penalty: Penalty | None

    @property
    def key(self) -> str:
        """``"method/name"``, as it is logged."""
        return f"{self.method}/{self.name}"


@dataclass(frozen=True)
class ImageView:
    """Images that D is asked to look at, or that such images are built from."""

    name: str
    method: str
    build: Callable[..., Tensor] | None
    sources: tuple[str, ...]
    labels_from: str
    rows: int
    augment: str | None
    precision: str | None
    train: bool
    grad: bool


@dataclass(frozen=True)
class FeatureView:
    """Features that enter D at a tap."""

    name: str
    method: str
    build: Callable[..., Tensor]
    tap: str
    sources: tuple[tuple[str, str], ...]
    labels_from: str
    precision: str | None


@dataclass(frozen=True)
class DerivedTap:
    """An output that a method computes from one tap of D."""

    name: str
    method: str
    source: str
    compute: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LatentSet:
    """Latents beside the base ones; the images of G at them are the view of the same name."""

    name: str
    method: str
    build: Callable[..., Tensor]


@dataclass(frozen=True)
class Watch:
    """What a method reads beside terms: ``observe`` and ``after_*_step`` hooks have no term to hang reads on."""

    method: str
    network: Network
    reads: Reads
    margins: tuple[str, ...]
    scores: tuple[str, ...]


@dataclass(frozen=True)
class SideFunction:
    """A function of a side, ``compute(step, side) -> (B,)``, and what it reads for each side."""

    method: str
    compute: Callable[[Step, str], Tensor]
    reads: Mapping[str, Reads]


@dataclass
class Declarations:
    """All declarations of a run, by kind."""

    taps: dict[str, DerivedTap] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    images: dict[str, ImageView] = field(default_factory=dict)
    features: dict[str, FeatureView] = field(default_factory=dict)
    latents: dict[str, LatentSet] = field(default_factory=dict)
    watches: list[Watch] = field(default_factory=list)
    scores: SideFunction | None = None
    margin: SideFunction | None = None

    @property
    def methods(self) -> frozenset[str]:
        """The methods that have declared anything."""
        named = (self.taps, self.images, self.features, self.latents)
        found = [*self.terms, *self.watches, *(declared for kind in named for declared in kind.values())]
        return frozenset(one.method for one in (*found, self.scores, self.margin) if one is not None)


class Declaration:
    """Handed to a method's ``declare`` hook as ``plan``.

    Attributes:
        taps: name -> :class:`~gancore.api.TapSpec`: the discriminator's, from image to logits, then those that
            methods derive from them (complete in ``declare``, not yet in ``declare_taps``).
        shape: shape of one image, (C, H, W), or of one point, (2,).
        num_classes: 0 when the run is unconditional.
    """

    def __init__(
        self,
        method: str,
        weight: float,
        claims: Claims,
        into: Declarations,
        taps: dict[str, TapSpec],
        shape: tuple[int, ...],
        num_classes: int,
    ) -> None:
        self._method = method
        self._weight = weight
        self._claims = claims
        self._into = into
        self.taps = taps
        self.shape = shape
        self.num_classes = num_classes

    @property
    def own_taps(self) -> tuple[str, ...]:
        """The discriminator's own taps, from image to logits: where features can enter, and taps be derived."""
        return tuple(tap for tap in self.taps if tap not in self._into.taps)

    def tap(
        self,
        name: str,
        *,
        source: str,
        compute: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        help: str,
    ) -> None:
        """Declare an output computed from a tap of D; only in ``declare_taps``.

        It is then a tap like any other for every method that reads views, but no feature view can enter there.

        Args:
            name: ``"METHOD.something"``; the method offers ``"tap:METHOD.something"`` in its claims.
            source: a tap of the discriminator.
            compute: features (B, …) in float32 or wider -> (B, *shape); row by row, differentiable, no
                randomness. A module that it applies is one of ``run.add_module``.
            shape: of one sample. help: one sentence.
        """
        if not name.startswith(f"{self._method}."):
            raise PluginError(f"'{self._method}' declares tap '{name}'; expected a name '{self._method}.…'")
        if name in self.taps:
            raise PluginError(f"'{self._method}' declares tap '{name}' twice")
        if source not in self.own_taps:
            raise PluginError(f"'{self._method}' derives '{name}' from tap {self._not_own(source)}")
        if f"tap:{name}" not in self._claims.offers:
            raise PluginError(f"'{self._method}' declares tap '{name}' without offering 'tap:{name}' in its spec")
        self._into.taps[name] = DerivedTap(name, self._method, source, compute, tuple(shape))
        self.taps[name] = TapSpec(tuple(shape), help)

    def term(
        self,
        name: str,
        network: Network,
        *,
        reads: Reads | None = None,
        scores: tuple[str, ...] = (),
        weight: float | Callable[[float], float] = 1.0,
        every: int = 1,
        penalty: Penalty | None = None,
    ) -> None:
        """Declare a term of the loss of ``network``.

        Args:
            name: unique in the method and network.
            reads: views and outputs that the term reads; only what is declared can be read.
            scores: sides (``"real"``, ``"fake"``) whose scores it reads.
            weight: the term's own factor, multiplied by the method's ``weight``; a function of progress in
                [0, 1] is a schedule. A constant product of 0 removes the term and all that only it reads.
            every: the term is active in every ``every``-th update and is then scaled by ``every``.
            penalty: the input gradient that ``step.input_gradient(name)`` returns.
        """
        self._check_choice("network", network, ("d", "g"))
        for side in scores:
            self._check_choice("scores", side, ("real", "fake"))
        if every < 1:
            raise PluginError(f"'{self._method}' declares term '{name}' with every = {every}; expected >= 1")
        if any(t.method == self._method and t.name == name and t.network == network for t in self._into.terms):
            raise PluginError(f"'{self._method}' declares term '{name}' of network '{network}' twice")
        total: float | Callable[[float], float]
        if callable(weight):
            schedule, factor = weight, self._weight
            total = (lambda progress: factor * schedule(progress)) if factor else 0.0
        else:
            total = self._weight * weight
        if total == 0.0:
            return
        self._into.terms.append(
            Term(self._method, name, network, total, every, dict(reads or {}), tuple(scores), penalty)
        )

    def view(
        self,
        name: str,
        build: Callable[..., Tensor] | None,
        *,
        sources: tuple[str, ...],
        labels_from: str | None = None,
        rows: int = 1,
        augment: str | None = None,
        precision: Literal["float32"] | None = None,
        train: bool = True,
        grad: bool = True,
    ) -> None:
        """Declare images for D: ``build(step, *images of the sources) -> images``.

        Args:
            name: ``"METHOD.something"``.
            build: differentiable, changes nothing in place; None takes the first source as it is.
            sources: views it is built from; it has their rows and, by default, the first one's labels.
            labels_from: the view whose labels it carries.
            rows: how many copies of its sources' rows it has: first all rows, then all rows again, as
                ``images.repeat(rows, 1, 1, 1)`` lays them; labels and draws are repeated the same way.
            augment: a side, ``"real"`` or ``"fake"``: the images pass through the augmentation chain with the
                draws of that side, so that both sides of a difference are augmented alike.
            precision: ``"float32"`` keeps it out of reduced precision.
            train: False forwards it with D in evaluation mode.
            grad: False when nothing that reads it needs a gradient.
        """
        self._check_new(name)
        self._check_choice("augment", augment, (None, "real", "fake"))
        self._check_choice("precision", precision, (None, "float32"))
        self._into.images[name] = ImageView(
            name,
            self._method,
            build,
            sources,
            labels_from or sources[0],
            rows,
            augment,
            precision,
            train,
            grad,
        )

    def feature_view(
        self,
        name: str,
        build: Callable[..., Tensor],
        *,
        tap: str,
        sources: tuple[tuple[str, str], ...],
        labels_from: str | None = None,
        precision: Literal["float32"] | None = None,
    ) -> None:
        """Declare features that enter D at ``tap``: ``build(step, *taps of the sources) -> features``.

        Args:
            sources: pairs (view, tap). Its ``logits`` can be read like those of any view.
        """
        self._check_new(name)
        if tap not in self.own_taps:
            raise PluginError(f"'{self._method}' enters D at tap {self._not_own(tap)}")
        self._into.features[name] = FeatureView(
            name, self._method, build, tap, sources, labels_from or sources[0][0], precision
        )

    def latents(self, name: str, build: Callable[..., Tensor]) -> None:
        """Declare a latent set: ``build(step, base latents (B, Z)) -> (B, Z)``, labels as the base ones.

        Its images are the view ``name``: G forwards it beside the base latents, with batch statistics of its
        own and without moving G's running ones.
        """
        self._check_new(name)
        self._into.latents[name] = LatentSet(name, self._method, build)

    def watch(
        self,
        network: Network = "d",
        *,
        reads: Reads | None = None,
        margins: tuple[str, ...] = (),
        scores: tuple[str, ...] = (),
    ) -> None:
        """Declare what ``observe`` and ``after_*_step`` read in the main phase of ``network``.

        A method that watches has these hooks called in the main phase only, ``"d"`` or ``"g"``.
        """
        self._check_choice("network", network, ("d", "g"))
        for side in (*margins, *scores):
            self._check_choice("side", side, ("real", "fake"))
        self._into.watches.append(Watch(self._method, network, dict(reads or {}), margins, scores))

    def scores(self, compute: Callable[[Step, str], Tensor], *, reads: Mapping[str, Reads]) -> None:
        """Replace D's logits as scores: ``compute(step, side) -> (B,)``. Needs the claim ``"scores"``.

        Args:
            reads: for each side, what ``compute`` reads.
        """
        if "scores" not in self._claims.exclusive:
            raise PluginError(f"'{self._method}' declares scores without claiming 'scores' in its spec")
        self._into.scores = SideFunction(self._method, compute, reads)

    def margin(self, compute: Callable[[Step, str], Tensor], *, reads: Mapping[str, Reads]) -> None:
        """How far D says "real" for each sample of a side, on the objective's own scale: (B,).

        Zero is the objective's point of indifference; controllers read this, never raw logits. Only the owner
        of the objective declares it, and offers ``"margin"`` in its claims. An objective without such a point
        (Wasserstein) declares none; a method that needs one is then refused with the reason.

        Args:
            compute: ``compute(step, side)``; runs without gradient.
            reads: for each side, what ``compute`` reads.
        """
        if "margin" not in self._claims.offers:
            raise PluginError(f"'{self._method}' declares a margin without offering 'margin' in its spec")
        self._into.margin = SideFunction(self._method, compute, reads)

    def _not_own(self, tap: str) -> str:
        own, derived = self.own_taps, self._into.taps.get(tap)
        why = f", which '{derived.method}' derives" if derived else nearest(tap, own)
        return f"'{tap}'{why}; expected one of D's own taps: {', '.join(own)}"

    def _check_choice(self, what: str, value: object, allowed: tuple[object, ...]) -> None:
        if value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise PluginError(f"'{self._method}' declares {what} = {value!r}; expected {choices}")

    def _check_new(self, name: str) -> None:
        if not name.startswith(f"{self._method}."):
            raise PluginError(f"'{self._method}' declares '{name}'; expected a name '{self._method}.…'")
        if name in self._into.images or name in self._into.features or name in self._into.latents:
            raise PluginError(f"'{self._method}' declares '{name}' twice")
