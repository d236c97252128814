"""Random numbers that are a function of their address: Philox4x64-10, for many addresses at once.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The numbers are those of `numpy.random.Philox`
with the same key and counter (the tests compare them); NumPy makes a generator an address, which took longer than all
the rest of planning a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_ROUNDS = 10
WORDS = 4  # of 64 bits in a block

MULTIPLIERS = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
KEY_STEPS = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)

_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def uniforms(
    seed: int, epochs: NDArray[np.int64], rows: NDArray[np.integer], counts: Sequence[tuple[int, int]]
) -> list[NDArray[np.float64]]:
    """Uniform numbers in [0, 1) for each (stream, count) of `counts`, float64 [n, count].

    They depend on (seed, epoch, row, stream) alone. epochs, rows: int [n], not negative.
    """
    # The lowest counter word counts blocks (from 1: NumPy steps before it draws); the others address the sample.
    blocks = [(number, stream) for stream, count in counts for number in range(1, -(-count // WORDS) + 1)]
    number, stream = np.array(blocks, np.uint64).reshape(-1, 2).T
    shape = (len(rows), len(blocks))
    counter = np.zeros((WORDS, *shape), np.uint64)
    counter[0], counter[1], counter[2] = number, stream, np.asarray(rows).astype(np.uint64)[:, None]
    key = np.empty((2, *shape), np.uint64)
    key[0], key[1] = seed, epochs.astype(np.uint64)[:, None]
    words = philox(counter.reshape(WORDS, -1), key.reshape(2, -1))
    values = np.multiply(
        words >> np.uint64(11), 2.0**-53, dtype=np.float64
    )  # as numpy.random.Generator.random makes a double
    values = values.reshape(WORDS, *shape).transpose(1, 2, 0)
    out, first = [], 0
    for _, count in counts:
        last = first + -(-count // WORDS)
        out.append(values[:, first:last].reshape(len(rows), -1)[:, :count])
        first = last
    return out


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Blocks of random words. counter: uint64 [4, n], lowest word first. key: uint64 [2, n]. Returns uint64 [4, n]."""
    even, odd = counter[0::2], counter[1::2]  # words 0 and 2, words 1 and 3
    for number in range(NUM_ROUNDS):
        if number:
            key = key + KEY_STEPS
        high = _high_product(even)
        low = even * MULTIPLIERS
        even = high[::-1] ^ odd ^ key
        odd = low[::-1]
    return np.stack([even[0], odd[0], even[1], odd[1]])


def _high_product(a: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Upper 64 bits of a x MULTIPLIERS, from products of halves."""
    a_low, a_high = a & _LOW, a >> _32
    m_low, m_high = MULTIPLIERS & _LOW, MULTIPLIERS >> _32
    middle = a_high * m_low + (a_low * m_low >> _32)
    return a_high * m_high + (middle >> _32) + ((middle & _LOW) + a_low * m_high >> _32)
