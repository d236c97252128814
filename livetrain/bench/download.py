"""`livetrain bench download`: what training downloads when the cache holds a part of the data, and how well clips mix.

A simulation of the stream that is trained on and of a cache that drops the shard used longest ago; bytes, not seconds,
so the machine does not matter.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.data.permutation import permute
from livetrain.data.shard_order import ShardOrder, shard_order

BATCH = 64
CLIPS_A_SHARD = 100
WINDOW = 16
CACHES = (0.05, 0.2, 1.0)
SEED = 0


def run(options: Options) -> Report:
    """Bytes downloaded for each byte used, and the mixing of batches, in global order and in windows."""
    num_shards = 400 if options.quick else 2000
    orders = {"windows, 1 lane": _order(num_shards, 1), "windows, 4 lanes": _order(num_shards, 4)}
    streams = {"global": _everywhere(num_shards)} | {name: _stream(order) for name, order in orders.items()}
    cost = Table(
        f"Bytes that a node downloads for each byte it uses, in the second epoch. {num_shards:,} shards of "
        f"{CLIPS_A_SHARD} clips, global batch {BATCH}, data.window_shards={WINDOW}; cache of a node in % of the data.",
        ("order", "nodes", *(f"cache {share:.0%}" for share in CACHES)),
    )
    ratios = {}
    for name, stream in streams.items():
        for nodes in (1, 4):
            found = [_amplification(stream, nodes, round(share * num_shards)) for share in CACHES]
            cost.rows.append((name, nodes, *(f"{value:.2f}" for value in found)))
            if name == f"windows, {nodes} lane{'s' * (nodes > 1)}":
                ratios[f"download: bytes used over downloaded in windows, a lane a node, {nodes}"] = 1 / found[0]
    mixing = Table(
        f"How well a batch of {BATCH} clips is mixed: pairs of clips of one shard, and the standard deviation of the "
        "share of live clips (a third of all) between batches. `shards build` draws the clips of a shard at random; "
        "sorted: shards of one class each, as other tools write them.",
        ("order", "pairs of one shard", "live share, shards as built", "live share, sorted shards"),
    )
    for name, stream in streams.items():
        pairs = np.mean([_pairs(batch) for batch in stream[: len(stream) // BATCH * BATCH].reshape(-1, BATCH)])
        mixing.rows.append((name, f"{pairs:.2%}", *(f"{value:.3f}" for value in _live_deviations(stream))))
    worst = cost.rows[2]
    summary = (
        f"With a cache of 5 % of the data a node in global order downloads {cost.rows[0][2]} bytes for each byte it "
        f"uses, in windows {worst[2]}. With several nodes that holds with a lane a node (data.window_lanes)."
    )
    return Report("Training from more data than the cache holds", summary, [cost, mixing], ratios)


def _order(num_shards: int, lanes: int) -> ShardOrder:
    return shard_order(np.repeat(np.arange(num_shards), CLIPS_A_SHARD), WINDOW, lanes, BATCH)


def _stream(order: ShardOrder) -> NDArray[np.int64]:
    """Samples of two epochs."""
    return order.at(np.arange(2 * int(order.first[-1])), SEED)[1]


def _everywhere(num_shards: int) -> NDArray[np.int64]:
    num = num_shards * CLIPS_A_SHARD
    return np.concatenate([permute(np.arange(num), num, SEED, epoch) for epoch in (0, 1)])


def _amplification(stream: NDArray[np.int64], nodes: int, room: int) -> float:
    """Clips downloaded by the first node for each that it uses in the second epoch; its cache holds `room` shards."""
    node = np.arange(len(stream)) % BATCH // (BATCH // nodes)
    half = len(stream) // 2
    cache: OrderedDict[int, None] = OrderedDict()
    downloaded = used = 0
    places = np.flatnonzero(node == 0)
    for place, shard in zip(places.tolist(), (stream[places] // CLIPS_A_SHARD).tolist(), strict=True):
        if shard not in cache:
            downloaded += CLIPS_A_SHARD * (place >= half)
            cache[shard] = None
            if len(cache) > room:
                cache.popitem(last=False)
        cache.move_to_end(shard)
        used += place >= half
    return downloaded / used


def _pairs(batch: NDArray[np.int64]) -> float:
    """Share of pairs of clips that are of one shard."""
    counts = np.unique(batch // CLIPS_A_SHARD, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (BATCH * (BATCH - 1)))


def _live_deviations(stream: NDArray[np.int64]) -> tuple[float, float]:
    """Of shards whose clips were drawn at random, and of shards of one class each."""
    batches = stream[: len(stream) // BATCH * BATCH].reshape(-1, BATCH)
    at_random = np.random.default_rng(SEED).random(int(stream.max()) + 1) < 1 / 3
    in_order = batches // CLIPS_A_SHARD % 3 == 0
    return float(at_random[batches].mean(axis=1).std()), float(in_order.mean(axis=1).std())
