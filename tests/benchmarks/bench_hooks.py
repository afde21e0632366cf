"""What the hook machinery costs: a run with no method against a hand-written loop over the same networks.

Both sides: DCGAN at 32 px, batch 64, float32, contiguous, non-saturating loss, fused Adam, averaged G, D frozen
in G's step, reals and fakes in one forward pass, one power iteration a phase, data from memory; nothing is logged
to disk or saved. Target: within 1 % on ``dcgan``. On ``mlp`` the same comparison gives microseconds a step.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timing import machine, paired

from gancore.assembly import Session, assemble
from gancore.config import resolve
from gancore.data.dataset import MemoryDataset
from gancore.networks.ema import ExponentialAverage, beta_for
from gancore.networks.spectral import power_iterate, spectral_norms
from gancore.plugin_manager import discover

PLAIN = {"compute.precision": "float32", "compute.memory_format": "contiguous"}


def build(values: dict[str, Any]) -> Session:
    """A session over random images of 32 px, or what ``data.source`` names; ``values`` are configuration keys."""
    registry = discover()
    config = resolve(registry, [("benchmark", {"train.batch": 64, "train.steps": 10**6, **values})])
    if "data.source" in values:
        return assemble(config, registry)
    images = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32), dtype=np.uint8)
    return assemble(config, registry, dataset=MemoryDataset(images, name="noise"))


class Loop:
    """The hand-written loop."""

    def __init__(self, session: Session) -> None:
        trainer, config = session.trainer, session.config
        self.g, self.d = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
        self.norms = spectral_norms(self.d)
        self.average = ExponentialAverage(self.g)
        self.adam = {
            name: torch.optim.Adam(
                network.parameters(),
                lr=config.optimizers[name].lr,
                betas=config.optimizers[name].betas,
                fused=True,
            )
            for name, network in (("g", self.g), ("d", self.d))
        }
        self.data = torch.from_numpy(session.dataset.read(np.arange(len(session.dataset))))
        self.batch = config.train.batch
        self.rng = np.random.default_rng(0)
        self.seen = 0

    def step(self) -> None:
        """One update of D, one of G."""
        self.d_update()
        self.g_update()

    def d_update(self) -> None:
        chosen = self.rng.integers(0, len(self.data), self.batch)
        reals = self.data[torch.from_numpy(chosen)]
        if reals.dtype == torch.uint8:
            reals = reals.float().mul_(1 / 127.5).sub_(1)
        power_iterate(self.norms)
        with torch.no_grad():
            fakes = self.g(torch.randn(self.batch, self.g.latent_dim))
        real, fake = self.d(torch.cat([reals, fakes])).chunk(2)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        self.adam["d"].zero_grad()
        loss.backward()
        self.adam["d"].step()

    def g_update(self) -> None:
        self.d.requires_grad_(False)
        power_iterate(self.norms)
        loss = F.softplus(-self.d(self.g(torch.randn(self.batch, self.g.latent_dim)))).mean()
        self.adam["g"].zero_grad()
        loss.backward()
        self.adam["g"].step()
        self.d.requires_grad_(True)
        self.seen += self.batch
        self.average.update(self.g, beta_for(self.batch, self.seen, 10.0, 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--mlp-rounds", type=int, default=600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    session = build({"network.name": "dcgan", **PLAIN})
    loop = Loop(session)
    result = paired(session.trainer.train_step, loop.step, rounds=arguments.rounds)
    print(f"dcgan, 32 px, batch 64, a step: {result.text()}")
    session = build({"network.name": "mlp", "data.source": "gaussians"})
    loop = Loop(session)
    result = paired(session.trainer.train_step, loop.step, rounds=arguments.mlp_rounds, warm_up=30)
    extra = [(a - b) * 1e6 for a, b in zip(result.ours, result.baseline, strict=True)]
    low, high = np.percentile(extra, [25, 75])
    print(f"mlp, batch 64, a step: {result.text(1e6, 'us')}")
    print(f"mlp: the machinery adds {statistics.median(extra):.0f} us a step (quartiles {low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()
