"""For every rule of the contract a plugin that breaks it, and no other one where that can be."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from methods_for_tests import spec_of
from test_contract import pytest_in
from torch import nn

from gancore.api import Method, MethodSpec, Options, Penalty, StepKey, hookimpl, option
from gancore.testing import registry_with
from gancore.testing.contract import RULES, ContractViolation, Subject, check

BROKEN: dict[str, list[tuple[Subject, str, frozenset[str]]]] = {}
"""Rule -> subjects that break it, each with words of the message, and rules that must suffer with it."""


def breaks(
    rule: str,
    words: str,
    *,
    options: type = Options,
    companions: tuple[type[Method], ...] = (),
    also: tuple[str, ...] = (),
    spec: Callable[[MethodSpec], MethodSpec] = lambda spec: spec,
) -> Callable[[type[Method]], type[Method]]:
    """Register a method that breaks a rule."""

    def register(cls: type[Method]) -> type[Method]:
        name = cls.__name__.lower()
        others = [spec_of(other, other.__name__.lower()) for other in companions]
        registry = registry_with(spec(spec_of(cls, name, options)), *others)
        subject = Subject(name, companions=("hinge", *(other.name for other in others)), registry=registry)
        BROKEN.setdefault(rule, []).append((subject, words, frozenset(also)))
        return cls

    return register


class Term(Method):
    """One term of D on the logits of reals; the sound body of most of what follows."""

    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",)})

    @hookimpl
    def d_loss(self, step):
        return self.terms(t=self.value(step, step.d["real"].logits))

    def value(self, step, logits):
        return logits.square().mean()


@breaks(
    "entry-point", "empty summary", spec=lambda spec: MethodSpec(name=spec.name, summary="", target=spec.target)
)
class NoSummary(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class OutOfRange(Options):
    sigma: float = option(2.0, help="A number.", maximum=1)


@breaks("options-round-trip", "the default is refused: defaultoutofrange.sigma = 2.0", options=OutOfRange)
class DefaultOutOfRange(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class NoHelp(Options):
    sigma: float = option(2.0, help="")


@breaks("options-round-trip", "no help for sigma", options=NoHelp)
class Helpless(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class AnyWeight(Options):
    weight: float = option(1.0, help="Any weight.")


@breaks("options-round-trip", "weight = -1.0 is accepted", options=AnyWeight)
class Negative(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class Converted(Options):
    degrees: float = option(90.0, help="An angle.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", self.degrees * 3.14 / 180)


@breaks("options-round-trip", "-o converts.degrees=", options=Converted)
class Converts(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class Perhaps(Options):
    limit: float | None = option(None, help="A bound, or none.")


@breaks("options-round-trip", "limit = None cannot be written to config.toml", options=Perhaps)
class Unwritable(Term):
    pass


@breaks("declared-is-read", "reads 'pooled' of view 'fake', and never reads it")
class ReadsLess(Term):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",), "fake": ("pooled",)})


@breaks("declared-is-read", "the term 'deadterm/none' of D never has a gradient")
class DeadTerm(Term):
    @hookimpl
    def declare(self, plan):
        Term.declare(self, plan)
        plan.term("none", "d", reads={"real": ("logits",)})

    @hookimpl
    def d_loss(self, step):
        logits = step.d["real"].logits
        return self.terms(t=logits.square().mean(), none=logits.mean() * 0)


@breaks("declared-is-read", "reads step.outputs in its d_loss")
class Backdoor(Term):
    def value(self, step, logits):
        return (logits - step.outputs["fake"]["logits"]).mean()


@breaks("declared-is-read", "reads 'trunk' of view 'real'", also=tuple(RULES))
class ReadsMore(Term):
    def value(self, step, logits):
        return step.d["real"].taps["trunk"].mean()


@breaks("finite", "with labels (data.conditional = true) 'infiniteforlabels/t.d' is not finite")
class InfiniteForLabels(Term):
    def value(self, step, logits):
        classes = 0 if step.labels["real"] is None else 1
        return logits.mean() / (1 - classes if not classes else torch.zeros(()))


@breaks(
    "finite",
    "is not finite",
    also=("bf16", "state", "concat-is-sequential", "order", "own-random-stream", "no-global-random"),
)
class RootOfNothing(Term):
    def value(self, step, logits):
        return (logits - logits.detach()).square().sum().sqrt()


class WithHead(Term):
    trained_by = "d"

    @hookimpl
    def declare(self, plan):
        for network in ("d", "g"):
            plan.term("t", network, reads={"fake": ("logits",)})

    @hookimpl
    def setup(self, run):
        self.head = run.add_module("head", nn.Linear(1, 1), trained_by=self.trained_by)

    @hookimpl
    def d_loss(self, step):
        return self.terms(t=self.head(step.d["fake"].logits[:, None]).square().mean())

    @hookimpl
    def g_loss(self, step):
        return self.terms(t=step.d["fake"].logits.mean())


@breaks("gradients-stay", "a phase of G leaves a gradient in 'methods.thaws.head.weight'")
class Thaws(WithHead):
    @hookimpl
    def g_loss(self, step):
        self.head.requires_grad_(True)
        return self.terms(t=self.head(step.d["fake"].logits[:, None]).mean())


@breaks("gradients-stay", "names G as what it trains with, and no step changes it")
class TrainsWithTheOther(WithHead):
    trained_by = "g"


@breaks("gradients-stay", "its attribute 'scale' holds parameters that no optimiser trains")
class Loose(Term):
    @hookimpl
    def setup(self, run):
        self.scale = nn.Parameter(torch.ones((), dtype=run.dtype))

    def value(self, step, logits):
        return (self.scale * logits).square().mean()


@breaks("state", "after 2 more steps")
class Counts(Term):
    count = 0

    def value(self, step, logits):
        self.count += 1
        return logits.mean() * (1 + 0.1 * self.count)


@breaks("state", "the state_dict of 'forgets' differs")
class Forgets(Counts):
    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = 0


@breaks("concat-is-sequential", "differs by")
class CentresFeatures(Term):
    """A batch statistic over whatever D is called with."""

    @hookimpl
    def setup(self, run):
        first = next(m for m in run.discriminator.modules() if isinstance(m, nn.Conv2d))
        first.register_forward_hook(lambda module, inputs, output: output - output.mean(0))


@breaks("concat-is-sequential", "is torch.float32", also=("double-backward",))
class AlwaysNarrow(Term):
    def value(self, step, logits):
        return logits.float().square().mean()


@dataclass(frozen=True, kw_only=True)
class AtLeast(Options):
    weight: float = option(1.0, help="Never nothing.", minimum=0.1)


@breaks(
    "weight-zero", "weight = 0 is refused: atleastalittle.weight = 0.0: expected a value >= 0.1", options=AtLeast
)
class AtLeastALittle(Term):
    pass


@dataclass(frozen=True, kw_only=True)
class Floored(Options):
    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", self.weight or 1e-3)


@breaks("weight-zero", "tensors differ from a run without it", options=Floored, also=("options-round-trip",))
class NeverNothing(Term):
    pass


@breaks("own-random-stream", "its presence changes the initial 'd.")
class Initialises(Term):
    @hookimpl
    def setup(self, run):
        for parameter in run.discriminator.parameters():
            nn.init.normal_(parameter, 0, 0.05)


NOISE = StepKey[torch.Tensor]("noise")


@breaks("own-random-stream", "torch.randn draws from a generator of its own in its before_d_step")
class OwnGenerator(Term):
    @hookimpl
    def before_d_step(self, step):
        step.stash[NOISE] = torch.randn(step.batch, generator=torch.Generator().manual_seed(step.index))

    def value(self, step, logits):
        return (logits + step.stash[NOISE]).square().mean()


@breaks("own-random-stream", "its presence changes the latents of phase 'd'", also=("pure-functions-stay",))
class MovesLatents(Term):
    @hookimpl
    def before_d_step(self, step):
        step.latents.mul_(0.5)


@breaks("no-global-random", "the global generator of Python moves, in its d_loss")
class Rolls(Term):
    def value(self, step, logits):
        random.random()
        return logits.square().mean()


@breaks("no-global-random", "the run depends on global seeds")
class Peeks(Term):
    def value(self, step, logits):
        with torch.random.fork_rng(devices=[]):
            return logits.mean() * torch.rand(())


@breaks("no-global-random", "the global generator of numpy moves, in its declare, setup or augment")
class RollsInSetup(Term):
    @hookimpl
    def setup(self, run):
        import numpy

        numpy.random.random()


@breaks("double-backward", "the gradient of 'halfpenalty/t' with respect to D's parameters")
class HalfPenalty(Method):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", penalty=Penalty(view="real", leaf="real"))

    @hookimpl
    def d_loss(self, step):
        gradient = step.input_gradient("t")
        return self.terms(t=(gradient * gradient.detach()).sum())


class Link(Method):
    """A sound link."""

    sides = ("real", "fake")

    @hookimpl
    def augment(self, run):
        return self

    def draw(self, step, side, shape):
        return {"shift": step.rng(side).uniform(shape[0])}

    def transform(self, images, draw):
        return self.shifted(images, draw["shift"].to(images.dtype).reshape(-1, 1, 1, 1))

    def shifted(self, images, shift):
        return images * 0.9 + 0.1 * shift


@breaks("double-backward", "the gradient through its link, side 'real'")
class StraightThrough(Link):
    def shifted(self, images, shift):
        return images + (images.clamp(-0.5, 0.5) - images + shift).detach()


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        return images * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2


@breaks("double-backward", "its link, side 'real' cannot be differentiated twice")
class Once(Link):
    def shifted(self, images, shift):
        return OnceOnly.apply(images) + shift


@breaks("bf16", "is torch.bfloat16")
class AsDComputes(Term):
    """It computes in the type that D has inside."""

    kind = torch.float32

    @hookimpl
    def setup(self, run):
        def note(module, inputs, output):
            self.kind = output.dtype

        next(m for m in run.discriminator.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(note)

    def value(self, step, logits):
        return logits.to(self.kind).square().mean()


class Latest(Term):
    """The one that was made last does twice as much."""

    latest: list[str] = [""]

    def __init__(self, spec, options):
        super().__init__(spec, options)
        self.latest[0] = self.name

    def value(self, step, logits):
        return logits.square().mean() * (2 if self.latest[0] == self.name else 1)


class Friend(Latest):
    pass


@breaks("order", "with -p in reverse order", companions=(Friend,), also=("own-random-stream",))
class Rival(Latest):
    pass


@breaks("no-host-sync", ".__bool__() in its d_loss, phase 'd'")
class Branches(Term):
    def value(self, step, logits):
        return logits.mean() if logits.mean() > 0 else logits.mean() * 1.5


@breaks("no-host-sync", "indexing with a mask in its d_loss")
class Selects(Term):
    def value(self, step, logits):
        return (logits[logits > -1e9]).square().mean()


@breaks("no-host-sync", ".item() in its augmentation draw")
class ItemInADraw(Link):
    def draw(self, step, side, shape):
        drawn = Link.draw(self, step, side, shape)
        drawn["shift"][0].item()
        return drawn


@breaks("pure-functions-stay", "it changes the images of view 'real' in place, in its after_d_step")
class ClampsReals(Term):
    @hookimpl
    def declare(self, plan):
        Term.declare(self, plan)
        plan.watch("d", reads={"real": ("images",)})

    @hookimpl
    def after_d_step(self, step):
        step.images["real"].clamp_(-1, 1)


@breaks("pure-functions-stay", "has the shapes")
class DrawsSome(Term):
    @hookimpl
    def before_d_step(self, step):
        rng = step.rng()
        step.stash[NOISE] = rng.uniform(int(rng.numpy.integers(1, 9)))

    def value(self, step, logits):
        return logits.square().mean() * step.stash[NOISE].mean()


@breaks("pure-functions-stay", "has shape (1,)")
class OneForAll(Link):
    def draw(self, step, side, shape):
        return {"shift": step.rng(side).uniform(1)}


@breaks("pure-functions-stay", "its transform gives two results", also=("double-backward",))
class Remembers(Link):
    calls = 0

    def shifted(self, images, shift):
        self.calls += 1
        return images * 0.9 + 0.1 * shift * (self.calls % 2)


@breaks("pure-functions-stay", "KeyError: 'strength' (")
class OnlyInTraining(Link):
    """It raises where the kit calls it, outside of a step."""

    def shifted(self, images, shift):
        return images * 0.9 + (0.1 * shift if torch.is_grad_enabled() else {}["strength"])


@breaks("pure-functions-stay", "changes images in place in its augmentation", also=tuple(RULES))
class InPlaceLink(Link):
    def shifted(self, images, shift):
        return images.mul_(0.9)


CASES = [
    pytest.param(rule, *case, id=f"{rule}-{case[0].name}") for rule, cases in BROKEN.items() for case in cases
]


@pytest.mark.parametrize(("rule", "subject", "words", "also"), CASES)
def test_a_broken_plugin_fails_its_rule_by_name(
    rule: str, subject: Subject, words: str, also: frozenset[str]
) -> None:
    with pytest.raises(ContractViolation) as caught:
        check(rule, subject)
    assert caught.value.rule == rule
    assert str(caught.value).startswith(f"plugin '{subject.name}' breaks the rule '{rule}'")
    assert words in str(caught.value)
    assert {"  found:    ", "  expected: ", "  to fix:   "} <= {
        line[:12] for line in str(caught.value).splitlines()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "subject", "words", "also"), CASES)
def test_it_fails_no_other_rule(rule: str, subject: Subject, words: str, also: frozenset[str]) -> None:
    wrong = {}
    for other in set(RULES) - {rule} - also:
        try:
            check(other, subject)
        except ContractViolation as violation:
            wrong[other] = str(violation)
    assert wrong == {}


def test_every_rule_is_broken_by_someone() -> None:
    assert set(BROKEN) | {"card"} == set(RULES)


# Distributions, made as an installer leaves them.

CARD = """# Fine
![what it does](picture.png)
## How to use
## Options
| key | meaning |
|---|---|
| `weight` | the weight |
| `sigma` | a number |
## Deviations
## Mixing
## Cost
## Reference
"""

PACKAGE = """
from dataclasses import dataclass
from gancore.api import MethodSpec, Options, hookimpl, option

@dataclass(frozen=True, kw_only=True)
class FineOptions(Options):
    sigma: float = option(0.5, help="A number.")

@hookimpl
def register_methods(register):
    for name in ("fine", "also-fine"):
        register(MethodSpec(name=name, summary="Fine.", target="gancore_fine.method:Fine", options=FineOptions))
"""

METHOD = """
from gancore.api import Method, hookimpl

class Fine(Method):
    @hookimpl
    def declare(self, plan):
        plan.term("t", "d", reads={"real": ("logits",)})

    @hookimpl
    def d_loss(self, step):
        return self.terms(t=(step.d["real"].logits * self.options.sigma).square().mean())
"""


def distribution(folder: Path, *, package: str = PACKAGE, card: str = CARD, entry: str = "gancore_fine") -> Path:
    """A folder for sys.path with an installed distribution in it."""
    (folder / "gancore_fine").mkdir(parents=True)
    (folder / "gancore_fine" / "__init__.py").write_text(package)
    (folder / "gancore_fine" / "method.py").write_text(METHOD)
    info = folder / "gancore_fine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gancore-fine\nVersion: 1.0\n\n{card}")
    (info / "entry_points.txt").write_text(f"[gancore.plugins]\nfine = {entry}\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make such a distribution importable for one test."""

    def install(**parts: str) -> None:
        monkeypatch.syspath_prepend(distribution(tmp_path, **parts))

    yield install
    for name in [name for name in sys.modules if name.split(".")[0] == "gancore_fine"]:
        del sys.modules[name]


def test_a_distribution_keeps_the_rules_about_what_is_installed(installed: Any) -> None:
    installed()
    for rule in ("entry-point", "card", "options-round-trip"):
        assert check(rule, Subject("also-fine")) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("![what it does](picture.png)", "shows no picture"),
        ("## Deviations", "no section 'deviations'"),
        ("| `sigma` | a number |", "does not name `sigma`"),
        ("## Reference", "names no source"),
        (CARD, "finds no README in 'gancore-fine'"),
    ],
)
def test_a_card_without_one_of_its_parts(installed: Any, line: str, words: str) -> None:
    installed(card=CARD.replace(line, ""))
    with pytest.raises(ContractViolation, match="plugin 'fine' breaks the rule 'card'") as caught:
        check("card", Subject("fine"))
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_package_that_imports_torch(installed: Any) -> None:
    installed(package=f"{PACKAGE}\nimport torch\n")
    with pytest.raises(ContractViolation, match="loading the entry point imports torch, at .*__init__.py:14"):
        check("entry-point", Subject("fine"))


def test_a_spec_for_another_version_of_the_hooks_and_a_target_that_is_none(installed: Any) -> None:
    installed(package=PACKAGE.replace('summary="Fine."', 'summary="Fine.", api=(2, 0)'))
    with pytest.raises(ContractViolation, match="'entry-point'(.|\n)*was written for hook API 2.0"):
        check("entry-point", Subject("fine"))


def test_a_target_that_is_no_method(installed: Any) -> None:
    installed(package=PACKAGE.replace("method:Fine", "method:hookimpl"))
    with pytest.raises(ContractViolation, match="the target 'gancore_fine.method:hookimpl' is"):
        check("entry-point", Subject("fine"))


@pytest.mark.slow
def test_in_pytest_a_broken_distribution_fails_by_name_without_a_traceback(tmp_path: Path) -> None:
    folder, site = tmp_path / "work", tmp_path / "site"
    folder.mkdir()
    distribution(site, package=f"{PACKAGE}\nimport torch\n", card="")
    done = pytest_in(folder, "--gan-plugin", "gancore-fine", path=site)
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == [f"{name}::{rule}" for name in ("also-fine", "fine") for rule in ("entry-point", "card")]
    assert "plugin 'fine' breaks the rule 'entry-point'" in done.stdout
    assert "Traceback" not in done.stdout
    assert "gancore/testing/contract.py" not in done.stdout


@pytest.mark.slow
def test_in_pytest_a_plugin_that_cannot_be_loaded_fails_its_entry_point(tmp_path: Path) -> None:
    folder, site = tmp_path / "work", tmp_path / "site"
    folder.mkdir()
    distribution(site, entry="gancore_fine:nothing_there")
    done = pytest_in(folder, "--gan-plugin", "fine", path=site)
    assert done.returncode == 1, done.stdout
    assert "FAILED fine::entry-point" in done.stdout
    assert "plugin 'fine' is installed but broken: AttributeError" in done.stdout
