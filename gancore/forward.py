"""Execute a program: latents, images, and D on each group of views, concatenated or one by one.

This is the only place where G or D is called in training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gancore.augment import AugmentChain
from gancore.compute import Precision
from gancore.declaration import DerivedTap
from gancore.errors import ConfigError, PluginError
from gancore.networks.batch_statistics import batch_norm_layers, running_statistics_frozen
from gancore.networks.passes import Passes, in_pieces
from gancore.networks.protocols import Discriminator, Generator
from gancore.networks.spectral import SpectralNorm, iterate_at_every_read, power_iterate, spectral_norms
from gancore.plan import StepPlan
from gancore.program import Group, ImageNode, Program
from gancore.step import Step

Execution = Literal["concat", "sequential"]


@dataclass(frozen=True)
class ForwardOptions:
    """How programs are executed; none of it changes what is computed.

    Args:
        execution: views of a group in one call, or one by one.
        precision: ``"float32"``, ``"bf16"`` (autocast; losses stay in float32) or ``"float64"``.
        compiled: forwards compiled by torch, but for those that a penalty differentiates twice.
        micro_batch_d, micro_batch_g: the most rows of a network that keep activations at once; 0 for no limit.
            More rows are forwarded in pieces and recomputed in the backward: same gradients, less memory.
            Refused for a network whose rows depend on each other.
        spectral_norm: one power iteration ``"per_phase"`` or ``"per_view"`` (then always one by one).
    """

    execution: Execution = "concat"
    precision: Precision = "float32"
    compiled: bool = False
    micro_batch_d: int = 0
    micro_batch_g: int = 0
    spectral_norm: Literal["per_phase", "per_view"] = "per_phase"

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters and images."""
        return torch.float64 if self.precision == "float64" else torch.float32


class Forward:
    """Runs programs over one pair of networks.

    Args:
        trained: modules of methods; their spectral norms iterate with those of the networks.

    Attributes:
        checking: refuse builders that change their sources in place.

    Raises:
        ConfigError: micro-batches for a network whose rows depend on each other.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        plan: StepPlan,
        chain: AugmentChain,
        options: ForwardOptions,
        trained: Sequence[nn.Module] = (),
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self._passes = Passes(generator, discriminator, options.compiled)
        self.plan = plan
        self.chain = chain
        self.options = options
        self._declared = plan.declarations
        self._d_norms = spectral_norms(discriminator)
        self._norms = [*spectral_norms(generator), *self._d_norms]
        for module in trained:
            self._norms += spectral_norms(module)
        self._device = next((p.device.type for p in discriminator.parameters()), "cpu")
        if self._device == "cuda" and any(view.precision for view in self._declared.images.values()):
            # TF32 keeps ten bits of the mantissa, in the backward of such a view too.
            torch.backends.cudnn.allow_tf32 = False
        self._g_batch_norms = batch_norm_layers(generator)
        self.checking = False
        if options.spectral_norm == "per_view" and (options.micro_batch_d or options.micro_batch_g):
            raise ConfigError(
                "train.spectral_norm = per_view iterates in every pass, and micro-batches pass every row twice; "
                "choose per_phase, or no micro-batches"
            )
        for name, network, rows in (
            ("d", discriminator, options.micro_batch_d),
            ("g", generator, options.micro_batch_g),
        ):
            if rows and network.coupling != "none":
                raise ConfigError(
                    f"micro_batch_{name} = {rows}: rows of this network depend on each other (coupling "
                    f"'{network.coupling}'), so pieces of a batch would train another model; "
                    f"set micro_batch_{name} = 0 or take a network without batch statistics"
                )

    def begin_phase(self) -> None:
        """One power iteration for each spectral norm; from here to the phase's end weights stay the same."""
        self._settle(self._norms)

    def _settle(self, norms: list[SpectralNorm]) -> None:
        if self.options.spectral_norm == "per_view":
            iterate_at_every_read(norms)
        else:
            power_iterate(norms)

    def run(self, step: Step, program: Program, reals: Tensor | None) -> None:
        """Fill ``step.images``, ``step.leaves`` and ``step.d``.

        Args:
            reals: (B, C, H, W) in [-1, 1] or (B, 2); None when the program reads none.
        """
        attached = self._build_images(step, program, reals)
        for group in program.groups:
            source = attached if group.key.leaves else step.built
            images = [source[view] for view in group.views]
            self.discriminate(step, group, images)
        for group in program.feature_groups:
            self.discriminate(step, group, [self._build_features(step, view) for view in group.views])

    # Images.

    def _build_images(self, step: Step, program: Program, reals: Tensor | None) -> dict[str, Tensor]:
        """Fill ``step.images``; return the versions through which a penalty's gradient flows, by view.

        All other views are built from detached copies, so that a penalty's double backward visits no row that
        its output does not depend on.
        """
        plain = step.built
        attached: dict[str, Tensor] = {}
        generated = self.generate(step, self._latents(step, program))
        for node in program.images:
            through = bool(node.leaves - {node.name})
            if node.kind == "reals" and reals is not None:
                image = reals
            elif node.kind == "generated":
                image = generated[node.name]
            else:
                sources = [attached.get(s, plain[s]) if through else plain[s] for s in node.sources]
                image = self._build(step, node, sources)
            if node.leaves:
                attached[node.name] = image if through else image.detach().requires_grad_(True)
                if node.name in node.leaves:
                    step.leaves[node.name] = attached[node.name]
                image = image.detach()
            plain[node.name] = image
        return attached

    def _build(self, step: Step, node: ImageNode, sources: list[Tensor]) -> Tensor:
        if node.view is None:
            return self._augment(step, sources[0], node.side)
        images = sources[0]
        if node.view.build is not None:
            doing = f"view '{node.name}'"
            with step.calling(node.view.method, doing), self._unchanged(step, sources):
                images = node.view.build(step, *sources)
                shape = (node.rows * step.batch, *sources[0].shape[1:])
                _check_built(images, shape, sources[0].dtype, f"'{node.view.method}', {doing}")
        return images if node.view.augment is None else self._augment(step, images, node.view.augment)

    def _augment(self, step: Step, images: Tensor, side: str) -> Tensor:
        draws = step.augmentation.get(side, {})
        copies = len(images) // step.batch
        for name, link in self.chain.links:
            if name in draws:
                draw = draws[name]
                if copies > 1:
                    draw = {key: value.repeat(copies, *[1] * (value.dim() - 1)) for key, value in draw.items()}
                with step.calling(name, "augmentation"), self._unchanged(step, [images]):
                    augmented = link.transform(images, draw)
                    _check_built(augmented, images.shape, images.dtype, f"'{name}', augmentation")
                images = augmented
        return images

    @contextlib.contextmanager
    def _unchanged(self, step: Step, sources: Sequence[Tensor]) -> Iterator[None]:
        """In the probe: refuse work in place, which would corrupt what others read."""
        before = [source._version for source in sources]
        yield
        if self.checking and [source._version for source in sources] != before:
            raise PluginError(
                f"'{step.caller}' changes images in place in its {step.doing}; others read the same images: "
                "return new ones"
            )

    def _latents(self, step: Step, program: Program) -> dict[str, Tensor]:
        """The base latents and each declared set, by the view that G makes of them."""
        sets: dict[str, Tensor] = {}
        for name in [node.name for node in program.images if node.kind == "generated"]:
            if step.latents is None:
                raise ConfigError("a program generates images, but the step has no latents")
            declared = self._declared.latents.get(name)
            if declared is None:
                sets[name] = step.latents
                continue
            doing = f"latents '{name}'"
            with step.calling(declared.method, doing), self._unchanged(step, [step.latents]):
                sets[name] = declared.build(step, step.latents)
                shape, dtype = step.latents.shape, step.latents.dtype
                _check_built(sets[name], shape, dtype, f"'{declared.method}', {doing}")
        return sets

    def generate(self, step: Step, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images of G at each set of latents, by view; with a graph in the phases of G."""
        if not latents:
            return {}
        names, sets = list(latents), list(latents.values())
        labels = step.labels["fake"]
        with torch.set_grad_enabled(step.program.network == "g"), self._autocast(None):
            if self.generator.coupling == "none" and self.options.execution == "concat" and len(sets) > 1:
                merged = None if labels is None else labels.repeat(len(sets))
                images = self._run_generator(torch.cat(sets), merged).chunk(len(sets))
            else:
                images = tuple(self._generate_one(name, z, labels) for name, z in zip(names, sets, strict=True))
        return {name: self._widen(image) for name, image in zip(names, images, strict=True)}

    def _generate_one(self, name: str, latents: Tensor, labels: Tensor | None) -> Tensor:
        base = name not in self._declared.latents
        with contextlib.nullcontext() if base else running_statistics_frozen(self._g_batch_norms):
            return self._run_generator(latents, labels)

    def _run_generator(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        images: Tensor = in_pieces(self._passes.generate, latents, labels, self.options.micro_batch_g)
        return images

    # D.

    def discriminate(self, step: Step, group: Group, inputs: list[Tensor]) -> None:
        """D on the images or features of a group's views; fills ``step.outputs``."""
        labels = [self._labels(step, view, len(rows)) for view, rows in zip(group.views, inputs, strict=True)]
        precision = self._autocast(group.key.precision)
        found: dict[str, dict[str, Tensor]] = {}
        with self._mode(group.key.train), torch.set_grad_enabled(group.key.grad), precision:
            for views, outputs in self._calls(group, inputs, labels):
                found.update(zip(views, outputs, strict=True))
        with torch.set_grad_enabled(group.key.grad):
            self._derive(step, group, found)
        for view, tensors in found.items():
            step.outputs[view] = {name: tensors[name] for name in sorted(group.outputs[view])}

    def _derive(self, step: Step, group: Group, found: Mapping[str, dict[str, Tensor]]) -> None:
        """Add what methods derive from D's outputs, never in reduced precision; the views of a group together."""
        wanted = frozenset().union(*group.outputs.values())
        for name in sorted(wanted & self._declared.taps.keys()):
            declared = self._declared.taps[name]
            views = [view for view in group.views if name in group.outputs[view]]
            parts = [found[view][declared.source] for view in views]
            if self.options.execution == "concat" and len(parts) > 1:
                derived = self._derived(step, declared, torch.cat(parts)).chunk(len(parts))
            else:
                derived = tuple(self._derived(step, declared, part) for part in parts)
            for view, values in zip(views, derived, strict=True):
                found[view][name] = values

    def _derived(self, step: Step, declared: DerivedTap, features: Tensor) -> Tensor:
        with step.calling(declared.method, f"tap '{declared.name}'"), self._unchanged(step, [features]):
            values = declared.compute(features)
            where = f"'{declared.method}', {step.doing}"
            _check_built(values, (len(features), *declared.shape), features.dtype, where)
        return values

    def _of_network(self, names: frozenset[str]) -> frozenset[str]:
        """The outputs of D itself that these outputs are, or are derived from."""
        taps = self._declared.taps
        return frozenset(taps[name].source if name in taps else name for name in names)

    def _calls(
        self, group: Group, inputs: list[Tensor], labels: list[Tensor | None]
    ) -> Iterator[tuple[Sequence[str], list[dict[str, Tensor]]]]:
        count = len(group.views)
        batch = len(inputs[0])
        coupling = self.discriminator.coupling
        interleave = coupling == "grouped" and batch % self.discriminator.group_size == 0
        concat = self.options.execution == "concat" and self.options.spectral_norm == "per_phase"
        together = concat and (coupling == "none" or interleave) and count > 1
        if not together:
            for view, rows, label in zip(group.views, inputs, labels, strict=True):
                heads = len(rows) if "logits" in group.outputs[view] else 0
                tensors = self._call(group, rows, label, heads)
                yield (view,), [self._pick(group, view, tensors, lambda tensor: tensor)]
            return
        heads = sum("logits" in group.outputs[view] for view in group.views)
        if interleave:
            rows = torch.stack(inputs, 1).flatten(0, 1)
            label = None if labels[0] is None else torch.stack(labels, 1).flatten(0, 1)  # type: ignore[arg-type]
            tensors = self._call(group, rows, label, len(rows) if heads else 0)
            pick = [lambda t, i=i: t.unflatten(0, (batch, count))[:, i] for i in range(count)]
        else:
            rows = torch.cat(inputs)
            label = None if labels[0] is None else torch.cat(labels)  # type: ignore[arg-type]
            tensors = self._call(group, rows, label, heads * batch)
            pick = [lambda t, i=i: t[i * batch : (i + 1) * batch] for i in range(count)]
        yield (
            group.views,
            [self._pick(group, view, tensors, take) for view, take in zip(group.views, pick, strict=True)],
        )

    def _pick(
        self, group: Group, view: str, tensors: Mapping[str, Tensor], take: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        return {name: take(tensors[name]) for name in sorted(self._of_network(group.outputs[view]))}

    def _call(self, group: Group, rows: Tensor, labels: Tensor | None, heads: int) -> dict[str, Tensor]:
        """D on some rows; logits for the first ``heads`` of them. Returns only the tensors asked for."""
        wanted = self._of_network(frozenset().union(*group.outputs.values()))
        twice = bool(group.key.leaves)

        def forward(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
            tap = group.key.tap
            taps: Mapping[str, Tensor]
            taps = {tap: rows} if tap is not None else self._passes.features(rows, labels, twice)
            found = {name: taps[name] for name in sorted(wanted - {"logits"})}
            if heads:
                head_taps = {name: value[:heads] for name, value in taps.items()}
                head_labels = None if labels is None else labels[:heads]
                found["logits"] = self._passes.head(head_taps, head_labels, twice)
            return tuple(found.values())

        names = [*sorted(wanted - {"logits"}), *(["logits"] if heads else [])]
        if self.options.micro_batch_d and heads:
            heads = len(rows)  # a piece may lie across the last row that needs logits
        tensors = in_pieces(forward, rows, labels, self.options.micro_batch_d)
        return {name: self._widen(tensor) for name, tensor in zip(names, tensors, strict=True)}

    def _build_features(self, step: Step, view: str) -> Tensor:
        declared = self._declared.features[view]
        taps = [step.outputs[step.canonical(source)][tap] for source, tap in declared.sources]
        doing = f"feature view '{view}'"
        with step.calling(declared.method, doing), self._unchanged(step, taps):
            built = declared.build(step, *taps)
            shape = (len(taps[0]), *self.discriminator.taps[declared.tap].shape)
            _check_built(built, shape, taps[0].dtype, f"'{declared.method}', {doing}")
        return built

    def _labels(self, step: Step, view: str, rows: int) -> Tensor | None:
        labels = step.labels[step.program.sides[view]]
        if labels is None or len(labels) == rows:
            return labels
        return labels.repeat(rows // len(labels))

    # Modes.

    @contextlib.contextmanager
    def _mode(self, train: bool) -> Iterator[None]:
        if train:
            yield
            return
        self.discriminator.eval()
        try:
            yield
        finally:
            self.discriminator.train()
            for norm in self._d_norms:  # train() has switched the power iteration on again
                norm.parametrisation.train(self.options.spectral_norm == "per_view")

    def _autocast(self, precision: str | None) -> contextlib.AbstractContextManager[Any]:
        device = self._device
        if self.options.precision != "bf16" or precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=torch.bfloat16)

    def _widen(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.options.dtype) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _check_built(images: object, shape: Sequence[int], dtype: torch.dtype, where: str) -> None:
    if not isinstance(images, Tensor) or tuple(images.shape) != tuple(shape) or images.dtype != dtype:
        got = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise PluginError(f"{where} returned {got}; expected {tuple(shape)} {dtype}")
