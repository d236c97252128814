"""The simulations of coverage.py: intervals hold in at least 93 % of trials, and alike runs are not distinguished."""

from __future__ import annotations

import numpy as np
import pytest

from livetrain.verdict.unseen import ratio_interval
from tests.verdict import coverage

TRIALS = 200


def least(share: float, trials: int) -> float:
    """What a cell may show by chance, three standard errors below."""
    return share - 3 * (share * (1 - share) / trials) ** 0.5


def test_what_is_simulated_is_what_the_interval_says() -> None:
    random = np.random.default_rng(0)
    for kind in coverage.KINDS:
        videos = coverage.VIDEOS["unequal"](9)
        errors = random.binomial(videos, coverage.propensities(random, kind, 0.2, (25, 9)))
        bounds = [ratio_interval(row, videos, coverage.CONFIDENCE) for row in errors]
        assert coverage.covers(errors, videos, 0.2).tolist() == [low <= 0.2 <= high for low, high in bounds]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("table", [coverage.rates, coverage.combined, coverage.separation])
def test_intervals_hold(table: object) -> None:
    found = table(TRIALS)  # type: ignore[operator]
    assert len(found) > 50
    worst = min(found, key=found.__getitem__)
    assert found[worst] >= least(0.93, TRIALS), (worst, found[worst])
    assert np.mean(list(found.values())) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_alike_runs_are_not_told_apart() -> None:
    called, held = coverage.exchangeable(TRIALS)
    assert max(called.values()) <= 1 - least(0.95, TRIALS), max(called, key=called.__getitem__)
    assert np.mean(list(called.values())) <= 0.05
    assert min(held.values()) >= least(0.93, TRIALS)
