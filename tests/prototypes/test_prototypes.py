"""The five prototypes alone and mixed: they run, gradients stay inside, results depend on nothing accidental."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

import gancore.run
from gancore.api import PluginError
from gancore.randomness import Rng
from prototypes import ada, cnlsgan, kdd, pixelops
from prototypes.support import KDD_FULL, KDD_TERM, Lab, differing, final_tensors

ALONE = {
    "ada": {},
    "cnlsgan": {},
    "kdd": KDD_FULL,
    "augself": {},
    "icr": {},
}

MIXES = {
    "ada r1": {},
    "ada adaptivemix": {},
    "augself hinge": {},
    "icr ada": {},
    "kdd adaptivemix": KDD_FULL,
    "kdd hinge ada": KDD_TERM,
    "cnlsgan adaptivemix": {},
    "icr cnlsgan": {},
    "augself icr r1": {},
    "ada icr adaptivemix": {},
    "kdd ada": KDD_FULL,
}


def cases(table):
    return [pytest.param(plugins, options, id=plugins.replace(" ", "+")) for plugins, options in table.items()]


@pytest.mark.parametrize(("plugins", "options"), cases(ALONE | MIXES))
def test_trains_with_finite_terms(lab: Lab, plugins, options):
    row = lab.train(plugins, **options).metrics[-1]
    methods = {key.split("/")[0] for key in row if "/" in key}
    assert methods >= set(plugins.split())
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


@pytest.mark.parametrize(("plugins", "options"), cases(ALONE | MIXES))
@pytest.mark.parametrize("network", ["d", "g"])
def test_a_phase_leaves_gradients_in_its_own_network_alone(lab: Lab, plugins, options, network):
    trainer = lab.assemble(plugins, **options).trainer
    named = {name: trainer._named(name) for name in ("d", "g")}
    trainer.optimizers[network].step = lambda interval: None
    trainer.update(network, 0)
    other = {"d": "g", "g": "d"}[network]
    assert [name for name, p in named[other].items() if p.grad is not None] == []
    reached = {n: p for n, p in named[network].items() if n not in trainer.unreached[network]}
    assert reached
    silent = [name for name, p in reached.items() if not p.grad.abs().sum() > 0]
    assert [name for name in silent if name != "logit.linear.bias"] == []  # in a hinge its parts cancel
    heads = [name for name in reached if name.startswith("methods.augself")]
    assert bool(heads) == (network == "d" and "augself" in plugins)


@pytest.mark.parametrize(
    ("plugins", "parts"),
    [
        ("kdd cnlsgan", ("objective", "'cnlsgan' and 'kdd'", "kdd.as_term = true")),
        ("cnlsgan gp", ("penalty:interpolated", "'cnlsgan' and 'gp'", "cnlsgan.lam_gp = 0", "drop -p gp")),
        ("ada wgan", ("'ada' needs margin", "ada.target = 0")),
        ("icr kdd", ("'icr' needs scalar-logit",)),
        ("ada augself", ("'augself' and 'ada' cannot be mixed", "drop one")),
    ],
)
def test_what_cannot_be_mixed_names_both_and_a_way_out(lab: Lab, plugins, parts):
    with pytest.raises(PluginError) as caught:
        lab.train(plugins)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("plugins", "options"),
    cases(
        {
            "ada r1 icr": {},
            "kdd hinge ada": KDD_TERM,
            "augself icr r1": {},
            "icr cnlsgan adaptivemix": {},
            "kdd adaptivemix": KDD_FULL,
        }
    ),
)
def test_concatenated_is_one_by_one(lab: Lab, plugins, options):
    exact = {**options, "compute.precision": "float64"}
    together = final_tensors(lab.train(plugins, **exact))
    apart = final_tensors(lab.train(plugins, **exact, **{"compute.execution": "sequential"}))
    assert together.keys() == apart.keys()
    bad = {
        name: float((value - apart[name]).abs().max())
        for name, value in together.items()
        if not name.startswith("telemetry")
        and float((value - apart[name]).double().norm()) > 1e-10 * float(value.double().norm())
    }
    assert bad == {}


@pytest.mark.parametrize(
    ("plugins", "options"),
    cases({"icr cnlsgan adaptivemix": {}, "augself icr r1": {}, "kdd hinge ada": KDD_TERM}),
)
def test_the_order_of_plugins_does_not_matter(lab: Lab, plugins, options):
    first = final_tensors(lab.train(plugins, **options))
    second = final_tensors(lab.train(" ".join(reversed(plugins.split())), **options))
    del first["telemetry.sums"], second["telemetry.sums"]
    assert differing(first, second) == []


@pytest.mark.parametrize("options", [{}, {"train.lazy": "separate", "train.n_critic": 2, "r1.every": 2}])
def test_resume_in_the_middle_is_an_unbroken_run(lab: Lab, options):
    run = lab.train("ada icr r1", **{"train.steps": 4, **options})
    whole = final_tensors(run)
    copy = lab.folder / "copy"
    shutil.copytree(run.path, copy)
    for suffix in ("json", "safetensors"):
        (copy / "checkpoints" / f"step-00000004.{suffix}").unlink()
    resumed = gancore.run.resume(copy, registry=lab.registry)
    assert resumed.step == 4
    assert differing(whole, final_tensors(resumed)) == []
    assert [row["ada/p"] for row in resumed.metrics] == [row["ada/p"] for row in run.metrics]
    assert run.metrics[-1]["ada/p"] != 0.5


def test_a_fixed_strength_of_zero_is_absence(lab: Lab):
    with_ada = final_tensors(lab.train("r1 ada", **{"ada.p": 0.0, "ada.target": 0.0}))
    without = final_tensors(lab.train("r1"))
    assert differing({k: v for k, v in with_ada.items() if not k.startswith("methods.")}, without) == []


def draw_of(p: float, batch: int = 4):
    class Step:
        device = torch.device("cpu")

        def rng(self, stream):
            return Rng("test", stream)

    link = ada.Link(ada.Pipe(p).double())
    return link, link.draw(Step(), "real", (batch, 1, 4, 4))


def test_ada_differentiates_twice():
    link, draw = draw_of(1.0)
    images = torch.randn(4, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: link.transform(x, draw).square(), images)
    assert not torch.equal(link.transform(images, draw), images)
    link, draw = draw_of(0.0)
    assert torch.equal(link.transform(images, draw), images)


def test_ada_controller_moves_by_signs_and_ignores_nan():
    pipe = ada.Pipe(0.5)
    for value in (1.0, 1.0):
        pipe.adjust(torch.tensor([value] * 4), target=0.6, every=2, speed=0.1, p_max=1.0)
    assert pipe.p.item() == pytest.approx(0.6)
    assert pipe.updates.item() == 0
    for value in (-1.0, math.nan):
        pipe.adjust(torch.tensor([value] * 4), target=0.6, every=2, speed=0.1, p_max=1.0)
    assert pipe.p.item() == pytest.approx(0.5)


def test_diffaugment_differentiates_twice():
    draw = pixelops.draw_diffaugment(Rng("test"), 3, (3, 4, 4))
    images = torch.randn(3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: pixelops.diffaugment(x, draw).square(), images)


def test_kdd_log_ratio_is_the_double_loop():
    rng = Rng("test")
    anchors = {s: torch.nn.functional.normalize(rng.normal(5, 3).double(), dim=1) for s in ("real", "fake")}
    points, tau = anchors["real"][:2], 0.7
    for i, found in enumerate(kdd.log_ratio(points, "real", anchors, tau)):
        own = [math.exp(float(a @ points[i]) / tau) for j, a in enumerate(anchors["real"]) if j != i]
        other = [math.exp(float(a @ points[i]) / tau) for a in anchors["fake"]]
        expected = math.log(sum(own) / len(own)) - math.log(sum(other) / len(other))
        assert float(found) == pytest.approx(expected)


def test_cnlsgan_reconstruction_weight_decays(lab: Lab):
    rows = lab.train("cnlsgan", **{"train.steps": 4}).metrics
    ratios = [row["cnlsgan/rec.g.weighted"] / row["cnlsgan/rec.g"] for row in rows]
    assert ratios == pytest.approx([0.1, 0.075, 0.05, 0.025], rel=1e-5)
    assert cnlsgan.SPEC.name == "cnlsgan"
