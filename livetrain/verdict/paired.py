"""Two sets of scores of the same videos: do they differ, and by how much.

Significance is a permutation test over people: under the null hypothesis the two runs are exchangeable for each person.
p is the share of all such exchanges whose difference is at least as large as the observed one. For rates and HTER the
difference is a sum over people, and an exchange flips a sign; for the largest APCER a person's decisions are exchanged;
for AUC and EER the sign of each person's contribution flips. The test is exact where the sum is of integers or people
are few, else it uses random exchanges, which include the observed one. With k people whose outcomes differ, p is at
least 2^(1 - k). The test is about these people: whether the runs decide differently on them.

The interval of the difference is about unseen people: it adds a person for whom one run always errs and the other never
does. Where the test is significant, the end nearer to 0 comes from the differences that the test does not reject.
benchmarks/intervals.md has simulations of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from livetrain.verdict import bootstrap, metrics
from livetrain.verdict.bootstrap import APCER, Ranking, Spread, Tally, Units
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import Scores
from livetrain.verdict.unseen import ratio_interval

Floats = NDArray[np.float64]

MAX_LATTICE = 2**21  # sums of whole numbers that are counted one by one
NUM_FLIPS = 2**13  # drawn, where people are too many for all of them


@dataclass(frozen=True)
class Difference:
    """A figure of two runs, other - one.

    low, high: interval of the difference for people not seen; uncut: before the flips moved an end. error: standard
    error over people. p: of the sign flips. num_differing: people whose outcomes differ.
    """

    one: float
    other: float
    low: float
    high: float
    uncut: tuple[float, float]
    error: float
    p: float
    num_differing: int

    @property
    def difference(self) -> float:
        """Other - one."""
        return self.other - self.one

    @property
    def beyond_these_people(self) -> bool:
        """Whether the data tell the figures apart for people not seen."""
        return not self.uncut[0] <= 0 <= self.uncut[1]


def of_differences(
    one: Scores, other: Scores, thresholds: tuple[float, float], figures: Iterable[str], settings: Settings
) -> dict[str, Difference]:
    """Figure → its difference, of two sets of scores of the same videos in the same order, all of them scored.

    Figures that do not exist for these videos are left out.
    """
    both = (one, other)
    units = bootstrap.units(one.subject)
    tallies = tuple(bootstrap.tallies(s, units, t) for s, t in zip(both, thresholds, strict=True))
    ranked = bool(set(figures := list(figures)) & {"auc", "eer"}) and one.live.any() and not one.live.all()
    rankings = tuple(Ranking(s, units) for s in both) if ranked else None
    spreads = _spreads(tallies, rankings, units, len(one), settings)
    found = {}
    for name in figures:
        if name not in spreads[0]:
            continue
        values = _value(name, tallies[0], one), _value(name, tallies[1], other)
        first, second = spreads[0][name], spreads[1][name]
        tail = settings.tail
        low = float(np.quantile(second.low - first.high, tail))
        high = float(np.quantile(second.high - first.low, 1 - tail))
        p, num_differing = _flipped(name, tallies, both, units)
        parts = _parts(name, tallies)
        if parts is not None and name != "hter":
            some = parts[1] > 0
            low, high = ratio_interval(parts[0][some], parts[1][some], settings.confidence, unseen=(-1.0, 1.0))
        difference = values[1] - values[0]
        uncut = min(low, difference), max(high, difference)
        ends = uncut
        if parts is not None and p <= 2 * tail:
            ends = _cut(*parts, uncut, tail, settings.seed)
        error = float(np.std(second.seen - first.seen))
        found[name] = Difference(*values, *ends, uncut, error, p, num_differing)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, Scandinavian Journal of Statistics 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, least = [0.0] * len(order), 0.0
    for rank, place in enumerate(order.tolist()):
        least = max(least, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def people_needed(num_figures: int, confidence: float) -> int:
    """The fewest people whose outcomes must differ to tell one of so many figures apart.

    2^(1 - k) is the least p-value of k people. 6 for one figure at 95 %, 7 for two, 8 for five.
    """
    return math.ceil(1 + math.log2(num_figures / (1 - confidence)) - 1e-9)


def apart(differences: Sequence[Difference], confidence: float) -> list[tuple[float, bool | None]]:
    """(Holm's p, whether the runs decide differently) of all figures shown together.

    None where the outcomes of too few people differ.
    """
    needed = people_needed(max(1, len(differences)), confidence)
    return [
        (p, p <= 1 - confidence if one.num_differing >= needed else None if one.num_differing else False)
        for one, p in zip(differences, holm([one.p for one in differences]), strict=True)
    ]


def sign_flip_p(values: NDArray[np.int64]) -> float:
    """Two-sided p-value of integer differences, one a person.

    The share of all sign patterns whose sum is at least as far from 0. Exact where the sums are fewer than MAX_LATTICE,
    else over drawn patterns.
    """
    d = np.abs(values[values != 0])
    if not len(d):
        return 1.0
    observed = abs(int(values.sum()))
    divisor = int(np.gcd.reduce(d))
    total = int(d.sum()) // divisor
    if total > MAX_LATTICE:
        kept = values[values != 0].astype(np.float64)
        return _share(lambda signs: np.abs(signs @ kept), len(kept), NUM_FLIPS)
    chance = np.ones(1)  # of the sum of what has a plus
    for size, count in zip(*np.unique(d // divisor, return_counts=True), strict=True):
        part = np.zeros(int(size * count) + 1)
        part[::size] = scipy.stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chance = scipy.signal.convolve(chance, part)
    sums = np.abs(2 * np.arange(total + 1) - total) * divisor
    return float(np.clip(chance[sums >= observed].sum(), 0.5 ** (len(d) - 1), 1.0))


def _value(name: str, tallies: Mapping[str, Tally], scores: Scores) -> float:
    if name in tallies:
        return tallies[name].rate
    if name == "apcer_max":
        return max(tally.rate for kind, tally in tallies.items() if kind.startswith(APCER))
    if name == "hter":
        return (tallies["bpcer"].rate + tallies["apcer_pooled"].rate) / 2
    return float((metrics.auc if name == "auc" else metrics.eer)(scores.live, scores.p_live))


def _spreads(
    tallies: Sequence[Mapping[str, Tally]],
    rankings: Sequence[Ranking] | None,
    units: Units,
    num_videos: int,
    settings: Settings,
) -> list[dict[str, Spread]]:
    """Of either set of scores in the same draws, so that what is hard for both cancels out."""
    classes = tallies[0].get("bpcer"), tallies[0].get("apcer_pooled")
    shared = classes[0] is None or classes[1] is None or bootstrap.one_unseen(classes[0], classes[1])
    chunks: list[list[dict[str, Spread]]] = [[], []]
    width = max(units.num, num_videos if rankings else 0)
    for weights in bootstrap.draws(units.num, settings.draws, settings.seed, shared=shared, width=width):
        for side in (0, 1):
            found = bootstrap.at_threshold(tallies[side], weights)
            chunks[side].append(found | (rankings[side](weights, operating=False) if rankings else {}))
    return [bootstrap.joined(side) for side in chunks]


def _parts(name: str, tallies: Sequence[Mapping[str, Tally]]) -> tuple[Floats, Floats] | None:
    """(sums, sizes) of each unit, the difference being sum(sums) / sum(sizes); None where it is not such a ratio."""
    if name in tallies[0]:
        return _changes(name, tallies).astype(np.float64), tallies[0][name].videos.astype(np.float64)
    if name != "hter":
        return None
    sums, sizes = np.zeros(len(tallies[0]["bpcer"].videos)), np.zeros(len(tallies[0]["bpcer"].videos))
    for part in ("bpcer", "apcer_pooled"):
        videos = tallies[0][part].videos
        sums += _changes(part, tallies) / videos.sum()
        sizes += videos / videos.sum()
    return sums, sizes


def _changes(name: str, tallies: Sequence[Mapping[str, Tally]]) -> NDArray[np.int64]:
    return tallies[1][name].errors - tallies[0][name].errors


def _flipped(
    name: str, tallies: Sequence[Mapping[str, Tally]], both: tuple[Scores, Scores], units: Units
) -> tuple[float, int]:
    """(p of the sign flips, how many units' outcomes differ)."""
    one, other = tallies
    if name in one:
        changes = _changes(name, tallies)
        return sign_flip_p(changes), int((changes != 0).sum())
    if name == "hter":
        live, attack = (_changes(part, tallies) for part in ("bpcer", "apcer_pooled"))
        changes = live * one["apcer_pooled"].videos.sum() + attack * one["bpcer"].videos.sum()
        return sign_flip_p(changes), int((changes != 0).sum())
    if name == "apcer_max":
        return _swapped_decisions(one, other)
    return _flipped_parts(name, both, units)


def _swapped_decisions(one: Mapping[str, Tally], other: Mapping[str, Tally]) -> tuple[float, int]:
    """Of the largest APCER: whoever is swapped has their errors of every type swapped."""
    kinds = [kind for kind in one if kind.startswith(APCER)]
    changes = np.stack([other[kind].errors - one[kind].errors for kind in kinds])
    some = (changes != 0).any(axis=0)
    videos = np.array([one[kind].videos.sum() for kind in kinds])
    middle = np.array([(one[kind].errors.sum() + other[kind].errors.sum()) / 2 for kind in kinds])

    def statistic(signs: Floats) -> Floats:
        half = signs @ changes[:, some].T / 2
        return np.abs(((middle + half) / videos).max(axis=1) - ((middle - half) / videos).max(axis=1))

    return _share(statistic, int(some.sum()), NUM_FLIPS), int(some.sum())


def _flipped_parts(name: str, both: tuple[Scores, Scores], units: Units) -> tuple[float, int]:
    """Of AUC and EER, which are no sums over people: each person's part in the difference changes its sign.

    Of the AUC it is that of first order; of the EER, that in the HTER at the threshold where FPR and FNR are closest.
    Scores of two runs are on two scales, so no score of one is compared with one of the other.
    """
    live = both[0].live
    size = np.where(live, 1 / live.sum(), 1 / (~live).sum())
    parts_of = _placements if name == "auc" else _errors_at_eer
    one, other = (parts_of(live, item.p_live) for item in both)
    changes = (other - one) * size
    differing = np.zeros(units.num, np.bool_)
    differing[units.codes[changes != 0]] = True
    if name == "eer":
        changes /= 2
    elif differing.any():
        # Either class alone sums to the difference, so both to twice of it: once is taken off, shared by those who
        # differ. Left is each one's part in how far the difference is from none.
        size = size * differing[units.codes]
        changes -= size * (changes.sum() / 2 / size.sum())
    parts = np.bincount(units.codes, weights=changes, minlength=units.num)[differing]
    return _share(lambda signs: np.abs(signs @ parts), len(parts), NUM_FLIPS), len(parts)


def _errors_at_eer(live: NDArray[np.bool_], p_live: Floats) -> Floats:
    """Whether each video is decided wrongly at the threshold whose FPR and FNR are closest; float [n]."""
    accepted = p_live >= metrics.eer_threshold(live, p_live)
    return (accepted != live).astype(np.float64)


def _placements(live: NDArray[np.bool_], p_live: Floats) -> Floats:
    """For each live video the share of attacks below it, and the other way round.

    Float [n]; for each attack the share of live videos above it; ties count half. The mean over either class is the AUC
    (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).
    """
    among_all = scipy.stats.rankdata(p_live)
    found = np.empty(len(p_live))
    found[live] = (among_all[live] - scipy.stats.rankdata(p_live[live])) / (~live).sum()
    found[~live] = 1 - (among_all[~live] - scipy.stats.rankdata(p_live[~live])) / live.sum()
    return found


def _share(statistic: Callable[[Floats], Floats], num: int, most: int) -> float:
    """The share of patterns of `num` signs whose statistic is not below that of the pattern seen, all plus."""
    if not num:
        return 1.0
    seen = float(statistic(np.ones((1, num)))[0]) * (1 - 1e-9) - 1e-12  # sums of fractions that are equal on paper
    hits = total = 0
    for signs in patterns(num, most):
        hits += int((statistic(signs) >= seen).sum())
        total += len(signs)
    return hits / total


def patterns(num: int, most: int, *, seed: int = 0) -> Iterable[Floats]:
    """Chunks of sign patterns, +1 and -1, [r, num].

    All patterns where there are at most `most`, else that many random ones, with the all-plus pattern among them.
    """
    chunk = max(1, bootstrap.CHUNK_CELLS // max(num, 1))
    if num < 31 and 2**num <= most:
        for first in range(0, 2**num, chunk):
            numbers = np.arange(first, min(first + chunk, 2**num))
            yield np.where((numbers[:, None] >> np.arange(num)) & 1, -1.0, 1.0)
        return
    random = np.random.Generator(np.random.Philox(seed))
    yield np.ones((1, num))
    for first in range(1, most, chunk):
        yield np.where(random.integers(0, 2, (min(chunk, most - first), num)) == 1, 1.0, -1.0)


def _cut(sums: Floats, sizes: Floats, uncut: tuple[float, float], tail: float, seed: int) -> tuple[float, float]:
    """The interval with its end nearer 0 moved to where the flips reject no more, if that is nearer the difference."""
    some = sizes > 0
    x, m = sums[some] / sizes.sum(), sizes[some] / sizes.sum()
    chunks = [(signs @ x, signs @ m) for signs in patterns(len(x), NUM_FLIPS, seed=seed)]
    flipped_x, flipped_m = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    difference = float(x.sum())

    def kept(at: float) -> float:
        statistic = np.abs(flipped_x - at * flipped_m)
        return float((statistic >= abs(difference - at) - 1e-12).mean()) - 2 * tail

    if kept(0.0) > 0:
        return uncut  # drawn flips, at the very edge of significance
    near = float(scipy.optimize.bisect(kept, 0.0, difference, xtol=1e-9)) if difference else 0.0
    return (max(uncut[0], near), uncut[1]) if difference > 0 else (uncut[0], min(uncut[1], near))
