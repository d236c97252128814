"""The collector rests between updates and is as it was afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from livetrain.training.gc_control import PERIOD, paused_gc


class Ring:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.me = self


def test_cycles_are_freed_at_every_period_and_not_before() -> None:
    with paused_gc() as collect:
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        ring = weakref.ref(Ring())
        for step in range(PERIOD - 1):
            collect(step)
        assert ring() is not None
        collect(PERIOD - 1)
        assert ring() is None
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_failure_gives_it_back_too() -> None:
    with pytest.raises(ValueError), paused_gc():
        raise ValueError
    assert gc.isenabled() and gc.get_freeze_count() == 0
