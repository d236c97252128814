"""People under two names: faces that a face network takes for one person, with how likely that is. Never certain.

The network is dlib's (128 numbers a face). Whoever is known by name is compared by the mean over their clips; a clip
whose person is not known stands for itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.core.disjoint_sets import DisjointSets
from shards.audit import neighbours
from shards.audit.clips import Clips

# log-odds that two faces, each a mean over m clips or more, are one person's, at even odds before: SLOPE * (middle -
# distance), middle = FAR_OFF + SPREAD / m: the more clips, the less a mean deviates. Fitted to NUAA (11 people; live
# and printed clips of one person too): middles 0.448, 0.406, 0.372, 0.358, 0.348, 0.328 at 1, 2, 3, 5, 10 and 20 clips,
# slopes of 70 and more. Less here, since eleven people are few.
FAR_OFF, SPREAD, SLOPE = 0.33, 0.118, 60.0
LIKELY = 0.5
MERGED = 0.9  # from which on two names are joined: a wrong join only makes a data set look smaller
MOST = 0.99  # nothing is more likely
COUNT = 20  # nearest that are asked for
# When the network cannot separate the faces of a data set: of all pairs of people more than MAX_SHARE may be one, or
# more than MAX_JOINED of the people and nameless clips would be joined into one person.
MAX_SHARE, MIN_PAIRS = 0.25, 10
MAX_JOINED, MIN_UNITS = 0.5, 10
INSEPARABLE = "for one person: it cannot separate the faces of these data"


@dataclass(frozen=True)
class SamePerson:
    """Two who may be one: people by name ("domain/subject"), or clips without a name ("" and the row).

    first, second: rows of their two most alike clips.
    """

    first: int
    second: int
    first_name: str
    second_name: str
    distance: float
    likelihood: float


@dataclass(frozen=True)
class Alike:
    """Candidates, the most likely first, and why there are none where that could not be found out."""

    pairs: tuple[SamePerson, ...] = ()
    reason: str = ""


def likelihood(distance: float, num_clips: int) -> float:
    """That two faces so far apart, each a mean over `num_clips` or more, are one person's, at even odds before."""
    odds = SLOPE * (FAR_OFF + SPREAD / num_clips - distance)
    return float(min(1 / (1 + np.exp(-np.clip(odds, -30, 30))), MOST))


def alike(clips: Clips, identities: NDArray[np.floating]) -> Alike:
    """Who may be one person. identities: [n, 128], NaN where no face was found."""
    known = np.flatnonzero(~np.isnan(identities[:, 0]))
    if not len(known):
        return Alike(reason="no face was found")
    people = clips.people
    names = [people[row] or f"\0{row}" for row in known]
    units = {name: number for number, name in enumerate(dict.fromkeys(names))}
    codes = np.array([units[name] for name in names], np.int64)
    sums, sizes = np.zeros((len(units), identities.shape[1])), np.bincount(codes)
    np.add.at(sums, codes, identities[known])
    means = (sums / sizes[:, None]).astype(np.float32)
    rows_of: list[list[int]] = [[] for _ in units]
    for row, code in zip(known.tolist(), codes.tolist(), strict=True):
        rows_of[code].append(row)
    own = np.arange(len(units))
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for unit, others, squares in neighbours.nearest(neighbours.index_of(means), own, means, own, COUNT):
        for other, square in zip(others.tolist(), squares.tolist(), strict=True):
            distance = float(np.sqrt(max(square, 0.0)))
            likely = likelihood(distance, int(min(sizes[unit], sizes[other])))
            if likely >= LIKELY:
                found[min(unit, other), max(unit, other)] = distance, likely
    named = {number for number, name in enumerate(units) if not name.startswith("\0")}
    pairs_of_named = len(named) * (len(named) - 1) // 2
    alike_named = sum(first in named and second in named for first, second in found)
    if pairs_of_named >= MIN_PAIRS and alike_named > MAX_SHARE * min(pairs_of_named, len(named) * COUNT):
        return Alike(
            reason=f"the face network takes {alike_named:,} of {pairs_of_named:,} pairs of people {INSEPARABLE}"
        )
    same: DisjointSets[int] = DisjointSets()
    for (first, second), (_, likely) in found.items():
        if likely >= MERGED:
            same.join(first, second)
    largest = max(Counter(same.root(unit) for unit in range(len(units))).values())
    if len(units) >= MIN_UNITS and largest > MAX_JOINED * len(units):
        return Alike(reason=f"the face network takes {largest:,} of {len(units):,} people and clips {INSEPARABLE}")
    found_pairs = []
    for (first, second), (distance, likely) in found.items():
        one, other = _most_alike(identities, rows_of[first], rows_of[second])
        found_pairs.append(SamePerson(one, other, people[one], people[other], distance, likely))
    return Alike(tuple(sorted(found_pairs, key=lambda pair: (-pair.likelihood, pair.distance, pair.first))))


def _most_alike(identities: NDArray[np.floating], first: list[int], second: list[int]) -> tuple[int, int]:
    some, others = identities[first[:50]], identities[second[:50]]
    distances = ((some[:, None] - others[None]) ** 2).sum(-1)
    one, other = np.unravel_index(int(distances.argmin()), distances.shape)
    pair = sorted((first[int(one)], second[int(other)]))
    return pair[0], pair[1]
