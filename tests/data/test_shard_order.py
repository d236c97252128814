"""data.order=windows: each sample once an epoch, few shards at a time, the same from any position and process."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.config import load_config
from livetrain.core.errors import UserError
from livetrain.data import Dataset, plan
from livetrain.data.permutation import permute
from livetrain.data.shard_order import ShardOrder, shard_order
from tests.data.test_loader import make_config


def order_of(counts: list[int], window_shards: int = 2, lanes: int = 1, batch: int = 8) -> ShardOrder:
    return shard_order(np.repeat(np.arange(len(counts)), counts), window_shards, lanes, batch)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    window=st.integers(1, 8),
    lanes=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 5),
)
def test_each_sample_comes_once_an_epoch(counts: list[int], window: int, lanes: int, seed: int) -> None:
    order, n = order_of(counts, window, lanes), sum(counts)
    epochs, samples = order.at(np.arange(3 * n), seed)
    assert (epochs == np.repeat(np.arange(3), n)).all()
    for epoch in range(3):
        assert sorted(samples[epochs == epoch].tolist()) == list(range(n))
    asked = np.random.default_rng(seed).permutation(3 * n)[: n // 2 + 1]
    alone = np.concatenate([order.at(asked[i : i + 1], seed)[1] for i in range(len(asked))])
    assert (alone == samples[asked]).all() and (order.at(asked, seed)[1] == alone).all()


def test_a_window_is_of_few_shards_and_is_shuffled() -> None:
    shards, each, window = 48, 40, 4
    order = order_of([each] * shards, window)
    _, samples = order.at(np.arange(shards * each), 3)
    spans = samples.reshape(-1, window * each)
    assert {len(np.unique(span // each)) for span in spans} == {window}
    assert len({tuple(np.unique(span // each)) for span in spans}) == len(spans)
    for span in spans:
        assert 0.15 < (np.diff(span // each) == 0).mean() < 0.35, "the next clip is of the same shard one time in four"
        assert (np.diff(span) == 1).mean() < 0.05


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    order, n = order_of([20] * 12), 240
    orders = {tuple(order.at(np.arange(n) + epoch * n, seed)[1]) for seed in range(3) for epoch in range(3)}
    firsts = {frozenset(sample // 20 for sample in item[:40]) for item in orders}
    assert len(orders) == 9 and len(firsts) > 5


def test_lanes_have_shards_of_their_own() -> None:
    lanes, batch, each, shards = 4, 16, 30, 40
    order = order_of([each] * shards, 3, lanes, batch)
    positions = np.arange(shards * each)
    _, samples = order.at(positions, 1)
    lane = positions % batch // (batch // lanes)
    seen = [set((samples[lane == number] // each).tolist()) for number in range(lanes)]
    assert sum(map(len, seen)) <= shards + lanes - 1, "only a shard on the border of two lanes is of both"


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_a_node_downloads_each_shard_about_once(share: float) -> None:
    """LRU of whole shards, two epochs; global order for comparison."""
    shards, each = 400, 20
    order, n = order_of([each] * shards, 8, 1, 16), shards * each

    def downloads(samples: np.ndarray) -> int:
        cache: OrderedDict[int, None] = OrderedDict()
        count = 0
        for shard in (samples // each).tolist():
            count += shard not in cache
            cache[shard] = None
            cache.move_to_end(shard)
            if len(cache) > share * shards:
                cache.popitem(last=False)
        return count

    windows = downloads(order.at(np.arange(2 * n), 0)[1])
    everywhere = downloads(np.concatenate([permute(np.arange(n), n, 0, epoch) for epoch in (0, 1)]))
    assert windows <= (shards if share == 1 else 2 * shards)
    assert everywhere == shards if share == 1 else everywhere > 10 * windows


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_run_s_clips_do_not_depend_on_the_number_of_processes(demo_shards: Path, lanes: int) -> None:
    config = make_config(demo_shards)
    config.data.order, config.data.window_shards, config.data.window_lanes = "windows", 2, lanes
    dataset = Dataset.open(demo_shards)
    samples = plan.Samples.of_training(dataset, config)
    assert isinstance(samples.mixture, ShardOrder)
    steps = 2 * len(samples) // config.train.global_batch

    def rows(world: int) -> list[list[int]]:
        parts = [
            [plan.plan_train(samples, config, s, 0, rank, world).rows for rank in range(world)] for s in range(steps)
        ]
        return [np.concatenate(part).tolist() for part in parts]

    assert rows(1) == rows(2) == rows(4)
    flat = [row for part in rows(1) for row in part]
    assert sorted(flat[: len(samples)]) == samples.rows.tolist()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.balance=class"], "cannot be mixed by data.weights or data.balance"),
        (["data.window_lanes=5", "train.global_batch=16"], "data.window_lanes=5 does not divide train.global_batch=16"),
        (["data.window_shards=0"], "data.window_shards=0 is out of range"),
        (
            ["data.on_outage=wait", "data.outage_minutes=60"],
            "ends after train.hang_timeout_seconds=300; set that above 3600",
        ),
    ],
)
def test_mistakes(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_config([], ["data.shards=x", "data.order=windows", *words], warn=lambda line: None)
