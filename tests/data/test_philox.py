"""Philox for many addresses at once gives what NumPy's gives for each."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.data.philox import philox, uniforms

WORD = st.integers(0, 2**64 - 1)


@settings(max_examples=50, deadline=None)
@given(counter=st.lists(st.integers(0, 2**63), min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
def test_blocks_are_numpys(counter: list[int], key: list[int]) -> None:
    expected = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64)).random_raw(4)
    first = np.array([counter[0] + 1, *counter[1:]], np.uint64)  # NumPy steps before it draws
    assert philox(first[:, None], np.array(key, np.uint64)[:, None])[:, 0].tolist() == expected.tolist()


def test_uniforms_are_numpys_at_every_address() -> None:
    epochs, rows = np.array([0, 0, 7, 10**6]), np.array([0, 5, 2**40, 10**9])
    drawn = uniforms(2**63 + 5, epochs, rows, [(3, 9), (0, 1), (2, 4)])
    assert [values.shape for values in drawn] == [(4, 9), (4, 1), (4, 4)]
    for values, stream in zip(drawn, (3, 0, 2), strict=True):
        for index, (epoch, row) in enumerate(zip(epochs.tolist(), rows.tolist(), strict=True)):
            key, counter = np.array([2**63 + 5, epoch], np.uint64), np.array([0, stream, row, 0], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
            assert values[index].tolist() == generator.random(values.shape[1]).tolist()
    assert all(((values >= 0) & (values < 1)).all() for values in drawn)


def test_no_address_needs_another() -> None:
    """A row's numbers are the same alone and among others, with other streams or without."""
    epochs, rows = np.arange(6), np.arange(6) * 11
    together = uniforms(1, epochs, rows, [(0, 8), (1, 5)])
    alone = uniforms(1, epochs[4:5], rows[4:5], [(1, 5)])
    assert (together[1][4] == alone[0][0]).all()
