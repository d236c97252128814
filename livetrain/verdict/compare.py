"""Two runs on the same test videos: the differences of their figures, with intervals, and whether data tell them apart.

The bootstrap is paired (intervals.of_differences). Each run decides at its own frozen threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from livetrain.errors import UserError
from livetrain.verdict import bootstrap, intervals
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import Scores

FIGURES = {"apcer_max": "APCER, largest", "bpcer": "BPCER", "hter": "HTER", "eer": "EER", "auc": "AUC"}
POWER = 0.8  # chance that a study of the named size would see a difference as large as the one seen here


@dataclass(frozen=True)
class Judged:
    """A run's scores of the test split and its frozen threshold."""

    name: str
    scores: Scores
    threshold: float


def pair(one: Judged, other: Judged, settings: Settings | None = None) -> dict[str, Any]:
    """The comparison of `other` with `one` as a JSON-able dict: differences (other - one), discordant clips, sentences.

    Videos that both have scores of are compared, and the number of the rest is said. Raises UserError when there are
    none, or a video has another label in either run.
    """
    settings = settings or Settings()
    first, second, left_out = _common(one, other)
    units = bootstrap.units(first.group)
    found = intervals.of_differences(first, second, (one.threshold, other.threshold), FIGURES, settings)
    rows = []
    for name, values in found.items():
        row = {"figure": name} | values
        row |= {"apart": _apart(row), "more_units": more_units(row, units.num, settings.confidence)}
        rows.append(row | {"sentence": _sentence(row, one.name, other.name, units)})
    return {
        "one": one.name,
        "other": other.name,
        "num_clips": len(first),
        "num_left_out": left_out,
        "num_units": units.num,
        "unit": units.name,
        "intervals": settings.describe(),
        "differences": rows,
        "discordant": discordant(first, second, one.threshold, other.threshold),
    }


def more_units(row: dict[str, Any], num: int, confidence: float) -> int | None:
    """How many more people a study needs to tell a difference of this size apart with 80 % power; 0 when the data do
    already, None where no number would (no difference seen, or no interval).

    The interval narrows with the root of the number of people: n (z_level + z_power)^2 (standard error / difference)^2.
    """
    if row["low"] is None or row["difference"] == 0:
        return None
    if _apart(row):
        return 0
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    error = (row["high"] - row["low"]) / (2 * z)
    needed = num * ((z + float(stats.norm.ppf(POWER))) * error / row["difference"]) ** 2
    return max(1, math.ceil(needed - num))


def discordant(one: Scores, other: Scores, threshold_one: float, threshold_other: float) -> list[dict[str, Any]]:
    """Videos that the two decide differently about, those with the most different scores first: rows of the scores with
    p_one, p_other and right ("one" or "other")."""
    accepted_one, accepted_other = one.p_live >= threshold_one, other.p_live >= threshold_other
    rows = np.flatnonzero(accepted_one != accepted_other)
    rows = rows[np.argsort(-np.abs(one.p_live[rows] - other.p_live[rows]), kind="stable")]
    return [
        one.row(int(i))
        | {
            "p_one": float(one.p_live[i]),
            "p_other": float(other.p_live[i]),
            "right": "one" if accepted_one[i] == one.live[i] else "other",
        }
        for i in rows
    ]


def _common(one: Judged, other: Judged) -> tuple[Scores, Scores, int]:
    """The scored videos of both in the same order, and how many of either are left out."""
    places = {key: i for i, key in enumerate(other.scores.key.tolist()) if other.scores.scored[i]}
    keys = one.scores.key.tolist()
    mine: NDArray[np.int64] = np.array(
        [i for i, key in enumerate(keys) if one.scores.scored[i] and key in places], dtype=np.int64
    )
    if not len(mine):
        raise UserError(
            f"{one.name} and {other.name} have no scored test video in common; evaluate both on one data set"
        )
    theirs = np.array([places[keys[i]] for i in mine.tolist()], dtype=np.int64)
    first, second = one.scores.select(mine), other.scores.select(theirs)
    differing = np.flatnonzero((first.label != second.label) | (first.attack_type != second.attack_type))
    if len(differing):
        raise UserError(
            f"{one.name} and {other.name} have different labels of {first.key[differing[0]]} and {len(differing) - 1} "
            "more videos; they were not evaluated on the same data"
        )
    return first, second, len(one.scores) + len(other.scores) - 2 * len(first)


def _apart(row: dict[str, Any]) -> bool:
    return row["low"] is not None and not row["low"] <= 0 <= row["high"]


def _sentence(row: dict[str, Any], one: str, other: str, units: bootstrap.Units) -> str:
    name, difference = FIGURES[row["figure"]], row["difference"]
    if difference == 0:
        return f"{name}: {one} and {other} are alike on these videos."
    scale, unit = (1.0, "") if row["figure"] == "auc" else (100.0, " points")
    size = f"{abs(difference) * scale:.{4 if scale == 1 else 2}f}{unit}"
    text = f"{name}: {other} is {size} {'lower' if difference < 0 else 'higher'} than {one}"
    if row["low"] is None:
        return f"{text}; with {units.num} {units.name} nothing can be said about others."
    text += f" [{row['low'] * scale:+.{4 if scale == 1 else 2}f} to {row['high'] * scale:+.{4 if scale == 1 else 2}f}]"
    if row["apart"]:
        return f"{text}; the data tell them apart."
    return (
        f"{text}; the data cannot tell them apart. To see a difference of this size in four of five studies takes "
        f"about {row['more_units']:,} more {units.name} (now {units.num})."
    )
