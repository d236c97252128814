"""The keyed permutation: a bijection for any size, another for any key, evenly mixed, at any point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import check_random_state

from livetrain.data.permutation import permute, permute_each


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**62), epoch=st.integers(0, 10**6))
def test_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


def test_any_position_alone_gives_what_the_whole_gives() -> None:
    whole = permute(np.arange(1000), 1000, 3, 1)
    positions = check_random_state(0).permutation(1000)[:50]
    assert (permute(positions, 1000, 3, 1) == whole[positions]).all()
    assert all(permute(np.array([p]), 1000, 3, 1)[0] == whole[p] for p in positions)


def test_seed_and_epoch_change_the_order() -> None:
    orders = {tuple(permute(np.arange(50), 50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_a_billion_items_need_no_list() -> None:
    n = 10**9 + 7
    samples = permute(np.array([0, 1, n - 1]), n, 0, 0)
    assert ((samples >= 0) & (samples < n)).all() and len(set(samples.tolist())) == 3


@pytest.mark.slow
def test_positions_are_spread_evenly() -> None:
    """Where item 0 of 12 lands over 6000 keys: chi-square, 11 degrees of freedom, under its 0.001 tail, 31.3."""
    n, keys = 12, 6000
    counts = np.zeros((n, n))
    for epoch in range(keys):
        counts[np.arange(n), permute(np.arange(n), n, 11, epoch)] += 1
    chi_square = ((counts - keys / n) ** 2 / (keys / n)).sum(axis=1)
    assert chi_square.max() < 31.3 + 8  # twelve such tests at once
    # Neighbours: item i+1 right after item i in 1 of n pairs of places, up to noise.
    follows = sum(
        int((np.diff(permute(np.arange(n), n, 5, epoch)) == 1).sum()) for epoch in range(keys)
    )  # expected (n-1) * 1/n * keys = 5500
    assert abs(follows - keys * (n - 1) / n) < 5 * np.sqrt(keys * (n - 1) / n)


def test_position_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="position 10"):
        permute(np.array([10]), 10, 0, 0)


def test_many_permutations_at_once_are_each_of_them() -> None:
    random = np.random.default_rng(0)
    streams = random.integers(0, 4, 300)
    sizes = np.array([1, 7, 64, 1000])[streams]
    epochs = random.integers(0, 3, 300)
    positions = random.integers(0, 10**6, 300) % sizes
    found = permute_each(positions, sizes, 9, epochs, streams)
    alone = [
        permute(np.array([p]), int(n), 9, int(e), int(s))[0]
        for p, n, e, s in zip(positions, sizes, epochs, streams, strict=True)
    ]
    assert found.tolist() == alone
    whole = [permute(np.arange(1000), 1000, 9, 0, stream) for stream in (0, 1, 2)]
    assert all(sorted(one.tolist()) == list(range(1000)) for one in whole)
    assert (whole[0] != whole[1]).any() and (whole[1] != whole[2]).any()


def test_the_orders_are_those_of_every_version() -> None:
    """A run that a newer version resumes must see the rest of its epoch, and no clip twice."""
    assert permute(np.arange(12), 12, 0, 0).tolist() == [2, 5, 9, 4, 10, 6, 1, 7, 0, 11, 8, 3]
    assert permute(np.arange(12), 12, 7, 3).tolist() == [7, 0, 11, 3, 4, 6, 8, 1, 5, 10, 9, 2]
    assert permute(np.arange(4), 4, 1, 2).tolist() == [3, 2, 0, 1]  # the smallest network
    far = np.array([0, 1, 999_999_999])
    assert permute(far, 10**9, 1, 2).tolist() == [14064722, 494630192, 121170974]
