"""data.order=windows: clips in the order of their shards, shuffled within windows of a few shards.

In global order the next clip is in any shard, so a node whose cache holds a twentieth of the data downloads a whole
shard for nearly every clip. Here an epoch goes through its shards once, in an order of its own; a window of
`data.window_shards` of them at a time is shuffled, and the node needs those shards alone.

    epoch     ─▶ the shards in the order permute(…, epoch), their samples one after the other: places 0 … N-1
    lanes     ─▶ slot s of each global batch belongs to lane s // (global_batch / lanes); each lane has a run of places
    windows   ─▶ a lane's run is cut into windows of about window_shards shards; places are permuted within each

With a lane a node (data.window_lanes), a node downloads its own runs and no others. All of this is arithmetic on the
position, as in plan.py: every sample once an epoch, the same for any number of processes, step 100,000 at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from livetrain.data.permutation import permute, permute_each

if TYPE_CHECKING:
    from livetrain.data.dataset import Dataset

MAX_AHEAD = 512  # micro-batches that are planned ahead of need


@dataclass(frozen=True, eq=False)
class ShardOrder:
    """first: int64 [num_shards + 1]; shard i has the samples first[i] … first[i + 1] - 1, at least one.

    window: places of a window, about. lanes: they divide `batch`, the global batch.
    """

    first: NDArray[np.int64]
    window: int
    lanes: int
    batch: int

    def at(self, positions: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, samples) at `positions` of the stream, int64 [n] each."""
        num_samples = int(self.first[-1])
        epochs = positions // num_samples
        lanes = positions % self.batch // (self.batch // self.lanes)
        begins = self._before(epochs * num_samples, lanes)
        number = self._before(positions, lanes) - begins  # which of the lane's positions in the epoch
        size = self._before((epochs + 1) * num_samples, lanes) - begins
        # Windows of equal length, but for one place.
        windows = np.maximum(1, (size + self.window // 2) // self.window)
        window = ((number + 1) * windows - 1) // size
        start, end = window * size // windows, (window + 1) * size // windows
        place = self._starts(epochs, lanes) + start
        inside = permute_each(number - start, end - start, seed, epochs, 1 + place)
        return epochs, self._samples(place + inside, epochs, seed)

    def ahead(self, accumulation: int) -> int:
        """Micro-batches that a window lasts: so far ahead its shards are announced."""
        return min(MAX_AHEAD, -(-self.window * self.lanes * accumulation // self.batch))

    def _before(self, positions: NDArray[np.int64], lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many positions before `positions` are of `lanes`."""
        width = self.batch // self.lanes
        batches, slots = np.divmod(positions, self.batch)
        return batches * width + np.clip(slots - lanes * width, 0, width)

    def _starts(self, epochs: NDArray[np.int64], lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the runs of lanes begin among the places of an epoch."""
        num_samples, all_lanes = int(self.first[-1]), np.arange(self.lanes)
        found = np.empty(len(epochs), np.int64)
        for epoch in np.unique(epochs):
            begin, end = (np.full(self.lanes, (epoch + step) * num_samples) for step in (0, 1))
            sizes = self._before(end, all_lanes) - self._before(begin, all_lanes)
            here = epochs == epoch
            found[here] = (np.cumsum(sizes) - sizes)[lanes[here]]
        return found

    def _samples(self, places: NDArray[np.int64], epochs: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """The samples at `places` of their epochs."""
        found = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order, begins = self._shards(seed, int(epoch))
            which = np.searchsorted(begins, places[here], side="right") - 1
            found[here] = self.first[order[which]] + places[here] - begins[which]
        return found

    @functools.lru_cache(maxsize=4)  # noqa: B019 (a run has one order, for as long as it lasts)
    def _shards(self, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the order of an epoch, and the place of the first sample of each, int64 [num_shards] both."""
        num_shards = len(self.first) - 1
        order = permute(np.arange(num_shards), num_shards, seed, epoch)
        counts = np.diff(self.first)[order]
        return order, np.cumsum(counts) - counts


def shards_of(dataset: Dataset, rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """The shard of each of `rows`, numbered over all folders of the data set: int64 [n]."""
    counts = [len(source.manifest["shards"]) for source in dataset.shard_sets]
    place = np.searchsorted([source.first_row for source in dataset.shard_sets], rows, side="right") - 1
    return dataset.column("shard")[rows] + (np.cumsum(counts) - counts)[place]


def shard_order(shards: NDArray[np.integer], window_shards: int, lanes: int, batch: int) -> ShardOrder:
    """The order of samples that are in `shards`, int [n], all of a shard side by side."""
    first = np.concatenate([[0], np.flatnonzero(np.diff(shards)) + 1, [len(shards)]]).astype(np.int64)
    window = max(1, round(window_shards * len(shards) / (len(first) - 1)))
    return ShardOrder(first, window, lanes, batch)
