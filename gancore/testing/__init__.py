"""What tests of gancore and of its plugins are written with: tiny sessions, snapshots, comparisons.

Importing it imports neither torch nor the rest of gancore: pytest loads the module ``pytest_plugin`` of this
package in every folder that it runs in.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from gancore.assembly import Session
    from gancore.data.dataset import Dataset
    from gancore.data.options import DataOptions
    from gancore.ops.library import Device, OpLibrary
    from gancore.plugin_manager import Registry
    from gancore.specs import MethodSpec

TINY_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "dcgan": {"network.g_width": 4, "network.d_width": 4, "network.latent_dim": 8},
    "sngan": {"network.g_width": 8, "network.d_width": 8, "network.latent_dim": 8},
    "mlp": {"network.width": 16, "network.latent_dim": 4},
}
"""Options that make each included network small."""


def registry_with(*specs: MethodSpec) -> Registry:
    """Everything that is installed, and methods that a test defines (an installed one is there already)."""
    from gancore.hookspecs import hookimpl
    from gancore.plugin_manager import Origin, discover

    class Plugin:
        @hookimpl
        def register_methods(self, register: Any) -> None:
            for spec in specs:
                register(spec)

    registry = discover()
    registry.register(Plugin(), Origin("test", "0"))
    return registry


def skip_without(methods: Iterable[str], registry: Registry | None = None) -> None:
    """Skip the test where one of these methods is not installed: a plugin's tests pass with the plugin alone.

    Args:
        registry: with methods that the test defines; by default what is installed.
    """
    import pytest

    missing = sorted(set(methods) - set((registry or _installed(tuple(sys.path))).methods))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def build_ops(library: OpLibrary, device: Device = "cpu") -> None:
    """Build a library of fused operations, unless it is built; the test is skipped where no compiler is.

    Then run what is to be tested under ``gancore.ops.using("require")``.
    """
    import pytest

    from gancore.ops import build, runtime

    try:
        build.toolchain(device)
    except build.BuildError as error:
        pytest.skip(str(error))
    build.build(library, device)
    runtime.look_again(library, device)


def tiny_config(plugins: Iterable[str] = (), overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Dotted keys of a run that takes milliseconds a step: a tenth of digits at 16 px, or gaussians; batch 8,
    float32.

    Args:
        overrides: dotted keys; ``network.name`` chooses the networks and with them the data.
    """
    from gancore.config import flatten

    given = flatten(overrides or {})
    network = given.get("network.name", "dcgan")
    return {
        "plugins": list(plugins),
        "network.name": network,
        **({"data.source": "gaussians"} if network == "mlp" else {"data.source": "digits", "data.fraction": 0.1}),
        "train.batch": 8,
        "train.steps": 4,
        "train.n_critic": 1,
        "output.grid": 4,
        "compute.precision": "float32",
        **TINY_NETWORKS.get(network, {}),
        **given,
    }


def tiny_session(
    plugins: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> Session:
    """An assembled session of :func:`tiny_config`. Built-in sets are decoded once a process."""
    from gancore.assembly import assemble
    from gancore.config import resolve

    registry = registry or _installed(tuple(sys.path))
    config = resolve(registry, [("test", tiny_config(plugins, overrides))])
    return assemble(config, registry, dataset=open_once(config.data))


@functools.cache
def _installed(path: tuple[str, ...]) -> Registry:
    """What is installed on ``path``: looking for it takes longer than a step."""
    from gancore.plugin_manager import discover

    return discover()


def open_once(options: DataOptions) -> Dataset:
    """A data set; one that comes with gancore is decoded once a process, and nobody writes to it."""
    from gancore.data import open_dataset
    from gancore.data.options import BUILT_IN

    return _open_once(options) if options.source in BUILT_IN else open_dataset(options)


@functools.cache
def _open_once(options: DataOptions) -> Dataset:
    from gancore.data import open_dataset

    return open_dataset(options)


def run_steps(session: Session, count: int) -> Session:
    """Train a session for some steps and return it."""
    for _ in range(count):
        session.trainer.train_step()
    return session


def tensors_of(session: Session) -> dict[str, Tensor]:
    """Every tensor that a checkpoint would hold, copied."""
    from gancore.training import state

    return {name: tensor.detach().clone() for name, tensor in state(session)[0].items()}


def training_tensors(session: Session) -> dict[str, Tensor]:
    """The same without what methods and telemetry keep: networks, averages, moments of the networks."""
    return {
        name: tensor
        for name, tensor in tensors_of(session).items()
        if "methods." not in name and name != "telemetry.sums"
    }


def different(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Names that are missing on one side or whose tensors differ in a single bit."""
    import torch

    names = sorted(set(first) | set(second))
    return [
        name
        for name in names
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]


def largest_relative_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The largest difference of two sets of tensors, each relative to the largest element of its tensor."""
    worst = 0.0
    for name in sorted(set(first) | set(second)):
        a, b = first[name].double(), second[name].double()
        scale = max(float(a.abs().max()), 1e-30) if a.numel() else 1.0
        worst = max(worst, float((a - b).abs().max()) / scale if a.numel() else 0.0)
    return worst
