"""A rate of errors with its interval, where people and not videos are what was sampled.

The interval is Clopper and Pearson's (exact binomial, 95 %), for as many independent trials as the videos are worth:
videos of one person err together, so their number is divided by the design effect, the variance of the rate among
people over that of independent videos (Kish, "Survey Sampling", 1965), never below 1. Without errors, or without
non-errors, the effect cannot be seen in the data; then the interval is that of independent videos, the least width it
should have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

CONFIDENCE = 0.95


def rate(errors: NDArray[np.bool_], group: NDArray[Any]) -> dict[str, Any] | None:
    """{num, errors, rate, low, high} of bool [n] with the people [n] ("" where unknown); None for n = 0."""
    num = len(errors)
    if not num:
        return None
    wrong = int(errors.sum())
    trials = num / design_effect(errors, group)
    low, high = clopper_pearson(wrong / num * trials, trials)
    return {"num": num, "errors": wrong, "rate": wrong / num, "low": low, "high": high}


def clopper_pearson(errors: float, trials: float) -> tuple[float, float]:
    """The interval of a binomial rate that covers it with at least 95 %; `trials` may be an effective number."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if errors <= 0 else float(beta.ppf(tail, errors, trials - errors + 1))
    high = 1.0 if errors >= trials else float(beta.ppf(1 - tail, errors + 1, trials - errors))
    return low, high


def design_effect(errors: NDArray[np.bool_], group: NDArray[Any]) -> float:
    """Variance of the rate with people drawn as wholes over that with videos drawn one by one; at least 1, at most the
    number of videos over that of people; 1 with fewer than two people."""
    names, index = np.unique(group.astype(str), return_inverse=True)
    num, mean = len(errors), errors.mean()
    if len(names) < 2 or (names == "").any() or mean in (0, 1):
        return 1.0
    sizes = np.bincount(index)
    wrong = np.bincount(index, weights=errors)
    people = len(names)
    # The ratio estimator's variance: sizes differ among people (Cochran, "Sampling Techniques", 1977, 6.3).
    variance = people / (people - 1) * ((wrong - mean * sizes) ** 2).sum() / num**2
    return float(np.clip(variance / (mean * (1 - mean) / num), 1, num / people))
