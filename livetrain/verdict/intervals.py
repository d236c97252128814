"""Confidence intervals of error rates over people, with one person more who was not seen (livetrain.verdict.unseen).

A rate has the exact quantile. HTER, AUC, EER and operating points take draws of the same weights
(livetrain.verdict.bootstrap): the upper bound from those in which the unseen person errs, the lower from those in which
they do not. The largest APCER over attack types is between the largest of the types' lower bounds (each at a level
divided by the number of types, Bonferroni) and the largest of their upper bounds: a type with three videos and no error
keeps the bound high, as it should.

BPCER at an APCER of x and TPR at an FPR of x choose their threshold in each draw. With fewer than 1/x attacks they
are not figures (livetrain.verdict.metrics leaves them out). With fewer than ln(1 / tail) / x people, 369 for 1 % at
95 %, no threshold can be shown to keep to x at all: such a figure is indicative, has no bound on its bad side, and
stands beside the interval of the APCER at its threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from livetrain.verdict import bootstrap, metrics
from livetrain.verdict.bootstrap import APCER, Ranking, Spread, Tally, Units
from livetrain.verdict.scores import Scores
from livetrain.verdict.unseen import ratio_interval

Interval = dict[str, Any]
EXACT, DRAWN = "one unseen person", "one unseen person, draws"
RATES = ("bpcer", "apcer_pooled", "hter", "apcer_max")
RANKING = ("auc", "eer", "bpcer_at_apcer", "tpr_at_fpr")


@dataclass(frozen=True)
class Settings:
    """How intervals are made: their level, the number and the seed of the draws."""

    confidence: float = 0.95
    draws: int = 4000
    seed: int = 0

    @property
    def tail(self) -> float:
        """The probability beyond either bound."""
        return (1 - self.confidence) / 2

    @staticmethod
    def of(described: Mapping[str, Any]) -> Settings:
        """Those of a verdict, from what `describe` wrote into it; of older ones the level and the seed."""
        usual = Settings()
        return Settings(
            described.get("confidence", usual.confidence),
            described.get("draws", usual.draws),
            described.get("seed", usual.seed),
        )

    def describe(self) -> dict[str, Any]:
        """As verdict.json has it."""
        return {"confidence": self.confidence, "method": EXACT, "draws": self.draws, "seed": self.seed}


USUAL = Settings()


def of_scores(scores: Scores, threshold: float, settings: Settings = USUAL, *, ranking: bool = True) -> dict[str, Any]:
    """Intervals of the figures of `scores` at `threshold`, by name, as verdict.json has the figures.

    bpcer, apcer_pooled, apcer_max, hter; apcer: {attack type: …}; with `ranking` also auc, eer, bpcer_at_apcer: {…} and
    tpr_at_fpr: {…}. Each is {low, high, method, unit, num_units}, or None where there is no such figure. num_units
    counts the people (or videos) of the class that the figure is about; of both classes the smaller number. Rates of
    known people have `if_videos_were_independent`, {low, high}, too narrow as a rule. An indicative operating point has
    `indicative`, the interval of the APCER at its threshold, and None for the bound on its bad side.
    """
    scored = scores.select(scores.scored)
    units = bootstrap.units(scored.subject)
    tallies = bootstrap.tallies(scored, units, threshold)
    found = _rates(tallies, units, settings) | dict.fromkeys(("hter", *(RANKING if ranking else ())))
    if "bpcer" not in tallies or "apcer_pooled" not in tallies:
        return found
    num = min(tallies["bpcer"].num_units, tallies["apcer_pooled"].num_units)
    spreads = _spreads(scored, units, tallies, settings, ranking=ranking)
    whole = metrics.at_threshold(scored, threshold) | (metrics.ranking(scored) if ranking else {})
    for name in ("hter", "auc", "eer") if ranking else ("hter",):
        found[name] = _interval(*_ends(spreads[name], whole[name], settings.tail), DRAWN, units.name, num)
    for family in ("bpcer_at_apcer", "tpr_at_fpr") if ranking else ():
        found[family] = {
            target: None if value is None else _operating_point(scored, spreads, family, target, value, settings)
            for target, value in whole[family].items()
        }
    return found


def rates(scores: Scores, threshold: float, settings: Settings = USUAL) -> dict[str, Any]:
    """The part of `of_scores` that takes no draws: bpcer, apcer_pooled, apcer and apcer_max."""
    scored = scores.select(scores.scored)
    units = bootstrap.units(scored.subject)
    return _rates(bootstrap.tallies(scored, units, threshold), units, settings)


def clopper_pearson(errors: int, num: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a binomial rate (Clopper and Pearson, 1934)."""
    if not 0 <= errors <= num or num == 0:
        raise ValueError(f"{errors} errors of {num}")
    found = scipy.stats.binomtest(errors, num).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def _bounds_of(tally: Tally, confidence: float) -> tuple[float, float]:
    """The interval of a rate."""
    some = tally.videos > 0
    return ratio_interval(tally.errors[some], tally.videos[some], confidence)


def _rates(tallies: Mapping[str, Tally], units: Units, settings: Settings) -> dict[str, Any]:
    def rate(tally: Tally) -> Interval:
        found = _interval(*_bounds_of(tally, settings.confidence), EXACT, units.name, tally.num_units)
        if units.name != "videos":
            low, high = clopper_pearson(int(tally.errors.sum()), int(tally.videos.sum()), settings.confidence)
            found["if_videos_were_independent"] = {"low": low, "high": high}
        return found

    each = {name: rate(tally) for name, tally in tallies.items()}
    by_type = {name.removeprefix(APCER): item for name, item in each.items() if name.startswith(APCER)}
    found: dict[str, Any] = {name: each.get(name) for name in ("bpcer", "apcer_pooled")}
    return found | {"apcer": by_type, "apcer_max": _largest(by_type, tallies, settings)}


def _largest(by_type: Mapping[str, Interval], tallies: Mapping[str, Tally], settings: Settings) -> Interval | None:
    if not by_type:
        return None
    level = 1 - 2 * settings.tail / len(by_type)
    low = max(_bounds_of(tallies[APCER + kind], level)[0] for kind in by_type)
    high = max(item["high"] for item in by_type.values())
    some = next(iter(by_type.values()))
    return _interval(low, high, EXACT, some["unit"], min(item["num_units"] for item in by_type.values()))


def _spreads(
    scored: Scores, units: Units, tallies: Mapping[str, Tally], settings: Settings, *, ranking: bool
) -> dict[str, Spread]:
    """The figures that take draws, in all of them."""
    ranked = Ranking(scored, units) if ranking else None
    shared = bootstrap.one_unseen(tallies["bpcer"], tallies["apcer_pooled"])
    classes = {name: tallies[name] for name in ("bpcer", "apcer_pooled")}
    width = len(scored) if ranking else units.num
    chunks = [
        bootstrap.at_threshold(classes, weights) | (ranked(weights) if ranked else {})
        for weights in bootstrap.draws(units.num, settings.draws, settings.seed, shared=shared, width=width)
    ]
    return bootstrap.joined(chunks)


def _ends(spread: Spread, value: float, tail: float) -> tuple[float, float]:
    low, high = float(np.quantile(spread.low, tail)), float(np.quantile(spread.high, 1 - tail))
    return max(0.0, min(low, value)), min(1.0, max(high, value))


def _operating_point(
    scored: Scores, spreads: Mapping[str, Spread], family: str, target: str, value: float, settings: Settings
) -> Interval:
    attacks = scored.select(~scored.live)
    kinds = sorted(set(attacks.attack_type.tolist())) if family == "bpcer_at_apcer" else [None]
    num = min(bootstrap.units(attacks.subject[_of_kind(attacks, kind)]).num for kind in kinds)
    low, high = _ends(spreads[f"{family} {target}"], value, settings.tail)
    found = _interval(low, high, DRAWN, bootstrap.units(attacks.subject).name, num)
    if num >= math.log(1 / settings.tail) / float(target):
        return found
    at = metrics.operating_threshold(scored, family, float(target))
    apcer = rates(scored, at, settings)["apcer_max" if family == "bpcer_at_apcer" else "apcer_pooled"]
    return found | {"high" if family == "bpcer_at_apcer" else "low": None, "indicative": apcer}


def _of_kind(attacks: Scores, kind: str | None) -> NDArray[np.bool_]:
    return np.ones(len(attacks), dtype=bool) if kind is None else attacks.attack_type == kind


def _interval(low: float, high: float, method: str, unit: str, num: int) -> Interval:
    return {"low": low, "high": high, "method": method, "unit": unit, "num_units": num}


def format_interval(interval: Interval | None, *, percent: bool = True) -> str:
    """`[1.20 - 3.45 %]`, or `[0.9711 - 0.9935]`; empty without one."""
    if interval is None:
        return ""
    if percent:
        return f"[{100 * interval['low']:.2f} - {100 * interval['high']:.2f} %]"
    return f"[{interval['low']:.4f} - {interval['high']:.4f}]"


def names_of_units(intervals: Iterable[Interval | None]) -> str:
    """What the intervals are over, in words, for a line under a table."""
    found = {interval["unit"] for interval in intervals if interval is not None}
    return " and ".join(sorted(found)) or "nothing"
