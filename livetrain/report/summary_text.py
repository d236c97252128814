"""The verdict in words: the sentence a report begins with, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core import display_names
from livetrain.verdict.scores import Scores

FEW_PEOPLE = 20


def sentence(verdict: Mapping[str, Any], test: Scores) -> str:
    """What the frozen threshold does on test, with the verdict's intervals."""
    accepted = test.p_live >= verdict["threshold"]
    by_type = verdict["test"]["apcer"]
    intervals = verdict["test"].get("intervals") or {}
    confidence = verdict.get("intervals", {}).get("confidence", 0.95)
    parts = []
    if by_type:
        kind = max(by_type, key=lambda name: by_type[name])
        chosen = test.scored & ~test.live & (test.attack_type == kind)
        found = in_words(accepted[chosen], intervals.get("apcer", {}).get(kind), confidence)
        name = display_names.shown(kind)
        kinds = f"of {len(by_type)} attack types, {name} is accepted most often: " if len(by_type) > 1 else f"{name}: "
        parts.append(f"{kinds}{found} of its presentations pass for live (APCER)")
    live = test.scored & test.live
    if live.any():
        found = in_words(~accepted[live], intervals.get("bpcer"), confidence)
        parts.append(f"{found} of live presentations are refused (BPCER)")
    if not parts:
        return "No clip of the test split has a score: there is no verdict."
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def in_words(errors: NDArray[np.bool_], interval: Mapping[str, Any] | None, confidence: float) -> str:
    """A rate with its interval, "2.5 % (1 of 40; 95 % interval 0.1 to 13.2 %)"; older verdicts have some without."""
    counted = f"{int(errors.sum())} of {len(errors)}"
    if interval is None:
        return f"{100 * errors.mean():.1f} % ({counted}; no interval)"
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * errors.mean():.1f} % ({counted}; {100 * confidence:g} % interval {low:.1f} to {high:.1f} %)"


def notices(verdict: Mapping[str, Any], test: Scores) -> list[tuple[str, str]]:
    """(what, why it matters), gravest first.

    Leaks (livetrain.data.leaks), unknown people, few people of a class or of an attack type, failures to acquire.
    """
    found = [(text, "") for text in verdict.get("notices", [])]
    groups = _people_by_kind(test)
    unknown = [kind for kind, people in groups.items() if "" in people]
    if unknown:
        known = any(people - {""} for people in groups.values())
        kinds = " and ".join(map(display_names.shown, unknown))
        whose = f"For {kinds} not every person is known." if known else "No person is known."
        found.append(
            (
                whose,
                "The labels do not name the people of these videos, so the same person may be in train and test, the "
                "figures may be better than the truth, and their intervals too narrow.",
            )
        )
    few = {kind: len(people) for kind, people in groups.items() if "" not in people and len(people) < FEW_PEOPLE}
    if few:
        counted = ", ".join(
            f"{count} {'person' if count == 1 else 'people'} for {display_names.shown(kind)}"
            for kind, count in few.items()
        )
        found.append(
            (
                f"The test split has only {counted}.",
                "What holds for so few need not hold for others: read the intervals, not the rates.",
            )
        )
    failed = verdict["test"]["failure_to_acquire"]
    if failed["num"]:
        found.append(
            (
                f"{failed['num']} of {verdict['test']['num_clips']} videos of the test split gave no score.",
                "They are excluded from the rates, as ISO/IEC 30107-3 requires; a system rejects such presentations.",
            )
        )
    return found


def _people_by_kind(test: Scores) -> dict[str, set[str]]:
    """The groups of live videos and of each attack type, of those with a score; without empty classes."""
    live, scored = test.live, test.scored
    kinds = sorted({str(kind) for kind in test.attack_type[~live & scored]})
    rows = {"live": live & scored} | {kind: ~live & scored & (test.attack_type == kind) for kind in kinds}
    return {kind: set(test.subject[which].tolist()) for kind, which in rows.items() if which.any()}
