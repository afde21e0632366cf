"""Rules about values: finite, the same however D is called, differentiable twice, in float32 beside bfloat16."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gancore.assembly import Session
from gancore.augment import Augment
from gancore.declaration import Term
from gancore.errors import GancoreError
from gancore.method import load_method_state, method_state
from gancore.testing.bench import Bench, Run, outcome
from gancore.testing.subject import Breach
from gancore.testing.watch import Watch
from gancore.training import state

TOGETHER = 1e-10
"""How far concatenated and one-by-one execution may be apart in float64, relative to the largest value."""

DIFFERENCE = 1e-4
"""How far a derivative may be from the finite difference, relative to it."""


def finite(bench: Bench) -> str | None:
    """Losses, terms and parameters are finite in every step, with labels too where the method takes them."""
    _ = bench.watched
    _check_finite(bench, bench.reference, "")
    if "data.conditional" in bench.overrides:
        return None
    try:
        found = bench.run({"data.conditional": True}, steps=3)
    except GancoreError as error:
        if error.__cause__ is None:
            return None  # it says itself that it takes no labels
        raise Breach(
            f"with labels: {error}",
            expected="a conditional run, or a refusal that says why",
            fix="labels are in step.labels; what cannot be made conditional raises PluginError in declare",
        ) from error
    _check_finite(bench, found, "with labels (data.conditional = true) ")
    return None


def concat_is_sequential(bench: Bench) -> str | None:
    """D on all views of a group at once and D on one view after the other give the same run to 1e-10 in float64,
    gradients included."""
    runs = []
    for execution in ("concat", "sequential"):
        watch = Watch(bench.name)
        with bench.session({"compute.precision": "float64", "compute.execution": execution}) as session:
            watch.attach(session)
            for _ in range(3):
                session.trainer.train_step()
            runs.append({**_compared(outcome(session).tensors), **_gradients(session)})
        narrow = [term for term, dtype in sorted(watch.types.items()) if dtype != torch.float64]
        if narrow:
            raise Breach(
                f"in a float64 run its term '{narrow[0][0]}' is {watch.types[narrow[0]]}",
                expected="torch.float64",
                fix="compute in the type of the inputs; no .float() on what may be wider",
            )
    groups: dict[str, float] = {}
    for name, tensor in runs[0].items():
        groups[_group(name)] = max(groups.get(_group(name), 0.0), _largest(tensor))
    for name, tensor in runs[0].items():
        other = runs[1][name].double()
        # What cancels exactly, as a bias of D in a hinge loss, is noise: it is measured against its neighbours.
        scale = max(_largest(tensor), 0.1 * groups[_group(name)])
        apart = _largest(tensor.double() - other)
        if not apart <= TOGETHER * scale:
            raise Breach(
                f"after 3 steps in float64 '{name}' differs by {apart / scale:.1e} of its size",
                expected=f"at most {TOGETHER:g}: views of one group go through D in one call or in several",
                fix="read D's outputs through step.d; no hooks on D's modules, no statistics over rows of other "
                "views, nothing that depends on how often D is called",
            )
    return None


def double_backward(bench: Bench) -> str | None:
    """The link of the augmentation chain, and every term with a penalty, has the derivatives that finite
    differences in float64 show: the link twice, the term with respect to D's parameters."""
    watch = bench.watched
    if bench.name not in watch.links and not watch.penalties:
        return f"'{bench.name}' has neither a link of the augmentation chain nor a term with a penalty"
    with bench.session({"compute.precision": "float64"}) as session:
        if bench.name in watch.links:
            _check_link(bench, session, dict(session.trainer.chain.links)[bench.name])
        for term in session.plan.declarations.terms:
            if term.key in watch.penalties:
                _check_penalty(session, term)
    return None


def bf16(bench: Bench) -> str | None:
    """In a run with bfloat16 everything is finite, and terms are computed in float32."""
    watch = Watch(bench.name)
    with bench.session({"compute.precision": "bf16"}) as session:
        watch.attach(session)
        for _ in range(2):
            session.trainer.train_step()
        _check_finite(bench, outcome(session), "in bf16 ")
    narrow = [term for term, dtype in sorted(watch.types.items()) if dtype != torch.float32]
    if narrow:
        raise Breach(
            f"in a bf16 run its term '{narrow[0][0]}' is {watch.types[narrow[0]]}",
            expected="torch.float32",
            fix="D's outputs come in float32: keep it, in modules of your own too; no autocast, no .to(bfloat16)",
        )
    return None


# Finite.


def _check_finite(bench: Bench, run: Run, when: str) -> None:
    ours = {name for name in run.moments if name.startswith(f"{bench.name}/")}
    losses = sorted(name for name in run.moments if name.startswith("loss/"))
    for name in (*sorted(ours), *losses):
        is_term = name in losses or name.removesuffix(".weighted").endswith((".d", ".g"))
        if is_term and not math.isfinite(run.moments[name]["mean"]):
            raise Breach(
                f"{when}'{name}' is not finite in the first steps",
                expected="finite terms",
                fix="guard roots, logarithms and divisions; sqrt(x + eps) has a gradient at 0, sqrt(x) has none",
            )
    for name, tensor in run.tensors.items():
        theirs = name.startswith("methods.") and not name.startswith(f"methods.{bench.name}.")
        trains = name.startswith(("g.", "d.", "ema.", "optimizer."))
        if trains and not theirs and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Breach(
                f"{when}'{name}' is not finite",
                expected="finite parameters and moments: a term may be finite while its gradient is not",
                fix="guard roots, logarithms and divisions; torch.where passes on NaN gradients of either branch",
            )


# Concatenated and one by one.


def _compared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "telemetry.sums"}


def _gradients(session: Session) -> dict[str, Tensor]:
    return {
        f"gradient.{network}/{name}": parameter.grad.clone()
        for network, named in session.trainer.trained.items()
        for name, parameter in named.items()
        if parameter.grad is not None
    }


def _group(name: str) -> str:
    """Tensors of one kind: weights of D, first moments of G's, gradients, buffers of a method."""
    if name.startswith("optimizer."):
        return f"{name.split('/')[0]}/{name.split('/')[-1]}"
    return ".".join(name.split(".")[:3]) if name.startswith("methods.") else name.split(".")[0] + name[9:11]


def _largest(tensor: Tensor) -> float:
    return float(tensor.double().abs().max()) if tensor.numel() else 0.0


# Derivatives.


def _check_link(bench: Bench, session: Session, link: Augment) -> None:
    """Of x -> 1/2 ||T(x) - c||^2, once and twice, in random directions."""
    program = session.plan.full_program("d")
    assert program is not None
    step = session.trainer.new_step(program, 0)
    session.trainer.draw(step)
    for side in link.sides:
        draw = step.augmentation[side][bench.name]
        random = torch.Generator().manual_seed(1)
        shape = (step.batch, *session.dataset.shape)
        x, u, v, c = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(4))
        x = 0.5 * x

        def half_square(image: Tensor, draw: Mapping[str, Tensor] = draw, c: Tensor = c) -> Tensor:
            return (link.transform(image, draw) - c).square().sum() / 2

        def slope(image: Tensor, half_square: Callable[[Tensor], Tensor] = half_square, u: Tensor = u) -> Tensor:
            image = image.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(half_square(image), image, create_graph=True)
            return (gradient * u).sum()

        place = f"its link, side '{side}'"
        with _named(place):
            leaf = x.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(half_square(leaf), leaf)
            _compare(f"the gradient through {place}", float((gradient * v).sum()), half_square, x, v)
            leaf = x.clone().requires_grad_(True)
            (first,) = torch.autograd.grad(half_square(leaf), leaf, create_graph=True)
            (second,) = torch.autograd.grad((first * u).sum(), leaf)
            _compare(f"the second derivative through {place}", float((second * v).sum()), slope, x, v)


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Breach(
            f"{place} cannot be differentiated twice: {str(error).splitlines()[0]}",
            expected="R1 and gradient penalties differentiate through the augmentation twice",
            fix="operations that torch differentiates twice; grid_sample is not one of them, indexing is",
        ) from error


def _compare(
    what: str, derivative: float, function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor
) -> None:
    found = []
    for size in (1e-4, 1e-5, 1e-6):
        ends = [float(function(x + sign * size * direction).detach()) for sign in (1, -1)]
        found.append((ends[0] - ends[1]) / (2 * size))
    _check_close(what, derivative, found, abs(ends[0]))


def _check_close(what: str, derivative: float, differences: Sequence[float], value: float) -> None:
    """One of the step sizes must agree: a large one meets kinks, a small one the rounding of ``value``."""
    best = min(differences, key=lambda difference: abs(difference - derivative))
    if not abs(best - derivative) <= DIFFERENCE * max(abs(best), abs(derivative)) + 1e-9 * max(value, 1.0):
        raise Breach(
            f"{what} is {derivative:.6g} in a random direction, and the finite difference is {best:.6g}",
            expected=f"the same to {DIFFERENCE:g}",
            fix="nothing detached on the way, no create_graph=False, no backward of its own that is wrong",
        )


def _check_penalty(session: Session, term: Term) -> None:
    """d term / d parameters of D along a random direction, everything random and every buffer held."""
    trainer = session.trainer
    program = next(
        p
        for phase in ("d", "d_reg")
        if (p := session.plan.full_program(phase)) is not None and any(t.key == term.key for t in p.terms)
    )
    named = list(trainer.trained["d"].values())
    raw: dict[str, Tensor] = {}
    collect = trainer._collect_terms

    def collected(step: object) -> dict[str, Tensor]:
        raw.update(collect(step))  # type: ignore[arg-type]
        return raw

    trainer._collect_terms = collected  # type: ignore[method-assign]
    trainer.set_progress()
    trainer.forward.begin_phase()
    trainer.forward.begin_phase = lambda: None  # type: ignore[method-assign]  # u and v of spectral norms are held

    def value() -> Tensor:
        with _held(session), trainer.others_frozen("d"):
            trainer.loss(trainer.new_step(program, 0))
        return raw[term.key]

    gradients = torch.autograd.grad(value(), named, allow_unused=True)
    random = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=random, dtype=torch.float64) for p in named]
    derivative = sum(float((g * u).sum()) for g, u in zip(gradients, directions, strict=True) if g is not None)
    differences = []
    for size in (1e-5, 1e-6, 1e-7):
        ends = []
        for sign in (1, -1):
            _move(named, directions, sign * size)
            ends.append(float(value().detach()))
            _move(named, directions, -sign * size)
        differences.append((ends[0] - ends[1]) / (2 * size))
    trainer._collect_terms = collect  # type: ignore[method-assign]
    _check_close(
        f"the gradient of '{term.key}' with respect to D's parameters", derivative, differences, abs(ends[0])
    )


@torch.no_grad()
def _move(tensors: Sequence[Tensor], directions: Sequence[Tensor], size: float) -> None:
    for tensor, direction in zip(tensors, directions, strict=True):
        tensor.add_(direction, alpha=size)


@contextlib.contextmanager
def _held(session: Session) -> Iterator[None]:
    """Undo what a phase does to buffers and to the plain states of methods."""
    live = state(session)[0]
    saved = {name: tensor.detach().clone() for name, tensor in live.items() if not name.startswith("optimizer.")}
    states = {name: method_state(method) for name, method in session.manager.methods.items()}
    yield
    with torch.no_grad():
        for name, tensor in saved.items():
            if name != "telemetry.sums" and not torch.equal(live[name], tensor):
                live[name].copy_(tensor)
    for name, saved_state in states.items():
        load_method_state(session.manager.methods[name], saved_state)
