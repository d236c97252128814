"""Runs on the same test videos: the differences of their figures, with intervals, and whether data tell them apart.

Each run decides at its own frozen threshold. The statistics are those of livetrain.verdict.paired; p-values are
adjusted for all figures of all pairs that are shown together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.verdict import bootstrap, paired
from livetrain.verdict.bootstrap import Units
from livetrain.verdict.intervals import Settings
from livetrain.verdict.paired import Difference
from livetrain.verdict.scores import Scores

FIGURES = {"apcer_max": "APCER, largest", "bpcer": "BPCER", "hter": "HTER", "eer": "EER", "auc": "AUC"}
POWER = 0.8  # chance that a study of the named size would see a difference as large as the one seen here
MIN_PEOPLE = 10  # fewer do not say how much people differ, nor how many more it would take


@dataclass(frozen=True)
class Judged:
    """A run's scores of the test split and its frozen threshold."""

    name: str
    scores: Scores
    threshold: float


def pairs(one: Judged, others: Sequence[Judged], settings: Settings | None = None) -> list[dict[str, Any]]:
    """The comparison of each of `others` with `one`, as JSON-able dicts.

    Differences (other - one), discordant clips, sentences.

    Videos that both have scores of are compared, and the number of the rest is said. Raises UserError when there are
    none, or a video has another label in either run.
    """
    settings = settings or Settings()
    common = [_common(one, other) for other in others]
    found = [
        paired.of_differences(first, second, (one.threshold, other.threshold), FIGURES, settings)
        for (first, second, _), other in zip(common, others, strict=True)
    ]
    decided = iter(paired.apart([item for figures in found for item in figures.values()], settings.confidence))
    compared = []
    for (first, second, left_out), other, figures in zip(common, others, found, strict=True):
        units = bootstrap.units(first.subject)
        rows = [
            _row(name, item, next(decided), units, (one.name, other.name), settings) for name, item in figures.items()
        ]
        compared.append(
            {
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
        )
    return compared


def more_units(item: Difference, num: int, confidence: float) -> int | None:
    """How many more people a study needs to detect a difference of this size.

    With 80 % power. None where no number would (no difference seen), or where too few people show how much people
    differ.

    The standard error falls with the root of the number of people: n (z_level + z_power)^2 (error / difference)^2.
    """
    if item.difference == 0 or num < MIN_PEOPLE:
        return None
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2) + scipy.stats.norm.ppf(POWER))
    return max(1, math.ceil(num * (z * item.error / item.difference) ** 2 - num))


def _row(
    name: str,
    item: Difference,
    decision: tuple[float, bool | None],
    units: Units,
    names: tuple[str, str],
    settings: Settings,
) -> dict[str, Any]:
    p, apart = decision
    more = 0 if apart else more_units(item, units.num, settings.confidence)
    row = {
        "figure": name, "one": item.one, "other": item.other, "difference": item.difference, "low": item.low,
        "high": item.high, "num_differing": item.num_differing, "p": item.p, "p_adjusted": p, "apart": apart,
        "beyond_these_people": bool(apart) and item.beyond_these_people, "more_units": more,
    }  # fmt: skip
    return row | {"sentence": _sentence(row, *names, units)}


def discordant(one: Scores, other: Scores, threshold_one: float, threshold_other: float) -> list[dict[str, Any]]:
    """Videos that the two decide differently about, those with the most different scores first.

    Rows of the scores with p_one, p_other and right ("one" or "other").
    """
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


def _sentence(row: dict[str, Any], one: str, other: str, units: Units) -> str:
    name, difference = FIGURES[row["figure"]], row["difference"]
    if not row["num_differing"]:
        return f"{name}: {one} and {other} decide alike on these {units.name}."
    scale, digits, unit = (1.0, 4, "") if row["figure"] == "auc" else (100.0, 2, " points")
    size = f"{abs(difference) * scale:.{digits}f}{unit}"
    text = f"{name}: {other} is {size} {'lower' if difference < 0 else 'higher'} than {one}"
    text += f" [{row['low'] * scale:+.{digits}f} to {row['high'] * scale:+.{digits}f}]"
    if row["apart"] is None:
        return f"{text}; outcomes differ for {row['num_differing']} of {units.num} {units.name}: too few to tell."
    p = f"p = {row['p_adjusted']:.3f}" if row["p_adjusted"] >= 0.001 else "p < 0.001"
    if row["beyond_these_people"]:
        return f"{text}; they differ, on other {units.name} of this kind too ({p})."
    if row["apart"]:
        return f"{text}; they decide differently on these {units.name} ({p}), which says little of others."
    text += f"; the data cannot tell them apart ({p})."
    if row["more_units"] is None:
        return text
    return (
        f"{text} To see a difference of this size in four of five studies takes about {row['more_units']:,} more "
        f"{units.name} (now {units.num})."
    )
