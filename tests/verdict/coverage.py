"""Coverage of the intervals, and how often the comparison calls runs different that are not, by simulation.

    python -m tests.verdict.coverage [--trials N] > benchmarks/intervals.md

Datasets are simulated over a grid of people, videos a person, rates, and how alike a person's videos are; intervals are
asked of the implementation itself, at 95 %. `make test-slow` runs it with fewer trials and checks every cell.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from livetrain.verdict import intervals, paired
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import OK, Scores
from livetrain.verdict.unseen import probability_above_zero, size_of_unseen

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Table = dict[tuple[str, int], float]  # (row, people) → share

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
PEOPLE = (2, 3, 5, 10, 20, 50, 200)
FEW = (3, 5, 10, 20, 50)
RATES = (0.005, 0.02, 0.05, 0.2)
VIDEOS: dict[str, Callable[[int], Counts]] = {
    "1": lambda num: np.full(num, 1),
    "5": lambda num: np.full(num, 5),
    "10": lambda num: np.full(num, 10),
    "unequal": lambda num: np.resize((2, 20, 5, 1, 10, 3), num),
}
KINDS = ("independent", "beta", "always", "mixed")


def propensities(random: np.random.Generator, kind: str, rate: float, shape: tuple[int, ...]) -> Floats:
    """How often each person errs, of mean `rate`. beta: intraclass correlation 0.3; always: always or never; mixed:
    half of the errors are of people who always err.
    """
    if kind == "independent":
        return np.full(shape, rate)
    if kind == "beta":
        return random.beta(rate * 0.7 / 0.3, (1 - rate) * 0.7 / 0.3, shape)
    if kind == "always":
        return (random.random(shape) < rate).astype(np.float64)
    return np.where(random.random(shape) < rate / 2, 1.0, (rate / 2) / (1 - rate / 2))


def covers(errors: Counts, videos: Counts, rate: float) -> NDArray[np.bool_]:
    """Whether the interval of each row of errors [t, n] holds `rate`: what `unseen.ratio_interval` would say, by the
    probability at `rate` alone, without its search.
    """
    people = np.unique(np.sort(errors * 64 + videos, axis=1), axis=0, return_inverse=True)
    rows, back = people[0], people[1].ravel()
    x, m = rows // 64, rows % 64
    size = size_of_unseen(videos)
    held = np.empty(len(rows), dtype=bool)
    for part in np.array_split(np.arange(len(rows)), -(-len(rows) // 200)):
        seen = x[part] - rate * m[part]
        low, high = (
            probability_above_zero(np.concatenate([seen, np.full((len(part), 1), (errs - rate) * size)], axis=1))
            for errs in (0, 1)
        )
        total = x[part].sum(axis=1)
        held[part] = ((low <= 1 - TAIL + 1e-9) | (total == 0)) & ((high >= TAIL - 1e-9) | (total == videos.sum()))
    return held[back]


def rates(trials: int) -> Table:
    """Single rates: coverage of each cell."""
    found = {}
    for (videos, sizes), kind, rate, num in itertools.product(VIDEOS.items(), KINDS, RATES, PEOPLE):
        if videos == "1" and kind != "independent":
            continue  # the same
        random = np.random.default_rng([num, int(1000 * rate), KINDS.index(kind), list(VIDEOS).index(videos)])
        m = sizes(num)
        errors = random.binomial(m, propensities(random, kind, rate, (trials, num)))
        name = f"{100 * rate:g} %, {kind}, {videos} video{'' if videos == '1' else 's'}"
        found[name, num] = float(covers(errors, m, rate).mean())
    return found


def decided(live: Counts, attack: Sequence[Counts], sizes: int, *, same: bool) -> Scores:
    """Scores of people with `sizes` live videos and as many of each attack type, of which so many are wrong."""
    parts = [("live", live), *((f"type {i}", errors) for i, errors in enumerate(attack))]
    kinds = np.repeat([name for name, _ in parts], [len(errors) * sizes for _, errors in parts]).astype(object)
    wrong = np.concatenate([np.arange(sizes) < errors[:, None] for _, errors in parts]).ravel()
    person = np.concatenate([np.repeat(np.arange(len(errors)), sizes) for _, errors in parts])
    sides = np.where(same | (kinds == "live"), "p", "q")
    is_live = kinds == "live"
    return scores_of(
        np.where(wrong != is_live, 0.9, 0.1), is_live, kinds, [f"{a}{b}" for a, b in zip(sides, person, strict=True)]
    )


def scores_of(p_live: Floats, live: NDArray[np.bool_], kinds: NDArray[np.object_], people: Sequence[str]) -> Scores:
    """Scores of videos that are nothing but their p_live, kind and person."""
    num = len(p_live)
    names = np.array([str(i) for i in range(num)], dtype=object)
    groups, ok = np.array(people, dtype=object), np.full(num, OK, dtype=object)
    return Scores(names, names, p_live, live.astype(np.float64), groups, kinds, np.ones(num), np.ones(num), ok)


def contains(interval: dict[str, Any], value: float) -> bool:
    """Whether the true value is within."""
    return interval["low"] <= value <= interval["high"]


def combined(trials: int) -> Table:
    """HTER of rates of 3 and 8 %, and the largest of three APCERs, 5 videos a person."""
    found = {}
    settings = Settings(CONFIDENCE, draws=1000)
    for kind, same, num in itertools.product(("independent", "beta", "always"), (True, False), FEW):
        random = np.random.default_rng([num, same, KINDS.index(kind)])
        hits = {"HTER": 0, "largest APCER": 0}
        rates_of = (0.03, 0.08, 0.02, 0.02)
        for _ in range(trials):
            level = random.random(num)  # the same people are hard in both classes
            errors = []
            for rate in rates_of:
                if kind == "always" and same:
                    often = (level < rate).astype(np.float64)
                else:
                    often = propensities(random, kind, rate, (num,))
                errors.append(random.binomial(5, often))
            scores = decided(errors[0], errors[1:], 5, same=same)
            bounds = intervals.of_scores(scores, 0.5, settings, ranking=False)
            hits["HTER"] += contains(bounds["hter"], (0.03 + np.mean(rates_of[1:])) / 2)
            hits["largest APCER"] += contains(bounds["apcer_max"], 0.08)
        for name, count in hits.items():
            found[f"{name}, {kind}, {'the same' if same else 'other'} people live and attack", num] = count / trials
    return found


SEPARATIONS = {"good": (1.3, 0.0), "5 % of people always accepted": (1.7, 0.05)}  # (mean, share of such people)


def scored(random: np.random.Generator, num: int, mean: float, bad: float, *, same: bool) -> Scores:
    """Five live and five attack videos a person; scores of one person have a correlation of 0.5."""
    z = []
    for sign in (1, -1):
        shift = np.where(random.random((num, 1)) < bad, 2 * mean + 1, 0.0) if sign < 0 else 0.0
        person, video = random.standard_normal((num, 1)), random.standard_normal((num, 5))
        z.append((sign * mean + shift + (person + video) / 2**0.5).ravel())
    live = np.arange(10 * num) < 5 * num
    person = np.tile(np.repeat(np.arange(num), 5), 2)
    names = [f"{'p' if same or a else 'q'}{b}" for a, b in zip(live, person, strict=True)]
    kinds = np.where(live, "live", "print").astype(object)
    return scores_of(stats.norm.cdf(np.concatenate(z) / 3), live, kinds, names)


def separation(trials: int) -> Table:
    """AUC, EER, and BPCER at an APCER of 10 %."""
    found = {}
    settings = Settings(CONFIDENCE, draws=1000)
    for (title, (mean, bad)), same, num in itertools.product(SEPARATIONS.items(), (True, False), FEW):

        def fpr(t: float, mean: float = mean, bad: float = bad) -> float:
            return float((1 - bad) * stats.norm.sf(t + mean) + bad * stats.norm.sf(t - mean - 1))

        def fnr(t: float, mean: float = mean) -> float:
            return float(stats.norm.cdf(t - mean))

        auc = (1 - bad) * stats.norm.cdf(2 * mean / 2**0.5) + bad * stats.norm.cdf(-1 / 2**0.5)
        eer = fpr(optimize.brentq(lambda t: fpr(t) - fnr(t), -9, 9))
        bpcer = fnr(optimize.brentq(lambda t: fpr(t) - 0.1, -9, 9))
        random = np.random.default_rng([num, same, int(100 * bad)])
        hits = {"AUC": 0, "EER": 0, "BPCER at APCER 10 %": 0}
        for _ in range(trials):
            bounds = intervals.of_scores(scored(random, num, mean, bad, same=same), 0.5, settings)
            hits["AUC"] += contains(bounds["auc"], float(auc))
            hits["EER"] += contains(bounds["eer"], eer)
            at = bounds["bpcer_at_apcer"]["0.1"]
            hits["BPCER at APCER 10 %"] += at["low"] <= bpcer and (at["high"] is None or bpcer <= at["high"])
        for name, count in hits.items():
            found[f"{name}, {title}, {'the same' if same else 'other'} people live and attack", num] = count / trials
    return found


def exchangeable(trials: int) -> tuple[Table, Table]:
    """Two runs of equal rates, 10 %, ten videos a person: (called different, coverage of the BPCER's difference)."""
    called, coverage = {}, {}
    settings = Settings(CONFIDENCE, draws=100)
    for kind, num in itertools.product(("independent", "shared", "own", "always"), (2, 3, 5, 8, 10, 20, 50)):
        random = np.random.default_rng([num, len(kind)])
        names = ("bpcer", "hter", "apcer_max", "auc", "eer")
        hits, held = dict.fromkeys(names, 0), 0
        for _ in range(trials):
            runs = []
            often = propensities(random, "beta", 0.1, (3, num))
            for _ in range(2):
                if kind in ("own", "always"):
                    often = propensities(random, "beta" if kind == "own" else "always", 0.1, (3, num))
                if kind == "independent":
                    often = np.full((3, num), 0.1)
                errors = random.binomial(10, often)
                runs.append(decided(errors[0], [*errors[1:]], 10, same=True))
            found = paired.of_differences(runs[0], runs[1], (0.5, 0.5), names, settings)
            for name in names:
                hits[name] += found[name].p <= 1 - CONFIDENCE
            held += found["bpcer"].low <= 0 <= found["bpcer"].high
        for name, count in hits.items():
            called[f"{name}, {kind}", num] = count / trials
        coverage[f"difference of BPCER, {kind}", num] = held / trials
    return called, coverage


def lines(title: str, table: Table, *, worst: Callable[[Sequence[float]], float] | None = None) -> list[str]:
    """The table in Markdown; with `worst`, what it makes of all rows with the same first words alone."""
    people = sorted({num for _, num in table})
    rows = list(dict.fromkeys(name for name, _ in table))
    out = ["", title, "", "| | " + " | ".join(map(str, people)) + " |", "|---" * (len(people) + 1) + "|"]
    if worst:
        heads = list(dict.fromkeys(", ".join(row.split(", ")[1:]) for row in rows))
        cells = {
            (head, num): worst([table[row, num] for row in rows if row.endswith(head)])
            for head, num in itertools.product(heads, people)
        }
        rows, table = heads, cells
    out += [f"| {row} | " + " | ".join(f"{100 * table[row, num]:.1f}" for num in people) + " |" for row in rows]
    return out


def report(trials: int) -> list[str]:
    """Everything, in Markdown."""
    few = max(100, trials // 5)
    with ProcessPoolExecutor() as pool:
        last, first, second, third = (
            pool.submit(make, number)
            for make, number in ((exchangeable, few), (combined, few), (rates, trials), (separation, few))
        )
        (called, difference), both, single, ranked = last.result(), first.result(), second.result(), third.result()
    cells = [*single.values()]
    share = np.mean([cell >= 0.93 for cell in cells])
    return [
        "# Intervals of 95 %: how often they hold",
        "",
        f"`python -m tests.verdict.coverage --trials {trials}`: {trials} datasets a cell; {few} of combined figures",
        "and pairs. Columns: people. How alike the videos of a person are: independent; beta, intraclass correlation",
        "0.3; always: people who always err or never; mixed: half of the errors are of people who always err.",
        f"Single rates: {100 * share:.0f} % of {len(cells)} cells hold in 93 % or more, the worst in "
        f"{100 * min(cells):.1f} %.",
        *lines("Single rates, %: the worst of the rates 0.5, 2, 5 and 20 %", single, worst=min),
        *lines("Combined rates, %", both),
        *lines("Figures without a threshold, and an operating point, %", ranked),
        *lines("Differences of two runs with equal rates, %", difference),
        *lines("Runs with equal rates that are called different (p ≤ 0.05, one figure alone), %", called),
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    sys.stdout.write("\n".join(report(parser.parse_args().trials)) + "\n")
