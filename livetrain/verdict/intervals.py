"""Confidence intervals of error rates: bootstrap over people and their videos; Clopper-Pearson at zero errors.

The bootstrap (livetrain.verdict.bootstrap) says nothing where a rate is 0 or 1: every replicate repeats it. There the
exact binomial bound of Clopper and Pearson (1934) takes its place, over people where they are known: the share of
people with any error is at least the mean share of errors of a person, however alike a person's videos are. 0 errors of
20 people allow 16.8 %, of 120 people 3.0 %.

The largest APCER over attack types is between the largest of the types' lower bounds (each at a level divided by the
number of types, Bonferroni) and the largest of their upper bounds: a type with three videos and no error keeps the
bound high, as it should.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from livetrain.verdict import bootstrap
from livetrain.verdict.bootstrap import APCER, Figures, Units, WeightedRates
from livetrain.verdict.scores import Scores

Interval = dict[str, Any]
Floats = NDArray[np.float64]
EXACT, MIXED = "clopper-pearson", "bootstrap and clopper-pearson"
RATES = ("bpcer", "apcer_pooled", "hter", "apcer_max")
RANKING = ("auc", "eer", "bpcer_at_apcer", "tpr_at_fpr")


@dataclass(frozen=True)
class Settings:
    """How intervals are made: replicates of the bootstrap, level, percentile or bca, people or people_then_videos (see
    livetrain.verdict.bootstrap), seed of the draws."""

    replicates: int = 2000
    confidence: float = 0.95
    method: str = "bca"
    resample: str = "people"
    seed: int = 0

    @property
    def then_videos(self) -> bool:
        """Whether videos are drawn again within a drawn person."""
        return self.resample == "people_then_videos"

    @staticmethod
    def of(described: Mapping[str, Any]) -> Settings:
        """Those of a verdict, from what `describe` wrote into it; the usual ones where nothing is written."""
        if not described:
            return Settings()
        method = "percentile" if "percentile" in described["method"] else "bca"
        return Settings(
            described["replicates"], described["confidence"], method, described["resample"], described["seed"]
        )

    def describe(self) -> dict[str, Any]:
        """As verdict.json has it."""
        return {
            "confidence": self.confidence,
            "method": f"bootstrap, {self.method}; Clopper-Pearson at rates of 0 and 1",
            "resample": self.resample,
            "resample_text": "then of their videos" if self.then_videos else "each with all of their videos",
            "replicates": self.replicates,
            "seed": self.seed,
        }


USUAL = Settings()


def of_scores(scores: Scores, threshold: float, settings: Settings = USUAL, *, ranking: bool = True) -> dict[str, Any]:
    """Intervals of the figures of `scores` at `threshold`, by name, as verdict.json has the figures.

    bpcer, apcer_pooled, apcer_max, hter; apcer: {attack type: …}; with `ranking` also auc, eer, bpcer_at_apcer: {…} and
    tpr_at_fpr: {…}. Each is {low, high, method, unit, num_units}, or None where the figure cannot be had. num_units
    counts the people (or videos) of the class that the figure is about; of both classes the smaller number. For a
    subset: `of_scores(scores.select(rows), …)`.
    """
    scored = scores.select(scores.scored)
    scored = scored.select(np.argsort(-scored.p_live, kind="stable"))  # sorted once, not each replicate anew
    if not len(scored):
        names = (*RATES, *(RANKING if ranking else ()))
        return {
            **dict.fromkeys(names),
            "apcer": {},
            **({"bpcer_at_apcer": None, "tpr_at_fpr": None} if ranking else {}),
        }
    units = bootstrap.units(scored.group)
    counts = np.ones(len(scored), np.int64)
    if not ranking and not settings.then_videos:
        rows, counts = bootstrap.merged(scored, units, threshold)
        scored, units = scored.select(rows), Units(units.codes[rows], units.num, units.name)
    rates = WeightedRates(scored, threshold, ranking=ranking, counts=None if ranking else counts)
    whole = {name: float(value[0]) for name, value in rates(np.ones((1, len(scored)))).items()}
    replicates = bootstrap.resampled(units, rates, settings.replicates, settings.seed, then_videos=settings.then_videos)
    left_out = bootstrap.jackknifed(units, rates) if settings.method == "bca" else {}
    make = _Maker(scored, units, counts, whole, replicates, left_out, settings)
    found: dict[str, Any] = {name: make.rate(name, rows) for name, rows in _rows_of(scored).items()}
    by_type = {name.removeprefix(APCER): value for name, value in found.items() if name.startswith(APCER)}
    found = {name: value for name, value in found.items() if not name.startswith(APCER)}
    found |= {"apcer": by_type, "apcer_max": make.largest(by_type), "hter": make.hter(found)}
    if ranking:
        found |= {"auc": make.separation("auc"), "eer": make.separation("eer")}
        for family in ("bpcer_at_apcer", "tpr_at_fpr"):
            members = {name.split(" ")[1]: make.rate(name, scored.live) for name in whole if name.startswith(family)}
            found[family] = members if scored.live.any() and not scored.live.all() else None
    return found


def of_differences(
    one: Scores, other: Scores, thresholds: tuple[float, float], figures: Iterable[str], settings: Settings
) -> dict[str, dict[str, Any]]:
    """Figure → {one, other, difference, low, high} of two sets of scores of the same videos in the same order, all of
    them scored. Both are weighed with the same draws of people, so that what is hard for both cancels out. Figures that
    cannot be had are left out; low and high are None where one unit alone, or too few draws, tell nothing.
    """
    figures = list(figures)
    ranking = not set(figures) <= set(RATES)
    units = bootstrap.units(one.group)
    rates = [
        WeightedRates(scores, threshold, ranking=ranking)
        for scores, threshold in zip((one, other), thresholds, strict=True)
    ]
    ones = np.ones((1, len(one)))
    whole = [{name: float(value[0]) for name, value in rate(ones).items()} for rate in rates]
    drawn = [
        bootstrap.resampled(units, rate, settings.replicates, settings.seed, then_videos=settings.then_videos)
        for rate in rates
    ]
    left = [bootstrap.jackknifed(units, rate) if settings.method == "bca" else {} for rate in rates]
    found = {}
    for name in figures:
        difference = whole[1][name] - whole[0][name]
        if np.isnan(difference):
            continue
        bounds = quantiles(
            drawn[1][name] - drawn[0][name],
            settings.confidence,
            whole=difference,
            left_out=left[1][name] - left[0][name] if name in left[0] else None,
            num_units=units.num,
        )
        low, high = bounds if bounds and units.num > 1 else (None, None)
        found[name] = {
            "one": whole[0][name], "other": whole[1][name], "difference": difference, "low": low, "high": high
        }  # fmt: skip
    return found


def clopper_pearson(errors: int, num: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a binomial rate (Clopper and Pearson, 1934)."""
    if not 0 <= errors <= num or num == 0:
        raise ValueError(f"{errors} errors of {num}")
    found = stats.binomtest(errors, num).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def quantiles(
    values: NDArray[np.float64],
    confidence: float,
    *,
    whole: float,
    left_out: NDArray[np.float64] | None,
    num_units: int,
) -> tuple[float, float] | None:
    """The interval that the replicates `values` give; None when fewer than half of them have a number.

    With `left_out` (the jackknife's figures): BCa (Efron, JASA 1987). Without: percentiles. Either is widened for few
    units as Student's t is against the normal (Hesterberg, The American Statistician 2015, section 4).
    """
    good = values[~np.isnan(values)]
    if 2 * len(good) < len(values) or not len(good):
        return None
    tail = (1 - confidence) / 2
    if num_units > 1:
        wider = np.sqrt(num_units / (num_units - 1)) * stats.t.ppf(tail, num_units - 1)
        tail = max(float(stats.norm.cdf(wider)), 1e-9)  # two units: the t has no bound that could be reached
    tails = (tail, 1 - tail) if left_out is None else _bca_tails(good, tail, whole, left_out[~np.isnan(left_out)])
    low, high = np.quantile(good, tails)
    return float(low), float(high)


def _bca_tails(
    values: NDArray[np.float64], tail: float, whole: float, left_out: NDArray[np.float64]
) -> tuple[float, float]:
    below = (np.sum(values < whole) + np.sum(values == whole) / 2) / len(values)
    bias = stats.norm.ppf(np.clip(below, 1 / len(values), 1 - 1 / len(values)))
    distance = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((distance**2).sum()) ** 1.5
    skew = float((distance**3).sum()) / (6 * spread) if spread > 0 else 0.0

    def moved(z: float) -> float:
        # Past its pole the correction turns round; few units with much skew get there.
        return float(stats.norm.cdf(bias + (bias + z) / max(1 - skew * (bias + z), 1e-3)))

    return moved(float(stats.norm.ppf(tail))), moved(float(stats.norm.ppf(1 - tail)))


def _rows_of(scored: Scores) -> dict[str, NDArray[np.bool_]]:
    """The videos that each rate is a share of."""
    kinds = sorted({str(kind) for kind in scored.attack_type[~scored.live]})
    rows = {APCER + kind: ~scored.live & (scored.attack_type == kind) for kind in kinds}
    return {"bpcer": scored.live, "apcer_pooled": ~scored.live, **rows}


@dataclass(frozen=True)
class _Maker:
    """The intervals of one set of scored videos. counts: how many videos each row stands for."""

    scored: Scores
    units: Units
    counts: NDArray[np.int64]
    whole: dict[str, float]
    replicates: Figures
    left_out: Figures
    settings: Settings

    def rate(self, name: str, rows: NDArray[np.bool_], confidence: float | None = None) -> Interval | None:
        """A share of `rows`, at the level of the settings or another."""
        confidence = confidence or self.settings.confidence
        value, num = self.whole[name], self._num_units(rows)
        if np.isnan(value) or not num:
            return None
        if value in (0.0, 1.0):
            low, high = clopper_pearson(0 if value == 0 else num, num, confidence)
            return self._interval(low, high, EXACT, num) | self._if_independent(value, rows, confidence)
        return self._bootstrap(name, num, confidence)

    def largest(self, by_type: dict[str, Interval | None]) -> Interval | None:
        """Of the APCER over all types."""
        each = {kind: interval for kind, interval in by_type.items() if interval is not None}
        if not each:
            return None
        level = 1 - (1 - self.settings.confidence) / len(each)
        rows = _rows_of(self.scored)
        lows = [self.rate(APCER + kind, rows[APCER + kind], level) for kind in each]
        low = max(interval["low"] for interval in lows if interval is not None)
        worst = max(each.values(), key=lambda interval: interval["high"])
        methods = {interval["method"] for interval in each.values()}
        method = methods.pop() if len(methods) == 1 else MIXED
        return self._interval(low, worst["high"], method, min(interval["num_units"] for interval in each.values()))

    def hter(self, found: dict[str, Any]) -> Interval | None:
        """Of the mean of both rates; from the bounds of each where one of them is 0 or 1."""
        parts = [found["bpcer"], found["apcer_pooled"]]
        if any(part is None for part in parts):
            return None
        num = min(part["num_units"] for part in parts)
        methods = {part["method"] for part in parts}
        if EXACT not in methods:
            return self._bootstrap("hter", num, self.settings.confidence)
        low, high = (sum(part[end] for part in parts) / 2 for end in ("low", "high"))
        return self._interval(low, high, methods.pop() if len(methods) == 1 else MIXED, num)

    def separation(self, name: str) -> Interval | None:
        """Of AUC or EER. Where the scores separate the classes wholly, at the threshold between them both error rates
        are 0 with their exact bounds a, b: the EER is at most the larger one, the AUC at least (1 - a) (1 - b)."""
        value = self.whole[name]
        if np.isnan(value):
            return None
        nums = [self._num_units(rows) for rows in (self.scored.live, ~self.scored.live)]
        if value not in (0.0, 1.0):
            return self._bootstrap(name, min(nums), self.settings.confidence)
        a, b = (clopper_pearson(0, num, self.settings.confidence)[1] for num in nums)
        far = max(a, b) if name == "eer" else 1 - (1 - a) * (1 - b)
        low, high = (0.0, far) if value == 0 else (1 - far, 1.0)
        return self._interval(low, high, EXACT, min(nums))

    def _bootstrap(self, name: str, num: int, confidence: float) -> Interval | None:
        jackknife = self.left_out.get(name)
        found = quantiles(self.replicates[name], confidence, whole=self.whole[name], left_out=jackknife, num_units=num)
        return None if found is None or num < 2 else self._interval(*found, f"bootstrap {self.settings.method}", num)

    def _interval(self, low: float, high: float, method: str, num: int) -> Interval:
        return {"low": low, "high": high, "method": method, "unit": self.units.name, "num_units": num}

    def _if_independent(self, value: float, rows: NDArray[np.bool_], confidence: float) -> dict[str, float]:
        """The bound over videos, which holds only if videos of one person err independently."""
        if self.units.name == "videos":
            return {}
        num = int(self.counts[rows].sum())
        low, high = clopper_pearson(0 if value == 0 else num, num, confidence)
        return {"if_videos_were_independent": high if value == 0 else low}

    def _num_units(self, rows: NDArray[np.bool_]) -> int:
        return len(set(self.units.codes[rows].tolist()))


def contains(interval: Interval | None, value: float) -> bool:
    """Whether `value` is within; False without an interval."""
    return interval is not None and interval["low"] <= value <= interval["high"]


def format_interval(interval: Interval | None, *, percent: bool = True) -> str:
    """`[1.20 - 3.45 %]`, or `[0.9711 - 0.9935]`; empty without one."""
    if interval is None:
        return ""
    if percent:
        return f"[{100 * interval['low']:.2f} - {100 * interval['high']:.2f} %]"
    return f"[{interval['low']:.4f} - {interval['high']:.4f}]"


def names_of_units(intervals: Iterable[Interval | None]) -> str:
    """What was resampled, in words, for a line under a table."""
    found = {interval["unit"] for interval in intervals if interval is not None}
    return " and ".join(sorted(found)) or "nothing"
