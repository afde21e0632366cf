"""Every hook of gancore, in the order in which it fires.

A run, as pseudocode; hooks stand at the margin::

    register_methods, register_networks, register_ops, register_sinks
                                             discovery: once a process, no torch
    build networks
    declare_taps                             once: outputs computed from D's taps; pure
    declare                                  once: terms, views, latents; pure
    setup                                    once: modules and buffers
    augment                                  once: links of the augmentation chain
    compile the step plan; probe every phase once; restore
    for step in steps:                       a step is one G update
        for critic in range(n_critic):
            for phase in (d, d_reg if due):
    before_d_step                                draw; everything random happens here
                draw latents, read reals, G without gradient, augment, build views
                D on each group of views
    observe                                      seam, in d only: outputs are known, losses are not
    d_loss                                       terms, by name
                sum of weight * term, one backward, clip, optimiser
    after_d_step                                 look at detached outputs; constrain weights
        for phase in (g, g_reg if due):
    before_g_step
                as above, with the gradient through G and D frozen
    g_loss
                one backward, clip, optimiser
    after_g_step
        EMA of G
        every log_every: metrics.jsonl
    advise                                       host numbers of the tick; warnings, each said once
        every snap: checkpoint, sample grid
    evaluate                                 when asked, step 0 and the last included: metrics of samples

An implementation takes only the arguments that it names. Training hooks are called in the order of method
names, whatever the order of ``-p``; all of them collect. Wrappers on training hooks are refused: they could
edit another method's loss unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from gancore.augment import Augment
    from gancore.declaration import Declaration
    from gancore.method import LossTerms
    from gancore.metrics import Samples, Score
    from gancore.networks.spec import NetworkSpec
    from gancore.ops.library import OpLibrary
    from gancore.run_context import RunContext
    from gancore.sinks import SinkSpec
    from gancore.specs import MethodSpec
    from gancore.step import Step

PROJECT = "gancore"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class DiscoveryHooks:
    """Hooks of a plugin's package: what it brings. Called once a process; must not import torch."""

    @hookspec
    def register_methods(self, register: Callable[[MethodSpec], None]) -> None:
        """Hand each method's :class:`~gancore.api.MethodSpec` to ``register``."""

    @hookspec
    def register_networks(self, register: Callable[[NetworkSpec], None]) -> None:
        """Hand each pair of networks, as a :class:`~gancore.api.NetworkSpec`, to ``register``."""

    @hookspec
    def register_ops(self, register: Callable[[OpLibrary], None]) -> None:
        """Hand each :class:`~gancore.ops.OpLibrary` to ``register``, so that ``gan ops`` lists and builds it."""

    @hookspec
    def register_sinks(self, register: Callable[[SinkSpec], None]) -> None:
        """Hand each :class:`~gancore.api.SinkSpec` to ``register``, so that ``output.sinks`` may name it."""


class RunHooks:
    """Hooks of a method: called on the methods that a run names, and on no others."""

    @hookspec
    def declare_taps(self, plan: Declaration) -> None:
        """Declare outputs that the method computes from D's taps, with ``plan.tap``.

        Fires once, before any ``declare``, so that every method may read them. Pure, as ``declare``.
        """

    @hookspec
    def declare(self, plan: Declaration) -> None:
        """Declare terms, views, feature views, latent sets and what ``observe`` reads.

        Fires once, before ``setup``. Pure: it may look at its options and at ``plan.taps`` and nothing else.
        """

    @hookspec
    def setup(self, run: RunContext) -> None:
        """Create modules and buffers with ``run.add_module``; nothing else survives a restart.

        Fires once, after ``declare``. Random initialisation inside it has a stream of its own, so that a
        method never changes the initial weights of another.
        """

    @hookspec
    def augment(self, run: RunContext) -> Augment | None:
        """Return a link of the augmentation chain, or None when it would change nothing.

        Fires once, after ``setup``. The chain follows the order of ``-p``: order is meaning here.
        """

    @hookspec
    def before_d_step(self, step: Step) -> None:
        """Draw what this phase of D needs into ``step.stash``. ``step.phase`` is ``"d"`` or ``"d_reg"``."""

    @hookspec
    def observe(self, step: Step) -> None:
        """Update own buffers from D's outputs before any loss of phase ``"d"`` is computed.

        Fires without gradient, and not in ``"d_reg"``. A loss may read what was updated here: an average that
        includes this batch.
        """

    @hookspec
    def d_loss(self, step: Step) -> LossTerms | None:
        """Return ``self.terms(name=0-d tensor, …)`` for each declared term that ``step.wants``.

        Never calls D, G or ``backward``. The core multiplies by the weight, by ``every`` for a lazy term, and
        sums in sorted order of names.
        """

    @hookspec
    def after_d_step(self, step: Step) -> None:
        """Look at detached outputs, update own buffers in place, constrain D's weights (phases of D).

        Fires after the optimiser, without gradient; for a method that calls ``plan.watch`` in the main phase
        alone, where what it watches exists.
        """

    @hookspec
    def before_g_step(self, step: Step) -> None:
        """As ``before_d_step``, for ``"g"`` and ``"g_reg"``."""

    @hookspec
    def g_loss(self, step: Step) -> LossTerms | None:
        """As ``d_loss``, for the phases of G: D and the modules that train with it are frozen."""

    @hookspec
    def after_g_step(self, step: Step) -> None:
        """As ``after_d_step``, for the phases of G."""

    @hookspec
    def advise(self, values: Mapping[str, float]) -> Mapping[str, str] | None:
        """Look at the numbers of a tick and warn the user: name of the warning -> text.

        Fires on the host after each line of metrics. ``values`` holds the tick's means of what the method
        logged and of its own terms, without the method's prefix (``"p"``, ``"shrink_real.d"``). A warning of one
        name is shown once in a process. Nothing here may change the run.
        """

    @hookspec
    def evaluate(self, run: RunContext | None, samples: Samples) -> Mapping[str, float | Score] | None:
        """Return metrics by name for ``samples`` (:class:`~gancore.api.Samples`).

        Fires before the first step, every ``output.evaluate_every`` steps and at the end; and from ``gan eval``,
        for observers alone and with ``run`` None. Return a :class:`~gancore.api.Score` to say which direction is
        better and how it was measured. Names must be unique across plugins: a second owner is an error that names
        both.
        """


TRAINING_HOOKS = (
    "declare_taps",
    "declare",
    "setup",
    "augment",
    "before_d_step",
    "observe",
    "d_loss",
    "after_d_step",
    "before_g_step",
    "g_loss",
    "after_g_step",
    "advise",
    "evaluate",
)
"""The hooks of a run, in the order in which they first fire."""
