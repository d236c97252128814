"""Intervals: weighted rates against repeating the videos, exact bounds at zero errors, coverage simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from livetrain.verdict import bootstrap, intervals, metrics
from livetrain.verdict.bootstrap import WeightedRates
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import OK, Scores
from tests.verdict.helpers import make_scores
from tests.verdict.test_metrics import labelled_scores

FEW = Settings(replicates=200)


@settings(max_examples=40)
@given(labelled_scores(), st.data())
def test_weighted_rates_are_those_of_repeated_videos(case: tuple, data: st.DataObject) -> None:
    kinds, _, p_live = case
    rows = list(zip(kinds.tolist(), p_live.tolist(), strict=True))
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    scores, threshold = make_scores(rows), data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    found = WeightedRates(scores, threshold)(np.array([times], dtype=np.float64))
    repeated = scores.select(np.repeat(np.arange(len(rows)), times))
    wanted: dict[str, float | None] = {}
    at = metrics.at_threshold(repeated, threshold)
    wanted |= {name: at[name] for name in ("bpcer", "apcer_pooled", "apcer_max", "hter")}
    wanted |= {f"apcer {kind}": at["apcer"].get(kind) for kind in sorted({k for k, _ in rows} - {"live"})}
    ranking = metrics.ranking(repeated)
    wanted |= {name: ranking[name] for name in ("auc", "eer")}
    for family, targets in (("bpcer_at_apcer", metrics.BPCER_AT_APCER), ("tpr_at_fpr", metrics.TPR_AT_FPR)):
        wanted |= {f"{family} {x:g}": (ranking[family] or {}).get(f"{x:g}") for x in targets}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name][0] == pytest.approx(np.nan if value is None else value, nan_ok=True), name


def test_people_are_drawn_with_all_of_their_videos() -> None:
    of = bootstrap.units(["a", "a", "b", "", ""])
    assert (of.num, of.name, of.codes.tolist()) == (4, "people and videos", [0, 0, 1, 2, 3])
    drawn = np.concatenate(list(bootstrap.draws(of, 500, seed=1)))
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 1:].sum(axis=1) == 4).all()
    assert drawn.mean(axis=0) == pytest.approx(1, abs=0.2)
    again = np.concatenate(list(bootstrap.draws(of, 500, seed=1)))
    assert np.array_equal(drawn, again)
    apart = np.concatenate(list(bootstrap.draws(of, 500, seed=1, then_videos=True)))
    assert (apart[:, 0] != apart[:, 1]).any() and apart.mean(axis=0) == pytest.approx(1, abs=0.2)
    left = np.concatenate(list(bootstrap.without_each(of)))
    assert left.tolist() == [[0, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]]


def test_exact_bounds() -> None:
    assert intervals.clopper_pearson(0, 120, 0.95) == (0, pytest.approx(0.0303, abs=1e-4))
    low, high = intervals.clopper_pearson(3, 20, 0.95)
    assert low == pytest.approx(stats.beta.ppf(0.025, 3, 18)) and high == pytest.approx(stats.beta.ppf(0.975, 4, 17))
    with pytest.raises(ValueError, match="5 errors of 4"):
        intervals.clopper_pearson(5, 4, 0.95)


def test_zero_errors_are_bounded_over_people_not_videos() -> None:
    rows = [("live", 0.9)] * 20 + [("print", 0.1)] * 20
    people = [f"p{i % 4}" for i in range(20)] + [f"q{i % 5}" for i in range(20)]
    found = intervals.of_scores(make_scores(rows, people), 0.5, FEW)
    of_four, of_five, of_twenty = (1 - 0.025 ** (1 / n) for n in (4, 5, 20))
    assert (found["bpcer"]["low"], found["bpcer"]["high"]) == (0, pytest.approx(of_four))
    assert found["bpcer"]["if_videos_were_independent"] == pytest.approx(of_twenty)
    assert (found["bpcer"]["unit"], found["bpcer"]["num_units"]) == ("people", 4)
    assert found["apcer_max"]["high"] == found["apcer"]["print"]["high"] == pytest.approx(of_five)
    assert found["hter"]["high"] == pytest.approx((of_four + of_five) / 2)
    assert found["eer"]["high"] == pytest.approx(of_four)
    assert found["auc"]["low"] == pytest.approx((1 - of_four) * (1 - of_five)) and found["auc"]["high"] == 1
    unknown = intervals.of_scores(make_scores(rows, [""] * 40), 0.5, FEW)
    assert unknown["bpcer"]["unit"] == "videos" and unknown["bpcer"]["high"] == pytest.approx(of_twenty)


def test_a_type_with_few_videos_keeps_the_bound_of_the_largest_apcer_high() -> None:
    rows = [("print", 0.9 if i == 0 else 0.1) for i in range(60)] + [("mask", 0.1)] * 2 + [("live", 0.9)] * 9
    found = intervals.of_scores(make_scores(rows, [str(i) for i in range(71)]), 0.5, FEW)
    assert found["apcer_max"]["high"] == found["apcer"]["mask"]["high"] > 0.8
    assert found["apcer_max"]["method"] == intervals.MIXED


def test_what_cannot_be_had_has_no_interval() -> None:
    found = intervals.of_scores(make_scores([("live", 0.9), ("live", 0.2), ("live", None)]), 0.5, FEW)
    assert found["bpcer"] is not None and found["apcer"] == {}
    assert all(found[name] is None for name in ("apcer_max", "hter", "auc", "eer", "bpcer_at_apcer", "tpr_at_fpr"))
    assert set(intervals.of_scores(make_scores([("live", None)]), 0.5, FEW)) == set(found)
    one_person = make_scores([("live", 0.9), ("live", 0.2), ("print", 0.1)], ["a"] * 3)
    assert intervals.of_scores(one_person, 0.5, FEW)["bpcer"] is None, "nobody to draw: one person says nothing"


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_an_interval_holds_its_figure_and_widens_with_the_level(method: str) -> None:
    scores = correlated(np.random.default_rng(3), 12, 5)
    whole = metrics.at_threshold(scores, 0.5) | metrics.ranking(scores)
    narrow, wide = (intervals.of_scores(scores, 0.5, Settings(400, level, method)) for level in (0.8, 0.99))
    for name in ("bpcer", "apcer_pooled", "apcer_max", "hter", "auc", "eer"):
        assert wide[name]["low"] <= narrow[name]["low"] <= whole[name] <= narrow[name]["high"] <= wide[name]["high"]


def correlated(random: np.random.Generator, num_people: int, clips: int, spread: float = 1.0) -> Scores:
    """Each person has `clips` live and `clips` attack videos, shifted by what the person is like."""
    person = np.repeat(np.arange(num_people), 2 * clips)
    live = np.tile(np.arange(2 * clips) < clips, num_people)
    shift = random.normal(size=(2, num_people)) * spread
    z = np.where(live, 1.3 + shift[0, person], -1.3 + shift[1, person]) + random.normal(size=len(person))
    n = len(person)
    kinds = np.where(live, "live", np.where(np.arange(n) % 3 == 0, "print", "replay")).astype(object)
    names = np.array([str(i) for i in range(n)], dtype=object)
    groups = np.array([f"p{i}" for i in person], dtype=object)
    ok = np.full(n, OK, dtype=object)
    return Scores(
        names, names, 1 / (1 + np.exp(-z)), live.astype(np.float64), groups, kinds, np.full(n, 4), np.ones(n), ok
    )


@pytest.mark.slow
@pytest.mark.parametrize("clips", [4, 10])
def test_intervals_of_95_percent_cover_93_to_97_percent(clips: int) -> None:
    """30 people whose videos are alike, 1,000 times over; the truth is that of 20,000 people.

    The bounds of the test are two standard errors of the simulation (0.7 points) beyond 93 and 97. Drawing videos alone
    covers far less.
    """
    names = ("bpcer", "apcer_pooled", "hter", "auc", "eer")
    everybody = correlated(np.random.default_rng(99), 20_000, clips)
    truth = {name: value[0] for name, value in WeightedRates(everybody, 0.5)(np.ones((1, len(everybody)))).items()}
    hits = dict.fromkeys((*names, "bpcer of videos"), 0)
    trials = 1000
    for trial in range(trials):
        scores = correlated(np.random.default_rng(trial), 30, clips)
        found = intervals.of_scores(scores, 0.5, Settings(500, seed=trial))
        for name in names:
            hits[name] += intervals.contains(found[name], truth[name])
        scores.group[:] = ""
        alone = intervals.of_scores(scores, 0.5, Settings(500, seed=trial), ranking=False)
        hits["bpcer of videos"] += intervals.contains(alone["bpcer"], truth["bpcer"])
    coverage = {name: hit / trials for name, hit in hits.items()}
    assert coverage.pop("bpcer of videos") < 0.9
    assert all(0.916 <= rate <= 0.984 for rate in coverage.values()), coverage
    assert 0.93 <= np.mean(list(coverage.values())) <= 0.97, coverage


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("known", [True, False])
def test_videos_that_are_alike_are_counted_not_drawn_apart(method: str, known: bool) -> None:
    """Without a ranking, videos of one person on one side of the threshold are merged; nothing changes by that."""
    random = np.random.default_rng(3)
    rows = [(str(random.choice(["live", "print", "replay"])), float(random.random())) for _ in range(600)]
    scores = make_scores(rows, people=[f"p{random.integers(12)}" if known or n % 3 else "" for n in range(600)])
    how = Settings(replicates=300, method=method)
    apart, merged = (intervals.of_scores(scores, 0.4, how, ranking=ranking) for ranking in (True, False))
    assert merged == {name: apart[name] for name in merged} and merged["bpcer"]["low"] < merged["bpcer"]["high"]
    units = bootstrap.units(scores.group)
    first, counts = bootstrap.merged(scores, units, 0.4)
    assert counts.sum() == 600 and (len(first) <= 12 * 6 if known else len(first) > 200)
