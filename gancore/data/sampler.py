"""Which image a stream reads at which position: pure functions, so that resuming needs no state."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _key(*parts: object) -> int:
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, stream: str, epoch: int, size: int) -> np.ndarray:
    order = np.random.Generator(np.random.PCG64(_key("order", seed, stream, epoch))).permutation(size)
    order.flags.writeable = False
    return order


def indices(seed: int, stream: str, start: int, count: int, size: int) -> np.ndarray:
    """Positions ``start .. start + count`` of an endless shuffled order of ``size`` elements, int64 (count,).

    Position p is element p % size of a permutation that depends on (seed, stream, p // size) alone.
    """
    if size < 1 or start < 0 or count < 0:
        raise ValueError(f"expected size >= 1, start >= 0, count >= 0; found {size}, {start}, {count}")
    drawn = np.empty(count, dtype=np.int64)
    done = 0
    while done < count:
        epoch, offset = divmod(start + done, size)
        part = _permutation(seed, stream, epoch, size)[offset : offset + count - done]
        drawn[done : done + len(part)] = part
        done += len(part)
    return drawn


def flips(seed: int, stream: str, start: int, count: int) -> np.ndarray:
    """Whether to mirror at positions ``start .. start + count``, bool (count,), each with probability 1/2."""
    key = np.uint64(_key("flip", seed, stream) & 0xFFFFFFFFFFFFFFFF)
    bits = np.arange(start, start + count, dtype=np.uint64) * _GOLDEN + key  # splitmix64
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return (bits >> np.uint64(63)).astype(bool)
