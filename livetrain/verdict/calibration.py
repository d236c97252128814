"""How far p_live can be read as a probability: expected calibration error, and temperature scaling."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NUM_BINS = 15
TEMPERATURES = (0.05, 20.0)
EDGE = 1e-7  # scores of 0 and 1 have no logit; float32's sigmoid saturates about here


def expected_calibration_error(live: Bools, p_live: Floats, num_bins: int = NUM_BINS) -> float | None:
    """Mean over videos of |mean p_live - share of live| in their bin, of `num_bins` equal ones (Guo et al., 2017).

    Of p_live as the probability of live, not of the winning class. None without videos.
    """
    if not len(p_live):
        return None
    number = np.minimum((p_live * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(number, minlength=num_bins)
    gaps = np.bincount(number, weights=p_live, minlength=num_bins) - np.bincount(
        number, weights=live.astype(np.float64), minlength=num_bins
    )
    return float(np.abs(gaps).sum() / counts.sum())


def apply_temperature(p_live: Floats, temperature: float) -> Floats:
    """sigmoid(logit(p_live) / temperature); temperature 1 changes nothing but scores within 1e-7 of 0 and 1."""
    clipped = np.clip(p_live, EDGE, 1 - EDGE)
    return 1 / (1 + np.exp(-np.log(clipped / (1 - clipped)) / temperature))


def fit_temperature(live: Bools, p_live: Floats) -> float:
    """The temperature with the least mean negative log-likelihood (Guo et al., ICML 2017), from 0.05 to 20.

    Scores that separate the classes wholly make it 0.05: the data do not say how sure is too sure. Raises ValueError
    when a class is missing or a score is NaN.
    """
    if np.isnan(p_live).any():
        raise ValueError("a score is NaN")
    if live.all() or not live.any():
        raise ValueError("a temperature needs live and attack presentations both")
    clipped = np.clip(p_live, EDGE, 1 - EDGE)
    signed = np.where(live, 1.0, -1.0) * np.log(clipped / (1 - clipped))

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    low, high = np.log(TEMPERATURES)
    found = scipy.optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    best = min((float(found.x), low, high), key=loss)
    return float(np.exp(best))
