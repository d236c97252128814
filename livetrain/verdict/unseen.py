"""The confidence interval of a rate over people, with one additional unseen person.

Gaffke's bound as a Bayesian bootstrap (Learned-Miller and Thomas, A New Confidence Interval for the Mean of a Bounded
Random Variable, arXiv 1905.06208), for a ratio of sums over people. Each person has a random weight, exponential with
mean 1, and so has one unseen person, who always errs for the upper bound and never for the lower one. The bound is the
quantile of the weighted rate. With one video per person it is the exact binomial bound of Clopper and Pearson (1934): 0
errors of 20 people give an upper bound of 16.8 %, of 120 people 3.0 %. An additional error never lowers a bound.
General coverage is a conjecture; benchmarks/intervals.md has simulations.

The quantile takes no random draws: the weighted rate is above t where sum_i (x_i - t m_i) E_i > 0, and the
distribution of a weighted sum of exponential variables is an integral over its moment generating function.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NEVER_OR_ALWAYS = (0.0, 1.0)  # how often the unseen person errs, for the lower and for the upper bound

_STEP = 0.2
_V = np.arange(_STEP / 2, 16, _STEP)  # nodes of the midpoint rule on the path u = sinh v, for which 80 are enough
_U, _DU = np.sinh(_V), np.cosh(_V) * _STEP
_MAX_BEND = (-0.5, 1.0)


def probability_above_zero(coefficients: ArrayLike, times: ArrayLike = 1.0) -> Floats:
    """P(sum_i c_i E_i > 0), E_i independent, exponential of mean 1; float [...] of coefficients float [..., n].

    times: how often each coefficient stands there, at least 0. Good to 1e-6, for ten million people too.

    The integral of exp(K(z)) / z over a path across the positive real axis, K the logarithm of the moment generating
    function. The path leaves the axis at the saddle point and bends off as the third derivative says, in a cone, so
    that it keeps away from the poles; on it nothing oscillates (Lugannani and Rice, Adv. Appl. Prob. 1980, section 2).
    """
    c, times = np.broadcast_arrays(np.asarray(coefficients, np.float64), np.asarray(times, np.float64))
    c = np.where(times > 0, c, 0.0)
    # The smaller of both probabilities is the one that is found exactly.
    flipped = (c * times).sum(axis=-1) > 0
    c = np.where(flipped[..., None], -c, c)
    largest = c.max(axis=-1)
    some = largest > 0
    c = c / np.where(some, largest, 1.0)[..., None]
    found = np.where(some, _tail(np.where(some[..., None], c, 1.0), times), 0.0)
    return np.where(flipped, 1 - found, found)


def _tail(c: Floats, times: Floats) -> Floats:
    """The same for coefficients whose largest is 1."""
    tau = _saddle(c, times)[..., None]
    ratio = c / (1 - c * tau)
    second = (times * ratio**2).sum(axis=-1)[..., None] + tau**-2
    third = 2 * (times * ratio**3).sum(axis=-1)[..., None] - 2 * tau**-3
    scale = second**-0.5
    bend = np.clip(scale * third / (3 * second), *_MAX_BEND)
    root = np.sqrt(1 + _U**2)
    z = tau + scale * (1j * _U + bend * (root - 1))
    dz = scale * (1j + bend * _U / root) * _DU
    log = -np.log(z)
    for place in range(c.shape[-1]):  # a column at a time: no array of people times nodes
        log -= times[..., place, None] * np.log(1 - c[..., place, None] * z)
    return (np.exp(log) * dz).imag.sum(axis=-1) / np.pi


def _saddle(c: Floats, times: Floats) -> Floats:
    """About where K(z) - log z is least in (0, 1), by bisection of its slope; float [...]."""
    low, high = np.full(c.shape[:-1], -32.0), np.full(c.shape[:-1], 32.0)
    for _ in range(16):
        middle = (low + high) / 2
        z = scipy.special.expit(middle)
        beyond = scipy.special.expit(-middle)  # 1 - z without cancellation: the column whose coefficient is 1
        slope = (times * c / np.where(c == 1, beyond[..., None], 1 - c * z[..., None])).sum(axis=-1) - 1 / z
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    return scipy.special.expit((low + high) / 2)


def size_of_unseen(sizes: ArrayLike) -> float:
    """Videos of the unseen person: as many as the person of a video has on average, sum m^2 / sum m."""
    m = np.asarray(sizes, np.float64)
    return float((m * m).sum() / m.sum())


def ratio_interval(
    sums: ArrayLike, sizes: ArrayLike, confidence: float, *, unseen: tuple[float, float] = NEVER_OR_ALWAYS
) -> tuple[float, float]:
    """The two-sided interval of sum(sums) / sum(sizes).

    sums, sizes: [n], of each person the errors and the videos (above 0). unseen: the ratio of the unseen person for the
    lower and for the upper bound, beyond which no person's can be. Raises ValueError without a person.
    """
    x, m = np.asarray(sums, np.float64), np.asarray(sizes, np.float64)
    if not len(m) or (m <= 0).any():
        raise ValueError("a rate needs people, each with a video")
    size = size_of_unseen(m)
    # Alike people are one column that counts several times: a thousand people are a few dozen columns.
    columns, times = np.unique(np.stack([x, m], axis=1), axis=0, return_counts=True)
    x, m, times = np.append(columns[:, 0], 0.0), np.append(columns[:, 1], size), np.append(times, 1)
    bounds = []
    for extreme, tail in zip(unseen, ((1 + confidence) / 2, (1 - confidence) / 2), strict=True):
        x[-1] = extreme * size
        bounds.append(_exceeded(x, m, times, tail))
    return bounds[0], bounds[1]


def _exceeded(x: Floats, m: Floats, times: NDArray[np.int64], probability: float) -> float:
    """The t that the weighted ratio sum x E / sum m E exceeds with this probability."""
    low, high = float((x / m).min()), float((x / m).max())

    def excess(t: float) -> float:
        # At the ends it is sure and impossible, where every coefficient may be 0.
        if t <= low or t >= high:
            return (1.0 if t <= low else 0.0) - probability
        return float(probability_above_zero(x - t * m, times)) - probability

    return low if low == high else float(scipy.optimize.brentq(excess, low, high, xtol=1e-13, rtol=1e-12))
