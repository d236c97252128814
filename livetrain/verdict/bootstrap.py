"""The bootstrap of error rates over people and their videos, without a loop over replicates.

A replicate is a row of weights: how often each video was drawn. Weighted rates of many rows at once are sums and
cumulative sums over videos sorted by score, so 2,000 replicates of 10,000 videos take a few seconds on one core.

Videos of one person are alike: an interval that draws videos alone is too narrow. So people are drawn with replacement,
each with all of their videos. Drawing again among the videos of a drawn person counts their spread twice (Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8): with 30 people, intervals of 95 % then covered 97
to 99 % in simulations. It can be asked for. Where the person of a video is not known, the video stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict.metrics import BPCER_AT_APCER, TPR_AT_FPR
from livetrain.verdict.scores import Scores

Weights = NDArray[np.float64]
Figures = dict[str, NDArray[np.float64]]

CHUNK_CELLS = 1_000_000  # weights held at a time: several arrays of 8 MB, small enough for a core's cache level 3
APCER = "apcer "  # + attack type: the name of a type's APCER among the figures


@dataclass(frozen=True)
class Units:
    """What is drawn: people, or videos where the person is not known.

    codes: int [n], the unit of each video, 0 … num - 1. name: people, videos, or people and videos.
    """

    codes: NDArray[np.int64]
    num: int
    name: str


def units(group: Sequence[str] | NDArray[Any]) -> Units:
    """The units of videos from their groups; "" is a video whose person is not known."""
    names = [str(name) for name in group]
    known = [bool(name) for name in names]
    keys = [("person", name) if name else ("video", str(number)) for number, name in enumerate(names)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    name = "people" if all(known) else "people and videos" if any(known) else "videos"
    return Units(np.array([numbers[key] for key in keys], dtype=np.int64), len(numbers), name)


def merged(scored: Scores, of: Units, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Videos of one unit, class and type on one side of the threshold are one to the rates there: (a row of each such
    kind, int [k]; how many videos are of it, int [k]). A million videos of a thousand people become a few thousand."""
    kinds = np.unique(scored.attack_type, return_inverse=True)[1]
    sides = 4 * kinds + 2 * scored.live + (scored.p_live >= threshold)
    _, first, counts = np.unique(of.codes * (sides.max() + 1) + sides, return_index=True, return_counts=True)
    order = np.argsort(first)  # as they came: by score
    return first[order], counts[order]


def draws(of: Units, replicates: int, seed: int, *, then_videos: bool = False) -> Iterator[Weights]:
    """Weights of `replicates` draws in chunks [r, n]: as many units as there are, with replacement, each with all of
    its videos; with `then_videos`, with as many draws among them. The same seed gives the same draws."""
    random = np.random.Generator(np.random.Philox(seed))
    order = np.argsort(of.codes, kind="stable")
    sizes = np.bincount(of.codes, minlength=of.num)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    n = len(of.codes)
    for rows in _chunks(replicates, n):
        drawn = random.integers(of.num, size=(rows, of.num))
        if not then_videos:
            cells = drawn + np.arange(rows)[:, None] * of.num
            times = np.bincount(cells.ravel(), minlength=rows * of.num).reshape(rows, of.num)
            yield times[:, of.codes].astype(np.float64)
            continue
        replicate = np.repeat(np.arange(rows), sizes[drawn].sum(axis=1))
        unit = np.repeat(drawn.ravel(), sizes[drawn].ravel())
        video = order[starts[unit] + (random.random(len(unit)) * sizes[unit]).astype(np.int64)]
        yield np.bincount(replicate * n + video, minlength=rows * n).reshape(rows, n).astype(np.float64)


def without_each(of: Units, most: int = 200) -> Iterator[Weights]:
    """Weights of the jackknife in chunks [r, n]: each unit left out once; with more units than `most`, that many blocks
    of units."""
    blocks = of.codes * min(of.num, most) // of.num
    count = min(of.num, most)
    first = 0
    for rows in _chunks(count, len(of.codes)):
        yield (blocks[None, :] != np.arange(first, first + rows)[:, None]).astype(np.float64)
        first += rows


class WeightedRates:
    """The rates of the scored videos of `scores` at `threshold`, for any weights of them.

    Calling it with weights float [r, n], n the number of scored videos, gives each figure as float [r], NaN where the
    weights leave out a class that it needs. With all weights 1 the figures are those of livetrain.verdict.metrics.
    Figures: bpcer, apcer_pooled, apcer_max, hter, "apcer TYPE" of each type; with `ranking`, also auc, eer,
    "bpcer_at_apcer X" and "tpr_at_fpr X" of each X that metrics gives. counts: without `ranking`, how many videos each
    of `scores`, all of them scored, stands for (see `merged`).
    """

    def __init__(
        self, scores: Scores, threshold: float, *, ranking: bool = True, counts: NDArray[np.int64] | None = None
    ) -> None:
        if counts is not None and ranking:
            raise ValueError("a ranking is of videos, not of merged ones")
        scored = scores.scored
        p_live, live, kinds = scores.p_live[scored], scores.live[scored], scores.attack_type[scored]
        if np.isnan(p_live).any():
            raise ValueError("a score is NaN")
        self.ranking = ranking
        self.order = np.argsort(-p_live, kind="stable")
        self.in_order = bool((np.diff(self.order) == 1).all())  # then the weights need no reordering, which takes time
        p_live, self.live, kinds = p_live[self.order], live[self.order], kinds[self.order]
        self.counts = np.ones(len(p_live)) if counts is None else counts[self.order].astype(np.float64)
        self.attack = ~self.live
        self.accepted = p_live >= threshold
        self.kinds = sorted({str(kind) for kind in kinds[self.attack]})
        self.of_kind = {kind: np.flatnonzero(self.attack & (kinds == kind)) for kind in self.kinds}
        last = np.append(p_live[1:] != p_live[:-1], True) if len(p_live) else np.empty(0, bool)
        self.ends = np.flatnonzero(last)  # columns after which the score changes: where the ROC has a point
        self.block = np.cumsum(np.append(0, last[:-1])).astype(np.int64) if len(last) else np.empty(0, np.int64)

    def __call__(self, weights: Weights) -> Figures:
        weights = weights if self.in_order else weights[:, self.order]
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._at_threshold(weights) | (self._ranking(weights) if self.ranking else {})

    def _at_threshold(self, weights: Weights) -> Figures:
        accepted = self.accepted.astype(np.float64)
        live, attack = self.live * self.counts, self.attack * self.counts
        bpcer = weights @ (live * (1 - accepted)) / (weights @ live)
        pooled = weights @ (attack * accepted) / (weights @ attack)
        figures = {"bpcer": bpcer, "apcer_pooled": pooled, "hter": (bpcer + pooled) / 2}
        worst = np.full(len(weights), np.nan)
        for kind, columns in self.of_kind.items():
            own, counts = weights[:, columns], self.counts[columns]
            figures[APCER + kind] = own @ (counts * accepted[columns]) / (own @ counts)
            worst = np.fmax(worst, figures[APCER + kind])
        return figures | {"apcer_max": worst}

    def _ranking(self, weights: Weights) -> Figures:
        names = ["auc", "eer", *(f"bpcer_at_apcer {x:g}" for x in BPCER_AT_APCER)]
        names += [f"tpr_at_fpr {x:g}" for x in TPR_AT_FPR]
        if not self.live.any() or not self.attack.any():
            return {name: np.full(len(weights), np.nan) for name in names}
        # Counts accepted at each point of the ROC, from refusing all (0) on: [r, points].
        live, attack = self._counts(weights, self.live), self._counts(weights, self.attack)
        num_live, num_attack = live[:, -1], attack[:, -1]
        missing = (num_live == 0) | (num_attack == 0)
        steps = np.diff(attack, axis=1)
        area = np.einsum("rp,rp->r", steps, live[:, :-1]) + np.einsum("rp,rp->r", steps, live[:, 1:])
        figures = {"auc": area / (2 * num_live * num_attack), "eer": self._eer(live, attack)}
        rows = np.arange(len(weights))
        for target in BPCER_AT_APCER:
            figures[f"bpcer_at_apcer {target:g}"] = 1 - live[rows, self._most_blocks(weights, target)] / num_live
        for target in TPR_AT_FPR:
            within = _last(attack, num_attack, target)
            figures[f"tpr_at_fpr {target:g}"] = live[rows, within] / num_live
        return {name: np.where(missing, np.nan, figures[name]) for name in names}

    def _counts(self, weights: Weights, flags: NDArray[np.bool_]) -> Weights:
        counts = np.zeros((len(weights), len(self.ends) + 1))
        sums = np.cumsum(weights * flags, axis=1)
        counts[:, 1:] = sums if len(self.ends) == sums.shape[1] else sums[:, self.ends]
        return counts

    def _eer(self, live: Weights, attack: Weights) -> NDArray[np.float64]:
        """Where FPR = FNR on the polygon through the ROC's points (see metrics.eer)."""
        rows = np.arange(len(live))
        num_live, num_attack = live[:, -1], attack[:, -1]
        # The last point with FPR < FNR, in whole numbers, so that equal is equal.
        both = attack * num_live[:, None]
        both += live * num_attack[:, None]
        before = np.minimum(_last(both, np.ones(len(both)), num_live * num_attack - 0.5), live.shape[1] - 2)

        def point(at: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return attack[rows, at] / num_attack, 1 - live[rows, at] / num_live

        (fpr0, fnr0), (fpr1, fnr1) = point(before), point(before + 1)
        gap0, gap1 = fnr0 - fpr0, fpr1 - fnr1
        return fpr0 + gap0 / (gap0 + gap1) * (fpr1 - fpr0)

    def _most_blocks(self, weights: Weights, target: float) -> NDArray[np.int64]:
        """How many blocks of equal scores may be accepted with no type's APCER above `target`, int [r]."""
        most = np.full(len(weights), len(self.ends), dtype=np.int64)
        for columns in self.of_kind.values():
            accepted = np.zeros((len(weights), len(columns) + 1))
            np.cumsum(weights[:, columns], axis=1, out=accepted[:, 1:])
            num = np.maximum(accepted[:, -1], 1)
            within = _last(accepted, num, target)
            limits = np.append(self.block[columns], len(self.ends))
            most = np.minimum(most, limits[within])
        return most


def _last(rising: Weights, num: Weights, target: float | Weights) -> NDArray[np.int64]:
    """The last column of each row of `rising` [r, c] whose value over `num` [r] is at most `target`, int [r], by
    bisection; the first column is taken to be."""
    rows = np.arange(len(rising))
    low, high = np.zeros(len(rising), dtype=np.int64), np.full(len(rising), rising.shape[1], dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        good = rising[rows, np.minimum(middle, rising.shape[1] - 1)] / num <= target
        low, high = np.where(good, middle, low), np.where(good, high, np.maximum(middle, low + 1))
    return low


def resampled(of: Units, rates: WeightedRates, replicates: int, seed: int, *, then_videos: bool = False) -> Figures:
    """Every figure of every replicate, each [replicates]."""
    return _joined(rates(weights) for weights in draws(of, replicates, seed, then_videos=then_videos))


def jackknifed(of: Units, rates: WeightedRates) -> Figures:
    """Every figure with each unit (or block of units) left out."""
    return _joined(rates(weights) for weights in without_each(of))


def _joined(parts: Iterator[Figures]) -> Figures:
    whole = list(parts)
    return {name: np.concatenate([part[name] for part in whole]) for name in whole[0]}


def _chunks(total: int, width: int) -> Iterator[int]:
    size = max(1, CHUNK_CELLS // max(1, width))
    for first in range(0, total, size):
        yield min(size, total - first)
