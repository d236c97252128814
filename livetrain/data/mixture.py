"""Weighted mixing: which sample of which component (class, attack type, domain) is at a given position of the run.

The stream is divided into blocks of `BLOCK` positions. In every block each component has a quota, the number of
positions that corresponds to its weight, in an order drawn for each block by a keyed permutation. The k-th clip of a
component in the whole stream is `permute(k % n, epoch = k // n)` of its n samples: each component iterates over its own
samples, each exactly once before any repeats, at its own rate. All of this is arithmetic on the position, O(1) memory:
there are no counters, and step 100,000 is planned as quickly as step 0.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.data.permutation import permute, permute_each

BLOCK = 2520  # divisible by 1 to 10: weights such as 1:2 or 0.3:0.7 are met exactly
STREAM_ORDER = 2**31  # of the permutations within blocks; sources have 1, 2, …


@dataclass(frozen=True)
class Mixture:
    """The components of a split and their shares.

    Component i has the samples first[i] … first[i] + count[i] - 1 of it, and quota[i] of each BLOCK positions; int64
    [num_components]. order: int32 [n], the samples in the order of their components; None: as they are.
    """

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    quota: NDArray[np.int64]
    order: NDArray[np.int32] | None = None

    def at(self, positions: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs of the source, samples) at `positions` of the stream, int64 [n] each."""
        ends = np.cumsum(self.quota)
        blocks, offsets = np.divmod(positions, BLOCK)
        slots = np.empty(len(positions), np.int64)
        for block in np.unique(blocks):
            here = blocks == block
            slots[here] = _order(seed, int(block))[offsets[here]]
        source = np.searchsorted(ends, slots, side="right")
        number = blocks * self.quota[source] + slots - (ends - self.quota)[source]
        epochs, offsets = np.divmod(number, self.count[source])
        samples = self.first[source] + permute_each(offsets, self.count[source], seed, epochs, source + 1)
        return epochs, samples if self.order is None else self.order[samples].astype(np.int64)


@functools.lru_cache(maxsize=8)  # a block is many batches long
def _order(seed: int, block: int) -> NDArray[np.int64]:
    """The order of a block's positions, int64 [BLOCK]."""
    return permute(np.arange(BLOCK), BLOCK, seed, block, STREAM_ORDER)


def mixture_of(rows: NDArray[np.integer], first_rows: Sequence[int], weights: Sequence[float]) -> Mixture:
    """The mixture of a split's `rows` (ascending), where source i begins at row first_rows[i] and has weights[i].

    A source without a sample in the split (all of its domains are left out) takes no part. Raises UserError for weights
    that are not shares.
    """
    first = np.searchsorted(rows, first_rows).astype(np.int64)
    count = np.diff([*first, len(rows)])
    shares = np.where(count > 0, np.asarray(weights, np.float64), 0.0)
    if not (np.isfinite(shares).all() and (np.asarray(weights) > 0).all()):
        raise UserError(f"data.weights={list(weights)}: every weight must be a number above 0")
    quota = _quotas(shares)
    if (quota[count > 0] == 0).any():
        raise UserError(f"data.weights={list(weights)}: a weight is below 1/{BLOCK} of their sum; leave the source out")
    used = count > 0
    return Mixture(first[used], count[used], quota[used])


def balanced(groups: NDArray[np.integer], parents: NDArray[np.integer], strength: float) -> Mixture:
    """The mixture that lets groups of samples come equally often, within each parent, and the parents too.

    groups: int [n], the group of each sample. parents: int [num_groups], what each group is a part of (its class; all
    zeros for no such thing). strength: 1 for equal shares, 0 for those that the groups have, in between for shares in
    proportion to n^(1 - strength). Raises UserError for a group that would have less than 1/BLOCK of the stream.
    """
    count = np.bincount(groups, minlength=len(parents)).astype(np.int64)
    within = np.where(count > 0, count.astype(np.float64) ** (1 - strength), 0.0)
    total = np.bincount(parents, within)[parents]
    whole = np.bincount(parents, count).astype(np.float64)
    between = np.where(whole > 0, whole ** (1 - strength), 0.0)[parents]
    quota = _quotas(np.divide(within * between, total, out=np.zeros_like(within), where=total > 0))
    used = count > 0
    if (quota[used] == 0).any():
        raise UserError(
            f"data.balance: a group would have less than 1/{BLOCK} of the clips; raise data.balance_strength"
        )
    order = np.argsort(groups, kind="stable").astype(np.int32)
    first = np.cumsum(count) - count
    return Mixture(first[used], count[used], quota[used], order)


def _quotas(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of a block for each share, int64, their sum BLOCK: the largest remainders get what is left."""
    parts = shares / shares.sum() * BLOCK
    quota = np.floor(parts + 1e-9).astype(np.int64)
    quota[np.argsort(-(parts - quota), kind="stable")[: BLOCK - int(quota.sum())]] += 1
    return quota
