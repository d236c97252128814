"""What the report's threshold slider needs: the scores of each kind, and the thresholds it stops at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict.scores import Scores

MAX_STOPS = 400
MAX_SCORES = 20_000  # of a kind in the page; more are thinned evenly, and the page says so


def data(scores: Scores, threshold: float) -> dict[str, Any]:
    """What the threshold slider needs, JSON-able.

    `stops`, ascending, with `threshold` at index `start`; `kinds`, the attack types, and sorted scores: `live`, and
    `attacks` of each type; `thinned`, whether there were more scores than the page holds.
    """
    rows = scores.scored
    p_live, live = scores.p_live[rows], scores.live[rows]
    kinds = scores.attack_type[rows]
    stops = _stops(p_live, threshold)
    parts = {kind: p_live[~live & (kinds == kind)] for kind in sorted(set(kinds[~live].tolist()))}
    return {
        "stops": stops,
        "start": stops.index(threshold),
        "live": _thinned(p_live[live]),
        "kinds": list(parts),
        "attacks": [_thinned(part) for part in parts.values()],
        "thinned": any(len(part) > MAX_SCORES for part in [p_live[live], *parts.values()]),
    }


def _stops(p_live: NDArray[np.float64], threshold: float) -> list[float]:
    """0, 1, `threshold`, and midpoints between neighbouring scores, evenly chosen: errors change nowhere else."""
    distinct = np.unique(p_live)
    midways = (distinct[1:] + distinct[:-1]) / 2
    if len(midways) > MAX_STOPS:
        midways = midways[np.linspace(0, len(midways) - 1, MAX_STOPS).round().astype(int)]
    return sorted({0.0, 1.0, threshold, *midways.tolist()})


def _thinned(values: NDArray[np.float64]) -> list[float]:
    ordered = np.sort(values)
    if len(ordered) > MAX_SCORES:
        ordered = ordered[((np.arange(MAX_SCORES) + 0.5) * len(ordered) / MAX_SCORES).astype(int)]
    return ordered.tolist()
