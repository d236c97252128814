"""Ratios of `livetrain bench step`: each is of equal work."""

from __future__ import annotations

from livetrain.bench import step
from livetrain.bench.sides import Measured


def test_loops_without_a_loader_are_compared_with_the_cached_batch() -> None:
    rates = {step.OURS: 6.0, step.CACHED: 8.0, step.LOADER: 12.0, step.PLAIN: 4.0, step.LIGHTNING: 4.0, step.TIMM: 4.0}
    found = {side: Measured([rate]) for side, rate in rates.items()}
    assert {side: step.at_equal_work(found, side) for side in rates} == {
        step.OURS: 1.0, step.CACHED: 0.75, step.LOADER: 0.5, step.PLAIN: 2.0, step.LIGHTNING: 2.0, step.TIMM: 2.0,
    }  # fmt: skip
