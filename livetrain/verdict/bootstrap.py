"""Figures under random weights of people: the Bayesian bootstrap, with one person more who was not seen.

Each draw gives every person an exponential weight of mean 1, and so the unseen person (see livetrain.verdict.unseen),
whose videos are all judged wrong where the figure is to be worst and all judged right where it is to be best. Videos of
one person are alike, so they share their person's weight. Where the person of a video is not known, the video stands
for itself. Combined figures (HTER, AUC, EER, operating points) have no closed form and take draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict.metrics import BPCER_AT_APCER, TPR_AT_FPR
from livetrain.verdict.scores import Scores
from livetrain.verdict.unseen import size_of_unseen

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CHUNK_CELLS = 1_000_000  # weights held at a time: several arrays of 8 MB, small enough for a core's cache level 3
APCER = "apcer "  # + attack type: the name of a type's APCER among the figures


@dataclass(frozen=True)
class Units:
    """What has a weight: people, or videos where the person is not known.

    codes: int [n], the unit of each video, 0 … num - 1. name: people, videos, or people and videos.
    """

    codes: NDArray[np.int64]
    num: int
    name: str


@dataclass(frozen=True)
class Tally:
    """Errors and videos of each unit, of one rate: int [num] each."""

    errors: Counts
    videos: Counts

    @property
    def num_units(self) -> int:
        """Units that have a video."""
        return int((self.videos > 0).sum())

    @property
    def rate(self) -> float:
        """Share of the videos that are errors."""
        return float(self.errors.sum() / self.videos.sum())


@dataclass(frozen=True)
class Weights:
    """A chunk of draws. people: float [r, num]; live, attack: float [r], of the unseen person of either class."""

    people: Floats
    live: Floats
    attack: Floats


@dataclass(frozen=True)
class Spread:
    """A figure in each draw, float [r]: without the unseen person, and with the one who makes it lowest or highest."""

    seen: Floats
    low: Floats
    high: Floats


Spreads = dict[str, Spread]


def units(subjects: Sequence[str] | NDArray[Any]) -> Units:
    """The units of videos from their subjects; "" is a video whose person is not known."""
    names = [str(name) for name in subjects]
    known = [bool(name) for name in names]
    keys = [("person", name) if name else ("video", str(number)) for number, name in enumerate(names)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    name = "people" if all(known) else "people and videos" if any(known) else "videos"
    return Units(np.array([numbers[key] for key in keys], dtype=np.int64), len(numbers), name)


def tallies(scored: Scores, of: Units, threshold: float) -> dict[str, Tally]:
    """Of the rates at the threshold that have a video: bpcer, apcer_pooled, "apcer TYPE" of each type in order."""
    accepted = scored.p_live >= threshold
    kinds = sorted({str(kind) for kind in scored.attack_type[~scored.live]})
    rows = {"bpcer": scored.live, "apcer_pooled": ~scored.live}
    rows |= {APCER + kind: ~scored.live & (scored.attack_type == kind) for kind in kinds}
    return {
        name: Tally(
            np.bincount(of.codes[which & (accepted != scored.live)], minlength=of.num),
            np.bincount(of.codes[which], minlength=of.num),
        )
        for name, which in rows.items()
        if which.any()
    }


def one_unseen(live: Tally, attack: Tally) -> bool:
    """Whether one unseen person stands for both classes: some person has videos of both. Else two people do."""
    return bool(((live.videos > 0) & (attack.videos > 0)).any())


def draws(num: int, count: int, seed: int, *, shared: bool, width: int) -> Iterator[Weights]:
    """`count` draws of the weights of `num` units, in chunks for arrays of `width` columns; equal for equal seeds.

    shared: the unseen person of both classes is one and has one weight.
    """
    random = np.random.Generator(np.random.Philox(seed))
    size = max(1, CHUNK_CELLS // max(1, width))
    for first in range(0, count, size):
        drawn = random.standard_exponential((min(size, count - first), num + 2))
        yield Weights(drawn[:, :-2], drawn[:, -2], drawn[:, -2 if shared else -1])


def at_threshold(of: Mapping[str, Tally], weights: Weights) -> Spreads:
    """The spreads of all rates, of apcer_max and of hter, where there are their videos."""
    found = {
        name: _rate(tally, weights.people, weights.live if name == "bpcer" else weights.attack)
        for name, tally in of.items()
    }
    types = [spread for name, spread in found.items() if name.startswith(APCER)]
    if types:
        found["apcer_max"] = Spread(*(np.max([getattr(one, end) for one in types], axis=0) for end in _ENDS))
    if "bpcer" in of and "apcer_pooled" in of:
        live, attack = found["bpcer"], found["apcer_pooled"]
        found["hter"] = Spread(*((getattr(live, end) + getattr(attack, end)) / 2 for end in _ENDS))
    return found


def joined(chunks: Sequence[Spreads]) -> Spreads:
    """The spreads of all draws from those of their chunks."""
    return {
        name: Spread(*(np.concatenate([getattr(chunk[name], end) for chunk in chunks]) for end in _ENDS))
        for name in chunks[0]
    }


_ENDS = ("seen", "low", "high")


def _rate(tally: Tally, people: Floats, unseen: Floats) -> Spread:
    errors, videos = people @ tally.errors, people @ tally.videos
    more = unseen * size_of_unseen(tally.videos)
    return Spread(errors / videos, errors / (videos + more), (errors + more) / (videos + more))


@dataclass(frozen=True)
class _Roc:
    """The ROC of a chunk of draws.

    live, attack: accepted at each point, [r, points]. pairs: of a live video and an attack in the right order, ties
    half, [r]. of_kind: accepted of each type by falling score, [r, videos + 1].
    """

    live: Floats
    attack: Floats
    pairs: Floats
    of_kind: dict[str, Floats]


class Ranking:
    """The figures that take no threshold, of scored videos of both classes, under any weights of their units.

    Figures: auc, eer, "bpcer_at_apcer X" and "tpr_at_fpr X" of each X that metrics gives. With weights of 1 the `seen`
    ones are those of livetrain.verdict.metrics.
    """

    def __init__(self, scored: Scores, of: Units) -> None:
        order = np.argsort(-scored.p_live, kind="stable")
        p_live, live, kinds = scored.p_live[order], scored.live[order], scored.attack_type[order]
        if np.isnan(p_live).any():
            raise ValueError("a score is NaN")
        self.codes, self.live, self.attack = of.codes[order], live, ~live
        names = sorted({str(kind) for kind in kinds[self.attack]})
        self.of_kind = {kind: np.flatnonzero(self.attack & (kinds == kind)) for kind in names}
        last = np.append(p_live[1:] != p_live[:-1], True)
        self.ends = np.flatnonzero(last)  # columns after which the score changes: where the ROC has a point
        self.block = np.cumsum(np.append(0, last[:-1])).astype(np.int64)

        def unseen(rows: NDArray[Any]) -> float:
            videos = np.bincount(self.codes[rows])
            return size_of_unseen(videos[videos > 0])

        self.size_live, self.size_attack = unseen(self.live), unseen(self.attack)
        self.size_of_kind = {kind: unseen(rows) for kind, rows in self.of_kind.items()}

    def seen(self, people: Floats, *, operating: bool = True) -> dict[str, Floats]:
        """Figures under weights [r, num] of the units, float [r] each.

        NaN where a class has no weight. operating: with the operating points.
        """
        nobody = np.zeros(len(people))
        weights = Weights(people, nobody, nobody)
        roc = self._roc(people, operating=operating)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self._figures(roc, weights, errs=False)
        nothing = (roc.live[:, -1] == 0) | (roc.attack[:, -1] == 0)
        return {name: np.where(nothing, np.nan, values) for name, values in found.items()}

    def __call__(self, weights: Weights, *, operating: bool = True) -> Spreads:
        """The spread of each figure."""
        nobody = np.zeros(len(weights.people))
        roc = self._roc(weights.people, operating=operating)
        seen = self._figures(roc, Weights(weights.people, nobody, nobody), errs=False)
        right, wrong = (self._figures(roc, weights, errs=errs) for errs in (False, True))
        found = {}
        for name, values in seen.items():
            falls = name.startswith(("auc", "tpr_at_fpr"))  # with errors
            low, high = (wrong, right) if falls else (right, wrong)
            found[name] = Spread(values, low[name], high[name])
        return found

    def _roc(self, people: Floats, *, operating: bool) -> _Roc:
        """What all figures of a chunk of draws are read from: the sums over videos, which take the time."""
        videos = people[:, self.codes]

        def accepted(which: NDArray[np.bool_]) -> Floats:
            counts = np.zeros((len(videos), len(self.ends) + 1))  # from refusing all on
            sums = np.cumsum(videos * which, axis=1)
            counts[:, 1:] = sums if len(self.ends) == sums.shape[1] else sums[:, self.ends]
            return counts

        live, attack = accepted(self.live), accepted(self.attack)
        steps = np.diff(attack, axis=1)
        pairs = (np.einsum("rp,rp->r", steps, live[:, :-1]) + np.einsum("rp,rp->r", steps, live[:, 1:])) / 2
        of_kind = {}
        for kind, columns in self.of_kind.items() if operating else ():
            of_kind[kind] = np.zeros((len(videos), len(columns) + 1))
            np.cumsum(videos[:, columns], axis=1, out=of_kind[kind][:, 1:])
        return _Roc(live, attack, pairs, of_kind)

    def _figures(self, roc: _Roc, weights: Weights, *, errs: bool) -> dict[str, Floats]:
        """With the unseen people's videos all wrong or all right: their scores are beyond all others.

        Operating points where the ROC has its types.
        """
        more_live, more_attack = weights.live * self.size_live, weights.attack * self.size_attack
        num_live, num_attack = roc.live[:, -1], roc.attack[:, -1]
        all_live, all_attack = num_live + more_live, num_attack + more_attack
        passed, refused = (more_attack, more_live) if errs else (0 * more_attack, 0 * more_live)
        rows = np.arange(len(num_live))
        pairs = roc.pairs if errs else roc.pairs + more_attack * num_live + more_live * all_attack

        def fpr(at: Counts) -> Floats:
            return (roc.attack[rows, at] + passed) / all_attack

        def fnr(at: Counts) -> Floats:
            return (num_live - roc.live[rows, at] + refused) / all_live

        # Cross-multiplied, so that equal whole counts are equal.
        def fpr_is_lower(at: Counts) -> NDArray[np.bool_]:
            falsely_accepted, falsely_refused = roc.attack[rows, at] + passed, num_live - roc.live[rows, at] + refused
            return falsely_accepted * all_live < falsely_refused * all_attack

        before = _last(fpr_is_lower, len(rows), roc.live.shape[1] - 1)
        gap0, gap1 = fnr(before) - fpr(before), fpr(before + 1) - fnr(before + 1)
        eer = fpr(before) + gap0 / (gap0 + gap1) * (fpr(before + 1) - fpr(before))
        figures = {"auc": pairs / (all_live * all_attack), "eer": eer}
        if not roc.of_kind:
            return figures
        for target in BPCER_AT_APCER:
            at, possible = self._most_blocks(roc.of_kind, weights.attack, errs, target)
            figures[f"bpcer_at_apcer {target:g}"] = np.where(possible, fnr(at), 1.0)
        for target in TPR_AT_FPR:
            at = _last(lambda at, target=target: fpr(at) <= target, len(rows), roc.live.shape[1])
            figures[f"tpr_at_fpr {target:g}"] = np.where(passed / all_attack <= target, 1 - fnr(at), 0.0)
        return figures

    def _most_blocks(
        self, of_kind: Mapping[str, Floats], unseen: Floats, errs: bool, target: float
    ) -> tuple[Counts, NDArray[np.bool_]]:
        """How many blocks of equal scores may be accepted with every APCER at most `target`.

        (number, whether any threshold has that), [r] each.
        """
        rows = np.arange(len(unseen))
        most, possible = np.full(len(rows), len(self.ends)), np.ones(len(rows), dtype=bool)
        for kind, accepted in of_kind.items():
            more = unseen * self.size_of_kind[kind]
            passed, total = more if errs else 0 * more, accepted[:, -1] + more
            total = np.where(total == 0, 1.0, total)

            def within(
                at: Counts, accepted: Floats = accepted, passed: Floats = passed, total: Floats = total
            ) -> NDArray[np.bool_]:
                return (accepted[rows, at] + passed) / total <= target

            limits = np.append(self.block[self.of_kind[kind]], len(self.ends))
            most = np.minimum(most, limits[_last(within, len(rows), accepted.shape[1])])
            possible &= passed / total <= target
        return most, possible


def _last(holds: Any, num: int, columns: int) -> Counts:
    """The last of `columns` columns at which `holds` is true, by bisection; int [num].

    holds: columns int [num] → bool [num]; true up to one, then false. It is assumed to hold in the first column.
    """
    low, high = np.zeros(num, dtype=np.int64), np.full(num, columns, dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        good = holds(np.minimum(middle, columns - 1))
        low, high = np.where(good, middle, low), np.where(good, high, np.maximum(middle, low + 1))
    return low
