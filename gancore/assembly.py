"""From a configuration to a trainer: data, networks, methods, step plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gancore.augment import Augment, AugmentChain
from gancore.compute import Compute, choose, choose_device
from gancore.config import Config
from gancore.data import open_dataset
from gancore.data.dataset import Dataset
from gancore.data.loader import Loader
from gancore.declaration import Declaration, Declarations
from gancore.errors import ConfigError, GancoreError, PluginError
from gancore.forward import ForwardOptions
from gancore.networks.protocols import Discriminator, Generator
from gancore.networks.spec import NetworkSpec, TapSpec
from gancore.ops.runtime import State, recording
from gancore.plan import StepPlan
from gancore.plugin_manager import HookCall, Registry, RunManager, build_methods
from gancore.randomness import key_to_seed
from gancore.run_context import MethodModules, RunContext
from gancore.specs import Claims, check_claims, warnings_of
from gancore.trainer import Trainer, TrainerOptions

Progress = Callable[[int, int], None]


@dataclass
class Session:
    """Everything that a run has in memory."""

    config: Config
    registry: Registry
    dataset: Dataset
    loader: Loader
    manager: RunManager
    plan: StepPlan
    trainer: Trainer
    contexts: dict[str, RunContext]
    compute: Compute
    threads_before: int
    warnings: list[str]
    operations: dict[str, State]
    opened: dict[str, Dataset | None] = field(default_factory=dict)
    """Sets that evaluations look at beside the training set, kept from one to the next."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.compute.device

    def close(self) -> None:
        """Stop background reading; give the process the number of threads back that it had."""
        self.loader.close()
        for dataset in self.opened.values():
            if dataset is not None:
                dataset.close()
        if self.config.compute.threads:
            torch.set_num_threads(self.threads_before)


def assemble(
    config: Config, registry: Registry, progress: Progress | None = None, dataset: Dataset | None = None
) -> Session:
    """Build a session; every error that can be found before training is raised here.

    Args:
        progress: called with (done, total) while data is read.
        dataset: opened already, in place of what the configuration names.
    """
    threads_before = torch.get_num_threads()
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']}: training on several devices is not there yet; start one "
            "process, without torchrun"
        )
    choose_device(config.compute.device)  # before data is read
    if dataset is None:
        dataset = open_dataset(config.data, progress)
    compute = choose(config.compute, dataset.kind)
    device, dtype = compute.device, compute.dtype
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = config.compute.deterministic
    if config.train.batch > len(dataset):
        raise ConfigError(
            f"--batch {config.train.batch} is larger than the set '{dataset.name}' ({len(dataset)} images); "
            f"choose at most {len(dataset)}"
        )
    spec = registry.network(config.network_name)
    generator, discriminator = build_networks(config, spec, dataset, compute)
    active = {name: chosen for name, chosen in config.methods.items() if chosen.weight != 0}
    manager = RunManager(build_methods(registry, active))
    if config.output.evaluate_every and not manager.calls("evaluate"):
        raise ConfigError("output.evaluate_every is set, but no method of the run has metrics: name one with -p")
    num_classes = len(dataset.class_names)
    claims = {name: registry.method(name).claims(chosen) for name, chosen in active.items()}
    check_claims(claims, capabilities(discriminator, dataset))
    _check_own_taps(config.network_name, discriminator)
    declarations = Declarations()
    taps = dict(discriminator.taps)
    plans = {
        name: Declaration(name, chosen.weight, claims[name], declarations, taps, dataset.shape, num_classes)
        for name, chosen in active.items()
    }
    for call in manager.calls("declare_taps"):
        _guarded(call, plan=plans[call.method])
    _check_taps(claims, taps)
    for call in manager.calls("declare"):
        _guarded(call, plan=plans[call.method])
    modules = MethodModules()
    warnings = warnings_of(claims)
    contexts = {
        name: RunContext(
            method=name,
            shape=dataset.shape,
            num_classes=num_classes,
            dataset_size=len(dataset),
            mirror=config.data.mirror,
            batch=config.train.batch,
            n_critic=config.train.n_critic,
            steps=config.train.steps,
            seed=config.train.seed,
            device=device,
            dtype=dtype,
            generator=generator,
            discriminator=discriminator,
            added=modules,
            warnings=warnings,
        )
        for name in manager.methods
    }
    for call in manager.calls("setup"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key_to_seed(config.train.seed, "setup", call.method))
            _guarded(call, run=contexts[call.method])
    chain = _build_chain(manager, contexts)
    plan = StepPlan(
        declarations,
        claims,
        taps=taps,
        augmented_sides=chain.sides,
        lazy=config.train.lazy,
    )
    _check_chain(chain, plan)
    warnings += _idle(manager, declarations, chain, warnings)
    loader = Loader(dataset, config.train.seed, device, config.data.mirror, dtype)
    with recording() as operations:  # the trainer probes every phase once, and so asks for all that steps use
        trainer = Trainer(
            generator=generator,
            discriminator=discriminator,
            manager=manager,
            plan=plan,
            chain=chain,
            modules=modules,
            loader=loader,
            device=device,
            options=TrainerOptions(
                seed=config.train.seed,
                steps=config.train.steps,
                batch=config.train.batch,
                n_critic=config.train.n_critic,
                half_life_kimg=config.ema.half_life_kimg,
                ramp=config.ema.ramp,
                graphs=config.compute.graphs,
                optimizers=config.optimizers,
            ),
            forward_options=ForwardOptions(
                execution=config.compute.execution,
                precision=compute.precision,
                compiled=config.compute.compile,
                micro_batch_d=config.compute.micro_batch_d,
                micro_batch_g=config.compute.micro_batch_g,
                spectral_norm=config.train.spectral_norm,
            ),
        )
    return Session(
        config,
        registry,
        dataset,
        loader,
        manager,
        plan,
        trainer,
        contexts,
        compute,
        threads_before,
        warnings,
        operations,
    )


def build_networks(
    config: Config, spec: NetworkSpec, dataset: Dataset, compute: Compute
) -> tuple[Generator, Discriminator]:
    """The networks of a configuration, initialised from its seed, on the device."""
    spec.check(dataset.shape, dataset.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(config.train.seed, "networks"))
        generator, discriminator = spec.load()(config.network, dataset.shape, len(dataset.class_names))
    for network in (generator, discriminator):
        network.to(device=compute.device, dtype=compute.dtype)
        if compute.layout == "channels_last":
            network.to(memory_format=torch.channels_last)
        network.train()
    return generator, discriminator


def capabilities(discriminator: Discriminator, dataset: Dataset) -> frozenset[str]:
    """What networks and data offer to methods that need it."""
    found = {f"tap:{tap}" for tap in discriminator.taps} | {f"data:{dataset.kind}"}
    if discriminator.coupling == "none":
        found.add("d:uncoupled")
    if dataset.class_names:
        found.add("labels")
    return frozenset(found)


def environment(session: Session) -> dict[str, Any]:
    """What a resume must agree with for its numbers to be bit-equal."""
    device = session.device
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": session.compute.precision,
        "ops": ", ".join(f"{name} {state.key}" for name, state in session.operations.items() if state.key)
        or "reference",
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _check_own_taps(network: str, discriminator: Discriminator) -> None:
    for tap in discriminator.taps:
        if "." in tap:
            raise PluginError(
                f"network '{network}' names a tap '{tap}'; a dot is for taps that methods derive: rename it"
            )


def _check_taps(claims: Mapping[str, Claims], taps: Mapping[str, TapSpec]) -> None:
    for name, found in sorted(claims.items()):
        for offer in sorted(found.offers):
            if offer.startswith("tap:") and offer.removeprefix("tap:") not in taps:
                raise PluginError(f"'{name}' offers '{offer}' and does not declare it in declare_taps")


def _build_chain(manager: RunManager, contexts: dict[str, RunContext]) -> AugmentChain:
    links = []
    for call in manager.in_given_order("augment"):
        link = _guarded(call, run=contexts[call.method])
        if link is None:
            continue
        if not isinstance(link, Augment):
            raise PluginError(
                f"plugin '{call.method}', hook 'augment' returned {type(link).__name__}; expected an object "
                "with sides, draw and transform, or None"
            )
        if not set(link.sides) <= {"real", "fake"}:
            raise PluginError(f"plugin '{call.method}': its link has sides {link.sides}; expected 'real', 'fake'")
        if contexts[call.method].shape == (2,):
            raise PluginError(
                f"'{call.method}' augments images, and the set holds 2-D points: drop -p {call.method}"
            )
        links.append((call.method, link))
    return AugmentChain(links)


def _check_chain(chain: AugmentChain, plan: StepPlan) -> None:
    programs = (plan.full_program(phase) for phase in plan.phases)
    if chain.links and not any(program is not None and program.augments for program in programs):
        idle = " and ".join(f"'{name}'" for name, _ in chain.links)
        drop = " ".join(f"-p {name}" for name, _ in chain.links)
        raise ConfigError(
            f"{idle} would do nothing: no term of this run looks at augmented images ('{plan.objective}' judges "
            f"clean ones); drop {drop}, or choose an objective that judges augmented images"
        )


def _idle(manager: RunManager, declarations: Declarations, chain: AugmentChain, warned: list[str]) -> list[str]:
    """Methods that could declare something, have declared nothing, and have not said why."""
    could = {call.method for hook in ("declare", "augment") for call in manager.calls(hook)}
    acting = {*declarations.methods, *(name for name, _ in chain.links)}
    acting |= {call.method for call in manager.calls("evaluate")}
    return [
        f"{name}: it does nothing with these options: no term has a weight above 0, and it augments nothing; "
        f"drop -p {name}"
        for name in sorted(could - acting)
        if not any(text.startswith(f"{name}: ") for text in warned)
    ]


def _guarded(call: HookCall, **arguments: Any) -> Any:
    try:
        return call.call(**arguments)
    except GancoreError:
        raise
    except Exception as error:
        raise PluginError(
            f"plugin '{call.method}' raised in hook '{call.hook}' (before training): "
            f"{type(error).__name__}: {error}"
        ) from error
