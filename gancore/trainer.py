"""The training loop: phases as data, one backward each. It knows no method by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gancore.attribution import CORE, attributed
from gancore.augment import AugmentChain
from gancore.data.loader import Loader
from gancore.data.transfer import to_device
from gancore.declaration import Term
from gancore.errors import PluginError
from gancore.forward import Forward, ForwardOptions
from gancore.graphs import CudaRecorder, Graphs, Recorder
from gancore.method import LossTerms
from gancore.networks.ema import ExponentialAverage, beta_for
from gancore.networks.protocols import Discriminator, Generator
from gancore.optimizers import NetworkOptimizer
from gancore.plan import StepPlan
from gancore.plugin_manager import HookCall, RunManager
from gancore.probe import probe
from gancore.program import Program
from gancore.randomness import Rng
from gancore.run_context import MethodModules
from gancore.sections import OptimizerOptions
from gancore.step import Step
from gancore.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """What the loop needs to know of the configuration."""

    seed: int = 0
    rank: int = 0
    steps: int
    batch: int
    n_critic: int = 1
    half_life_kimg: float = 10.0
    ramp: float = 0.05
    graphs: bool = True
    optimizers: dict[str, OptimizerOptions] = field(default_factory=dict)


class Trainer:
    """Trains one pair of networks.

    Attributes:
        step_index: G updates done. A run of k steps and one resumed at any step before k end bit-equal.
        trained: parameters by network and saved name, those of methods' modules among them.
        unreached: names of parameters, by network, that no term reaches; they left the optimiser.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        discriminator: Discriminator,
        manager: RunManager,
        plan: StepPlan,
        chain: AugmentChain,
        modules: MethodModules,
        loader: Loader,
        device: torch.device,
        options: TrainerOptions,
        forward_options: ForwardOptions,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.manager = manager
        self.plan = plan
        self.chain = chain
        self.modules = modules
        self.loader = loader
        self.device = device
        self.options = options
        self.forward = Forward(
            generator, discriminator, plan, chain, forward_options, list(modules.modules.values())
        )
        self.ema = ExponentialAverage(generator)
        self.telemetry = Telemetry(device)
        self.step_index = 0
        self._progress = torch.zeros((), device=device)
        # Scheduled weights live on the device: a captured step would bake a number of the host in.
        dtype = forward_options.dtype
        self._schedules = {
            (term.key, term.network): (term.weight, torch.zeros((), dtype=dtype, device=device))
            for term in plan.declarations.terms
            if callable(term.weight)
        }
        self._watching = frozenset(watch.method for watch in plan.declarations.watches)
        self.trained = {"d": self._named("d"), "g": self._named("g")}
        self._d_parameters = list(discriminator.parameters())
        self.unreached = probe(self)
        self.optimizers = {
            network: NetworkOptimizer(
                {n: p for n, p in named.items() if n not in self.unreached[network]},
                options.optimizers.get(network, OptimizerOptions()),
            )
            for network, named in self.trained.items()
        }
        self.graphs: Graphs | None = None
        if device.type == "cuda" and options.graphs:
            self.record_with(CudaRecorder())

    def record_with(self, recorder: Recorder) -> None:
        """From now on compute phases by recording and replaying them."""
        self.graphs = Graphs(
            recorder=recorder,
            telemetry=self.telemetry,
            optimizers=self.optimizers,
            modules=[self.generator, self.discriminator, *self.modules.modules.values()],
            methods=self.manager.methods,
            precision=self.forward.options.precision,
        )

    @property
    def images_seen(self) -> int:
        """The batch times the steps done."""
        return self.step_index * self.options.batch

    @property
    def d_updates(self) -> int:
        """Updates of D so far; ``every`` of a term of D counts these."""
        return self.step_index * self.options.n_critic

    # One step.

    def train_step(self) -> None:
        """n_critic updates of D, one of G, the average of G."""
        self.set_progress()
        for critic in range(self.options.n_critic):
            self.update("d", critic)
            self.update("d_reg", critic)
        self.update("g", 0)
        self.update("g_reg", 0)
        self.step_index += 1
        seen = self.images_seen
        beta = beta_for(self.options.batch, seen, self.options.half_life_kimg, self.options.ramp)
        self.ema.update(self.generator, beta)

    def set_progress(self) -> None:
        """Bring progress and scheduled weights on the device up to the present step."""
        progress = self.step_index / max(self.options.steps, 1)
        self._progress.fill_(progress)
        for schedule, weight in self._schedules.values():
            weight.fill_(schedule(progress))

    def update(self, phase: str, critic: int) -> None:
        """One phase, if anything of it is due: draws, forwards, one backward, one optimiser step."""
        update = self.d_updates + critic if phase[0] == "d" else self.step_index
        program = self.plan.program(phase, update)
        if program is None:
            return
        step = self.new_step(program, critic)
        with self.others_frozen(program.network), attributed(step):
            reals = self.draw(step)
            if self.graphs is None:
                self._compute(step, reals)
            else:
                step = self.graphs.run(step, reals, self._compute)
            with torch.no_grad():
                self._call(f"after_{program.network}_step", step)
        self.telemetry.commit()

    def _compute(self, step: Step, reals: Tensor | None) -> None:
        """Forwards, losses, one backward, one optimiser step: all work of a phase that a graph can hold."""
        optimizer = self.optimizers[step.program.network]
        total = self.drawn_loss(step, reals)
        optimizer.clear()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.fill_missing()
        optimizer.step(self.plan.interval(step.phase))
        self.telemetry.record(f"loss/{step.phase}", total.detach())

    @contextlib.contextmanager
    def others_frozen(self, network: str) -> Iterator[None]:
        """What trains with the other network needs no gradient in the phases of this one."""
        frozen = self.trained["g" if network == "d" else "d"].values()
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def new_step(self, program: Program, critic: int) -> Step:
        """The context of a phase, before anything of it is drawn."""
        phase, options = program.phase, self.options
        return Step(
            program=program,
            plan=self.plan,
            canonical=self.plan.canonical,
            key=(options.seed, options.rank, self.step_index, critic, phase),
            index=self.step_index,
            critic=critic,
            images_seen=self.images_seen,
            batch=options.batch,
            device=self.device,
            progress=self._progress,
            log=self.telemetry.record,
            chosen=lambda: self._chosen(program.network, critic),
            d_parameters=self._d_parameters,
        )

    def loss(self, step: Step) -> Tensor:
        """Draws, forwards, loss hooks; the weighted sum of the phase's terms."""
        return self.drawn_loss(step, self.draw(step))

    def drawn_loss(self, step: Step, reals: Tensor | None) -> Tensor:
        """:meth:`loss` of a step that is drawn."""
        program = step.program
        self.forward.begin_phase()
        self.forward.run(step, program, reals)
        if program.phase == "d":
            with torch.no_grad():
                self._call("observe", step)
        raw = self._collect_terms(step)
        step.caller = CORE
        total: Tensor | None = None
        for term in program.terms:
            value = raw[term.key]
            if self.forward.checking and not value.requires_grad:
                raise PluginError(
                    f"term '{term.key}' of phase '{program.phase}' has no gradient: it was detached, or nothing "
                    "that it reads trains in this phase"
                )
            self.telemetry.record(f"{term.key}.{program.network}", value.detach())
            weighted = self._weighted(value, term)
            if weighted is not value:
                self.telemetry.record(f"{term.key}.{program.network}.weighted", weighted.detach())
            total = weighted if total is None else total + weighted
        if total is None:
            raise PluginError(f"phase '{program.phase}' has no active term")
        for side in step.scored_sides():
            self.telemetry.record(f"scores/{side}.{program.network}", step.scored(side).detach().mean())
        return total

    def draw(self, step: Step) -> Tensor | None:
        """Everything random or read from the data, eager, of fixed shapes; the reals, if any are needed."""
        options, program = self.options, step.program
        rng = Rng(options.seed, options.rank, step.index, step.critic, step.phase, CORE, device=self.device)
        reals = None
        if program.needs_reals or (program.network == "d" and self.loader.dataset.labels is not None):
            start = self._start(program.network, step.critic)
            reals, step.labels["real"] = self.loader.batch(program.network, start, options.batch)
        latents = rng.normal(options.batch, self.generator.latent_dim)
        step.latents = latents.to(self.forward.options.dtype)
        if self.loader.dataset.labels is not None:
            classes = self.loader.random_labels(rng.numpy, options.batch)
            step.labels["fake"] = to_device(classes, self.device)
        self._call(f"before_{program.network}_step", step)
        shape = (options.batch, *self.loader.dataset.shape)
        for side in sorted(self.chain.sides):
            step.augmentation[side] = self.chain.draw(step, side, shape)
        return reals

    def _start(self, network: str, critic: int) -> int:
        """Where the reals of an update begin in the stream of its network."""
        if network == "d":
            return (self.d_updates + critic) * self.options.batch
        return self.images_seen

    def _chosen(self, network: str, critic: int) -> tuple[Tensor, Tensor]:
        found = self.loader.chosen(network, self._start(network, critic), self.options.batch)
        return to_device(found[0], self.device), to_device(found[1], self.device)

    def _weighted(self, value: Tensor, term: Term) -> Tensor:
        if callable(term.weight):
            return value * (self._schedules[term.key, term.network][1] * term.every)
        factor = term.weight * term.every
        return value if factor == 1.0 else value * factor

    # Hooks.

    def _call(self, hook: str, step: Step) -> None:
        watching = self._watching if hook.startswith("after_") and step.phase.endswith("_reg") else ()
        for call in self.manager.calls(hook):
            if call.method not in watching:
                step.caller, step.doing = call.method, hook
                call.call(step=step)
        step.caller = CORE

    def _collect_terms(self, step: Step) -> dict[str, Tensor]:
        program = step.program
        expected = {term.key for term in program.terms}
        owners = {term.method for term in program.terms}
        raw: dict[str, Tensor] = {}
        hook = f"{program.network}_loss"
        for call in self.manager.calls(hook):
            if call.method not in owners:
                continue
            step.caller, step.doing = call.method, hook
            raw.update(_checked_terms(call, step, call.call(step=step), expected))
        missing = sorted(expected - raw.keys())
        if missing:
            owner = missing[0].split("/")[0]
            raise PluginError(
                f"plugin '{owner}' returned no value for its active terms {missing} in hook '{hook}' "
                f"(phase '{step.phase}', step {step.index})"
            )
        return raw

    # Before the first step.

    def _named(self, network: str) -> dict[str, Tensor]:
        """Parameters that train with a network, by the name they are saved under."""
        module: nn.Module = self.discriminator if network == "d" else self.generator
        prefixed = {"": module}
        for key in sorted(self.modules.modules):
            if self.modules.trained_by[key] == network:
                prefixed[f"methods.{key}."] = self.modules.modules[key]
        return {
            f"{prefix}{name}": parameter
            for prefix, owner in prefixed.items()
            for name, parameter in owner.named_parameters()
            if parameter.requires_grad  # what a network or method has frozen stays frozen
        }


def _checked_terms(call: HookCall, step: Step, returned: object, expected: Iterable[str]) -> dict[str, Tensor]:
    if returned is None:
        return {}
    where = f"plugin '{call.method}', hook '{call.hook}' (phase '{step.phase}')"
    if not isinstance(returned, LossTerms):
        raise PluginError(
            f"{where} returned {type(returned).__name__}; expected self.terms(name=value, …) or None"
        )
    terms = {}
    for name, value in returned.items():
        key = f"{call.method}/{name}"
        if key not in expected:
            raise PluginError(
                f"{where} returned term '{name}', which it did not declare or which is not due; "
                "declare it with plan.term and return it only when step.wants it"
            )
        if not isinstance(value, Tensor) or value.dim() != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(f"{where} returned term '{name}' as {shape}; expected a 0-d tensor")
        if value.device.type != step.device.type:
            raise PluginError(
                f"{where} returned term '{name}' on the {value.device.type}, not {step.device.type}"
            )
        terms[key] = value
    return terms
