"""A keyed permutation of 0 … n-1 in O(1) memory: a Feistel network over the next power of four, cycle-walked to n.

`permute(positions, n, seed, epoch)` answers "which sample stands at this position of this epoch" without a list of the
samples, so it costs the same for a thousand clips and for a billion, and any process may ask for any position.

Feistel networks are bijections for any round function (Luby and Rackoff, 1988); cycle walking keeps them one on a
domain that is not a power of two (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The round function
is the finaliser of MurmurHash3, which mixes well and is not meant to be secret.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_ROUNDS = 8


def permute(positions: NDArray[np.integer], n: int, seed: int, epoch: int, stream: int = 0) -> NDArray[np.int64]:
    """Sample ids at `positions` (any shape, each in [0, n)) of the permutation keyed by (seed, epoch, stream).

    Returns int64 of the same shape. Raises ValueError when a position is outside [0, n).
    """
    values = np.atleast_1d(np.asarray(positions)).astype(np.uint64)
    if values.size and int(values.max()) >= n:
        raise ValueError(f"position {int(values.max())} is outside a permutation of {n} items")
    half_bits = np.uint64(_half_bits(n))
    keys = _round_keys(seed, epoch, stream)
    values = _encrypt(values, half_bits, keys)
    while (outside := values >= n).any():  # at most 4 times as many points as items: under four rounds on average
        values[outside] = _encrypt(values[outside], half_bits, keys)
    return values.astype(np.int64).reshape(np.shape(positions))


def permute_each(
    positions: NDArray[np.int64],
    sizes: NDArray[np.int64],
    seed: int,
    epochs: NDArray[np.int64],
    streams: NDArray[np.int64],
) -> NDArray[np.int64]:
    """`permute` of each position within a permutation of its own: int64 [n] all, one size for each (epoch, stream).

    For few of a few permutations at once, which one at a time would cost as much as many of each.
    """
    values, n = positions.astype(np.uint64), sizes.astype(np.uint64)
    _, examples, which = np.unique(streams * 2**32 + epochs, return_index=True, return_inverse=True)
    different = [_round_keys(seed, int(epochs[i]), int(streams[i])) for i in examples]
    keys = np.stack(different, axis=1)[:, which]
    half_bits = np.array([_half_bits(int(sizes[i])) for i in examples], np.uint64)[which]
    values = _encrypt(values, half_bits, keys)
    while (outside := values >= n).any():
        values[outside] = _encrypt(values[outside], half_bits[outside], keys[:, outside])
    return values.astype(np.int64)


def _half_bits(n: int) -> int:
    return max(1, ((n - 1).bit_length() + 1) // 2)


def _round_keys(seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    entropy = np.random.SeedSequence([seed, epoch, stream] if stream else [seed, epoch])
    return np.asarray(entropy.generate_state(NUM_ROUNDS, np.uint64), np.uint64)


def _encrypt(
    values: NDArray[np.uint64], shift: np.uint64 | NDArray[np.uint64], keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """values: [n]. shift: half of the bits, of all or [n]. keys: [NUM_ROUNDS], or [NUM_ROUNDS, n]."""
    mask = (np.uint64(1) << shift) - np.uint64(1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """MurmurHash3's 64-bit finaliser (multiplication wraps modulo 2**64)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
