"""Random draws keyed by (seed, rank, step, critic, phase, method): no state to save, no method moves another's.

A run resumed at step k draws what an unbroken run draws at step k, and adding a method leaves the draws of all
others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from gancore.data.transfer import to_device


def key_to_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key``."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Rng:
    """The random numbers of one method in one phase of one step.

    Scalars come from ``numpy``, tensors from ``torch`` on the run's device. All methods return new tensors of
    a shape that does not depend on the values drawn.
    """

    def __init__(self, *key: int | str, device: torch.device | str = "cpu") -> None:
        self._seed = key_to_seed(*key)
        self.device = torch.device(device)
        self._numpy: np.random.Generator | None = None
        self._torch: torch.Generator | None = None

    @property
    def numpy(self) -> np.random.Generator:
        """Generator for scalars and for distributions that torch draws without a generator."""
        if self._numpy is None:
            self._numpy = np.random.default_rng(self._seed)
        return self._numpy

    @property
    def torch(self) -> torch.Generator:
        """Generator for tensors, on the run's device."""
        if self._torch is None:
            self._torch = torch.Generator(self.device).manual_seed(self._seed)
        return self._torch

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1) in float32."""
        return torch.randn(shape, generator=self.torch, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """U[0, 1) in float32."""
        return torch.rand(shape, generator=self.torch, device=self.device)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high), int64."""
        return torch.randint(low, high, shape, generator=self.torch, device=self.device)

    def permutation(self, count: int) -> Tensor:
        """A random order of 0 … count-1, int64."""
        return torch.randperm(count, generator=self.torch, device=self.device)

    def beta(self, a: float, b: float, *shape: int) -> Tensor:
        """Beta(a, b) in float32 (from numpy: torch's Beta takes no generator)."""
        drawn = np.asarray(self.numpy.beta(a, b, size=shape or None), dtype=np.float32)
        return to_device(drawn, self.device)
