"""Weighted sources: exact shares, every sample of a source before any again, and a pure function of the position."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.core.errors import UserError
from livetrain.data import Dataset
from livetrain.data.mixture import BLOCK, balanced, mixture_of
from livetrain.data.plan import Samples
from tests.data.test_plan import assert_same, make_config, make_samples, step_plan


def mixed(counts: list[int], weights: list[float]) -> Samples:
    """Samples of sources of these sizes, one after the other."""
    samples = make_samples(sum(counts))
    first_rows = [int(3 * first) for first in np.cumsum([0, *counts[:-1]])]
    return Samples(samples.rows, samples.columns, mixture_of(samples.rows, first_rows, weights))


COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(COUNTS, st.integers(0, 2**40), st.integers(0, 3))
def test_shares_are_exact_in_every_block_and_samples_come_in_turn(counts: list[int], seed: int, block: int) -> None:
    weights = [1.0 + i for i in range(len(counts))]
    samples = mixed(counts, weights)
    assert samples.mixture is not None
    epochs, found = samples.at(np.arange((block + 1) * BLOCK), seed)
    for i, (first, count) in enumerate(zip(np.cumsum([0, *counts]), counts, strict=False)):
        here = (found >= first) & (found < first + count)
        assert here[block * BLOCK :].sum() == BLOCK * weights[i] / sum(weights)
        seen = np.bincount(found[here] - first, minlength=count)
        assert seen.max() - seen.min() <= 1, "none comes again before all have come"
        pairs = set(zip(epochs[here].tolist(), found[here].tolist(), strict=True))
        assert len(pairs) == here.sum(), "a sample that comes again is augmented again: it has another epoch"


@settings(max_examples=20, deadline=None)
@given(COUNTS, st.integers(0, 10**7), st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([1, 2]))
def test_processes_and_accumulation_change_nothing(counts: list[int], step: int, world: int, accumulation: int) -> None:
    samples = mixed(counts, [1.0] * len(counts))
    one = step_plan(samples, make_config(24), step, 1)
    assert_same(one, step_plan(samples, make_config(24, accumulation), step, world))


def test_the_orders_are_those_of_every_version() -> None:
    """A run that a newer version resumes must see the rest of its epoch."""
    _, found = mixed([5, 7], [1, 2]).at(np.arange(12), 3)
    assert found.tolist() == [11, 11, 8, 6, 6, 11, 9, 8, 2, 7, 2, 2]


def test_sources_are_interleaved_and_ordered_anew() -> None:
    samples = mixed([100, 100], [1, 1])
    streams = [samples.at(np.arange(2 * BLOCK), seed)[1] // 100 for seed in (0, 1)]
    assert (streams[0] != streams[1]).any() and (streams[0][:BLOCK] != streams[0][BLOCK:]).any()
    windows = streams[0].reshape(-1, 60).mean(axis=1)  # of 60 clips, about half from each source
    assert windows.min() > 0.2 and windows.max() < 0.8
    orders = [samples.at(np.arange(BLOCK), 0)[1][streams[0][:BLOCK] == i] % 100 for i in (0, 1)]
    assert (orders[0][:100] != orders[1][:100]).any(), "two sources of one size are not in step"


def test_a_source_without_samples_takes_no_part_and_odd_weights_are_rounded_together() -> None:
    rows = np.arange(10)
    mixture = mixture_of(rows, [0, 4, 4], [1, 5, 1])
    assert (mixture.first.tolist(), mixture.count.tolist(), mixture.quota.tolist()) == ([0, 4], [4, 6], [1260, 1260])
    quota = mixture_of(rows, [0, 3, 6], [1.0, 1.1, 0.37]).quota
    assert quota.sum() == BLOCK and np.abs(quota / BLOCK - np.array([1.0, 1.1, 0.37]) / 2.47).max() < 1 / BLOCK


@pytest.mark.parametrize(
    ("weights", "message"), [([1, 0], "above 0"), ([1, float("nan")], "above 0"), ([1e5, 1], "below 1/2520")]
)
def test_weights_that_are_no_shares(weights: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixture_of(np.arange(10), [0, 5], weights)


def test_balance_gives_groups_and_their_parents_equal_shares() -> None:
    """Live 1 of 11 clips, print 9, replay 1: half of the stream is live, a quarter each print and replay."""
    groups = np.array([0, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1])
    mixture = balanced(groups, np.array([0, 1, 1]), 1.0)
    assert (mixture.quota / BLOCK).tolist() == [0.5, 0.25, 0.25]
    samples = make_samples(11)
    samples = Samples(samples.rows, samples.columns, mixture)
    epochs, found = samples.at(np.arange(2 * BLOCK), 3)
    assert np.bincount(groups[found]).tolist() == [BLOCK, BLOCK // 2, BLOCK // 2]
    seen = np.bincount(found, minlength=11)
    assert np.ptp(seen[groups == 1]) <= 1, "a group's samples come in turn"
    assert len(set(zip(epochs.tolist(), found.tolist(), strict=True))) == 2 * BLOCK
    assert_same(step_plan(samples, make_config(24), 9, 4), step_plan(samples, make_config(24), 9, 1))


def test_balance_in_between_and_none() -> None:
    groups = np.repeat([0, 1], [100, 900])
    assert balanced(groups, np.zeros(2, int), 0.0).quota.tolist() == [252, 2268]
    assert balanced(groups, np.zeros(2, int), 0.5).quota.tolist() == [630, 1890]  # 10 to 30
    assert balanced(groups, np.zeros(2, int), 1.0).quota.tolist() == [1260, 1260]
    assert balanced(groups * 2, np.zeros(3, int), 1.0).quota.tolist() == [1260, 1260], "nobody in the middle"
    with pytest.raises(UserError, match="less than 1/2520"):
        balanced(np.repeat([0, 1], [1, 10**6]), np.zeros(2, int), 0.0)


@pytest.mark.parametrize("by", ["class", "attack"])
def test_balance_of_a_data_set(demo_shards: Path, by: str) -> None:
    dataset, config = Dataset.open(demo_shards), make_config(24)
    config.data.balance = by
    samples = Samples.of_training(dataset, config)
    rows = samples.rows[samples.at(np.arange(BLOCK), 0)[1]]
    kinds = Counter(dataset.text("attack_type", int(row)) for row in rows)
    assert kinds["live"] == BLOCK // 2
    assert by == "class" or kinds["print"] == kinds["replay"] == BLOCK // 4
