"""What an audit has found, in the order in which it matters: conflicts, copies across splits, people, shortcuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.audit import copies as copying
from shards.audit import probes as probing
from shards.audit.clips import Clips
from shards.audit.copies import Copy
from shards.audit.people import Alike, SamePerson
from shards.audit.probes import Probe

UNKNOWN_ATTACK = "attack"  # shards.labels: an attack whose type nobody has stated
CONFLICT, ACROSS_SPLITS, ACROSS_FOLDERS = "label conflict", "across splits", "across data sets"
WITHIN = "within a split"
WHERE = (CONFLICT, ACROSS_SPLITS, ACROSS_FOLDERS, WITHIN)


@dataclass(frozen=True)
class Findings:
    """Of the clips. copies: pairs, the gravest first. outliers: kind → rows. notices: what could not be looked at."""

    clips: Clips
    copies: Sequence[Copy]
    num_compared: int
    same_person: Alike
    probes: Sequence[Probe]
    outliers: dict[str, list[int]]
    face_heights: np.ndarray[Any, np.dtype[np.float64]]
    notices: Sequence[str]

    @property
    def conflicts(self) -> list[Copy]:
        """Copies of which a person must say what they are."""
        return [pair for pair in self.copies if where(self.clips, pair) == CONFLICT]

    @property
    def across(self) -> list[SamePerson]:
        """Those who may be one person and are in different splits, or in different data sets."""
        return [pair for pair in self.same_person.pairs if splits(self.clips, pair.first, pair.second)]

    @property
    def flagged(self) -> list[Probe]:
        """Cues that tell the classes apart."""
        return [probe for probe in self.probes if probe.flagged]


def where(clips: Clips, pair: Copy) -> str:
    """One of WHERE: what makes a pair of copies matter most."""
    if contradict(clips, pair.first, pair.second):
        return CONFLICT
    if clips.folder[pair.first] != clips.folder[pair.second]:
        return ACROSS_FOLDERS
    return ACROSS_SPLITS if splits(clips, pair.first, pair.second) else WITHIN


def contradict(clips: Clips, first: int, second: int) -> bool:
    """Whether the labels of two copies differ: live and attack, or two attack types that were stated."""
    if not (clips.labelled[first] and clips.labelled[second]):
        return False
    one, other = clips.kinds[first], clips.kinds[second]
    return bool(one != other and (clips.live[first] != clips.live[second] or UNKNOWN_ATTACK not in (one, other)))


def splits(clips: Clips, first: int, second: int) -> bool:
    """Whether two clips are in different splits or data sets."""
    words = clips.words["split"]
    return bool(clips.folder[first] != clips.folder[second] or words[first] != words[second])


def ordered(clips: Clips, pairs: Sequence[Copy]) -> list[Copy]:
    """Pairs of copies, the gravest first."""
    return sorted(pairs, key=lambda pair: (WHERE.index(where(clips, pair)), pair.kind != copying.EXACT, pair.first))


def counts(findings: Findings) -> list[tuple[str, int, int]]:
    """(one of WHERE, pairs of one file, pairs of one recording)."""
    number = Counter((where(findings.clips, pair), pair.kind) for pair in findings.copies)
    return [(name, number[name, copying.EXACT], number[name, copying.NEAR]) for name in WHERE]


def _pairs(number: int) -> str:
    return f"{number:,} pair{'' if number == 1 else 's'}"


def summary(findings: Findings) -> list[str]:
    """The audit in a few lines, the gravest first, for a terminal and the head of the page."""
    groups = copying.groups(findings.copies)
    lines = []
    if findings.conflicts:
        lines.append(f"{_pairs(len(findings.conflicts))} of copies with labels that contradict each other")
    number = sum(where(findings.clips, pair) in (ACROSS_SPLITS, ACROSS_FOLDERS) for pair in findings.copies)
    if number:
        lines.append(f"{_pairs(number)} of copies in different splits or data sets: test is not unseen")
    if groups:
        spare = sum(len(rows) - 1 for rows in groups)
        lines.append(f"{spare:,} clips are copies of others ({len(groups):,} groups of {spare + len(groups):,} clips)")
    else:
        lines.append("no clip is a copy of another")
    alike = findings.same_person
    if alike.reason:
        lines.append(f"same person under two names: not measurable, {alike.reason}")
    elif alike.pairs:
        lines.append(
            f"{len(alike.pairs):,} pairs may be one person under two names, {len(findings.across):,} of them in "
            "different splits or data sets"
        )
    else:
        lines.append("nobody looks like the same person under two names")
    named = ", ".join(f"{probe.cue} (AUC {probe.auc:.2f})" for probe in findings.flagged)
    along = [probe.cue for probe in findings.probes if probe.goes_with]
    named += f"; {', '.join(along)} with {findings.flagged[0].cue}" if along else ""
    lines.append(f"shortcuts: {named}" if named else f"shortcuts: none of {len(probing.MEANING)} cues")
    number = len({row for rows in findings.outliers.values() for row in rows})
    lines.append(f"{number:,} clips are outliers" if number else "no clip is an outlier")
    return [*lines, *findings.notices]
