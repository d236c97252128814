"""Intervals of all figures: weighted figures against repeating the videos, what has none, what is only indicative."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.verdict import bootstrap, intervals, metrics
from livetrain.verdict.bootstrap import Ranking, Units, Weights
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import OK, Scores
from tests.verdict.helpers import make_scores
from tests.verdict.test_metrics import labelled_scores

ALL = (*intervals.RATES, *intervals.RANKING)


def each_alone(scores: Scores) -> Units:
    return Units(np.arange(len(scores)), len(scores), "videos")


@settings(max_examples=40)
@given(labelled_scores(), st.data())
def test_weighted_figures_are_those_of_repeated_videos(case: tuple, data: st.DataObject) -> None:
    kinds, _, p_live = case
    rows = list(zip(kinds.tolist(), p_live.tolist(), strict=True))
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    scores, threshold = make_scores(rows), data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    repeated = scores.select(np.repeat(np.arange(len(rows)), times))
    weights = np.array([times], dtype=np.float64)
    found = Ranking(scores, each_alone(scores)).seen(weights)
    live, attacks = repeated.live, ~repeated.live
    wanted = dict.fromkeys(found, np.nan)
    if live.any() and attacks.any():
        curve = (repeated.live, repeated.p_live)
        wanted = {"auc": metrics.auc(*curve), "eer": metrics.eer(*curve)}
        for x in metrics.BPCER_AT_APCER:
            wanted[f"bpcer_at_apcer {x:g}"] = metrics.bpcer_at_apcer(repeated.attack_type, *curve, x)
        wanted |= {f"tpr_at_fpr {x:g}": metrics.tpr_at_fpr(*curve, x) for x in metrics.TPR_AT_FPR}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name][0] == pytest.approx(value, nan_ok=True), name
    nobody = np.zeros(1)
    with np.errstate(invalid="ignore"):
        at = bootstrap.at_threshold(
            bootstrap.tallies(scores, each_alone(scores), threshold), Weights(weights, nobody, nobody)
        )
    rates = metrics.at_threshold(repeated, threshold)
    for name in ("bpcer", "apcer_pooled", "hter"):
        value = rates[name]
        assert at[name].seen[0] == pytest.approx(np.nan if value is None else value, nan_ok=True), name


def test_the_unseen_person_is_a_video_beyond_all_others() -> None:
    """With one video of weight 2 more in either class, all wrong or all right, the figures are those of the videos."""
    random = np.random.default_rng(0)
    rows = [("live", float(p)) for p in random.beta(3, 1, 40)] + [("print", float(p)) for p in random.beta(1, 3, 40)]
    scores = make_scores(rows)
    units = each_alone(scores)
    spread = Ranking(scores, units)(Weights(np.ones((1, 80)), np.array([2.0]), np.array([2.0])))
    wrong = make_scores([*rows, *[("live", 0.0)] * 2, *[("print", 1.0)] * 2])
    right = make_scores([*rows, *[("live", 1.0)] * 2, *[("print", 0.0)] * 2])
    for name, ends in (("auc", (wrong, right)), ("eer", (right, wrong))):
        for end, case in zip(("low", "high"), ends, strict=True):
            value = getattr(metrics, name)(case.live, case.p_live)
            assert getattr(spread[name], end)[0] == pytest.approx(value), (name, end)
    for x in metrics.BPCER_AT_APCER:
        found = spread[f"bpcer_at_apcer {x:g}"]
        for end, case in (("low", right), ("high", wrong)):
            value = metrics.bpcer_at_apcer(case.attack_type, case.live, case.p_live, x)
            assert getattr(found, end)[0] == pytest.approx(value), (x, end)
    assert spread["bpcer_at_apcer 0.01"].high[0] == 1, "2 of 42 attacks pass at any threshold"
    for x in metrics.TPR_AT_FPR:
        assert spread[f"tpr_at_fpr {x:g}"].low[0] == metrics.tpr_at_fpr(wrong.live, wrong.p_live, x) == 0


def test_people_have_one_weight_with_all_of_their_videos() -> None:
    of = bootstrap.units(["a", "a", "b", "", ""])
    assert (of.num, of.name, of.codes.tolist()) == (4, "people and videos", [0, 0, 1, 2, 3])
    chunks = list(bootstrap.draws(4, 500, seed=1, shared=True, width=100_000))
    assert len(chunks) > 1 and all(np.array_equal(chunk.live, chunk.attack) for chunk in chunks)
    drawn = np.concatenate([chunk.people for chunk in chunks])
    assert drawn.shape == (500, 4) and drawn.mean() == pytest.approx(1, abs=0.1)
    (again,) = bootstrap.draws(4, 500, seed=1, shared=False, width=1)
    assert np.array_equal(drawn, again.people) and not np.array_equal(again.live, again.attack)


def test_exact_bounds() -> None:
    assert intervals.clopper_pearson(0, 120, 0.95) == (0, pytest.approx(0.0303, abs=1e-4))
    with pytest.raises(ValueError, match="5 errors of 4"):
        intervals.clopper_pearson(5, 4, 0.95)


def test_rates_are_bounded_over_people_not_videos() -> None:
    rows = [("live", 0.9)] * 20 + [("print", 0.1)] * 20
    people = [f"p{i % 4}" for i in range(20)] + [f"q{i % 5}" for i in range(20)]
    found = intervals.of_scores(make_scores(rows, people), 0.5)
    of_four, of_five, of_twenty = (1 - 0.025 ** (1 / n) for n in (4, 5, 20))
    assert (found["bpcer"]["low"], found["bpcer"]["high"]) == (0, pytest.approx(of_four))
    assert found["bpcer"]["if_videos_were_independent"] == {"low": 0, "high": pytest.approx(of_twenty)}
    assert (found["bpcer"]["unit"], found["bpcer"]["num_units"]) == ("people", 4)
    assert found["apcer_max"]["high"] == found["apcer"]["print"]["high"] == pytest.approx(of_five)
    # Two unseen people, as no person has videos of both classes: less than the mean of both bounds, more than either's.
    assert max(of_four, of_five) / 2 < found["hter"]["high"] < (of_four + of_five) / 2
    assert found["auc"]["high"] == 1 and 0.1 < found["auc"]["low"] < 0.9
    unknown = intervals.of_scores(make_scores(rows, [""] * 40), 0.5)
    assert unknown["bpcer"]["unit"] == "videos" and unknown["bpcer"]["high"] == pytest.approx(of_twenty)
    assert "if_videos_were_independent" not in unknown["bpcer"]
    both = intervals.of_scores(make_scores(rows, [f"p{i % 4}" for i in range(40)]), 0.5)
    assert both["hter"]["high"] == pytest.approx(of_four, abs=0.02), "one unseen person errs in both classes"


def test_a_type_with_few_videos_keeps_the_bound_of_the_largest_apcer_high() -> None:
    rows = [("print", 0.9 if i == 0 else 0.1) for i in range(60)] + [("mask", 0.1)] * 2 + [("live", 0.9)] * 9
    found = intervals.of_scores(make_scores(rows, [str(i) for i in range(71)]), 0.5)
    assert found["apcer_max"]["high"] == found["apcer"]["mask"]["high"] > 0.8
    assert found["apcer_max"]["low"] < found["apcer"]["print"]["low"], "one of two types: Bonferroni"
    assert found["apcer_max"]["num_units"] == 2


def test_the_lower_bound_of_the_largest_apcer_is_at_a_level_divided_by_the_types() -> None:
    rows = [(kind, 0.9 if i < errors else 0.1) for kind, errors in (("a", 20), ("b", 8), ("c", 1)) for i in range(40)]
    rows += [("live", 0.9)] * 9
    found = intervals.of_scores(make_scores(rows, [str(i) for i in range(len(rows))]), 0.5, Settings(0.9))
    alone = intervals.of_scores(
        make_scores(rows[:40] + rows[-9:], [str(i) for i in range(49)]), 0.5, Settings(1 - 0.1 / 3)
    )
    assert found["apcer_max"]["low"] == alone["apcer"]["a"]["low"] > 0.2
    assert alone["apcer_max"]["low"] == alone["apcer"]["a"]["low"], "nothing to divide by"


def test_intervals_in_words() -> None:
    interval = {"low": 0.0123, "high": 0.5, "unit": "people"}
    assert intervals.format_interval(interval) == "[1.23 - 50.00 %]"
    assert intervals.format_interval(interval, percent=False) == "[0.0123 - 0.5000]"
    assert intervals.format_interval(None) == ""
    assert intervals.names_of_units([None, interval, {"unit": "videos"}, interval]) == "people and videos"
    assert intervals.names_of_units([None]) == "nothing"


def test_what_does_not_exist_has_no_interval() -> None:
    found = intervals.of_scores(make_scores([("live", 0.9), ("live", 0.2), ("live", None)]), 0.5)
    assert found["bpcer"] is not None and found["apcer"] == {}
    assert all(found[name] is None for name in ("apcer_max", "hter", "auc", "eer", "bpcer_at_apcer", "tpr_at_fpr"))
    assert set(intervals.of_scores(make_scores([("live", None)]), 0.5)) == set(found)
    one_person = intervals.of_scores(make_scores([("live", 0.9), ("live", 0.2), ("print", 0.1)], ["a"] * 3), 0.5)
    assert one_person["bpcer"]["low"] < 0.05 and one_person["bpcer"]["high"] > 0.95, "one person says next to nothing"


def test_an_interval_holds_its_figure_and_widens_with_the_level() -> None:
    scores = correlated(np.random.default_rng(3), 12, 5)
    whole = metrics.at_threshold(scores, 0.5) | metrics.ranking(scores)
    narrow, wide = (intervals.of_scores(scores, 0.5, Settings(level)) for level in (0.8, 0.99))
    for name in ("bpcer", "apcer_pooled", "apcer_max", "hter", "auc", "eer"):
        assert wide[name]["low"] <= narrow[name]["low"] <= whole[name] <= narrow[name]["high"] <= wide[name]["high"]
    at_threshold = intervals.of_scores(scores, 0.5, ranking=False)
    assert set(at_threshold) == {"apcer", *intervals.RATES}
    rates = intervals.rates(scores, 0.5)
    assert all(rates[name] == at_threshold[name] for name in rates)


def test_operating_points_need_attacks_and_people() -> None:
    """BPCER at an APCER of 10 % takes 10 attacks of each type to exist and 37 people to have an upper bound."""

    def points(num_subjects: int, attacks: int) -> tuple[dict, dict]:
        scores = correlated(np.random.default_rng(5), num_subjects, attacks, spread=0.2)
        scores.attack_type[~scores.live] = "print"
        return metrics.ranking(scores), intervals.of_scores(scores, 0.5)

    figures, bounds = points(3, 3)
    assert figures["bpcer_at_apcer"] == dict.fromkeys(("0.1", "0.05", "0.01"))
    assert bounds["bpcer_at_apcer"] == figures["bpcer_at_apcer"]
    figures, bounds = points(36, 1)
    few = bounds["bpcer_at_apcer"]["0.1"]
    assert few["low"] <= figures["bpcer_at_apcer"]["0.1"] and few["high"] is None
    assert few["indicative"]["high"] > 0.1, "36 people do not show that an APCER of 10 % is kept"
    assert figures["bpcer_at_apcer"]["0.01"] is None and bounds["tpr_at_fpr"]["0.001"] is None
    figures, bounds = points(80, 2)
    enough = bounds["bpcer_at_apcer"]["0.1"]
    assert enough["low"] <= figures["bpcer_at_apcer"]["0.1"] <= enough["high"] < 1 and "indicative" not in enough
    tpr = bounds["tpr_at_fpr"]["0.01"]
    assert tpr["low"] is None and tpr["high"] >= figures["tpr_at_fpr"]["0.01"] and tpr["indicative"]["low"] < 0.01


def test_an_indicative_figure_has_the_apcer_that_its_threshold_was_chosen_for() -> None:
    """The largest of the types for BPCER at an APCER, of all attacks for TPR at an FPR."""
    scores = correlated(np.random.default_rng(5), 30, 4, spread=0.2)
    assert len(set(scores.attack_type[~scores.live])) == 2
    found = intervals.of_scores(scores, 0.5)
    for family, target, name in (
        ("bpcer_at_apcer", "0.1", "apcer_max"),
        ("tpr_at_fpr", "0.01", "apcer_pooled"),
    ):
        at = metrics.operating_threshold(scores, family, float(target))
        both = intervals.rates(scores, at)
        assert both["apcer_max"] != both["apcer_pooled"]
        assert found[family][target]["indicative"] == both[name]


def test_settings_of_older_verdicts_load() -> None:
    assert Settings.of({}) == Settings()
    old = {"confidence": 0.9, "method": "bootstrap, bca", "resample": "people", "replicates": 2000, "seed": 4}
    assert Settings.of(old) == Settings(0.9, seed=4)
    assert Settings.of(Settings(0.8, 5000, 3).describe()) == Settings(0.8, 5000, 3)


def correlated(random: np.random.Generator, num_subjects: int, clips: int, spread: float = 1.0) -> Scores:
    """Each person has `clips` live and `clips` attack videos, shifted by what the person is like."""
    person = np.repeat(np.arange(num_subjects), 2 * clips)
    live = np.tile(np.arange(2 * clips) < clips, num_subjects)
    shift = random.normal(size=(2, num_subjects)) * spread
    z = np.where(live, 1.3 + shift[0, person], -1.3 + shift[1, person]) + random.normal(size=len(person))
    n = len(person)
    kinds = np.where(live, "live", np.where(np.arange(n) % 3 == 0, "print", "replay")).astype(object)
    names = np.array([str(i) for i in range(n)], dtype=object)
    groups = np.array([f"p{i}" for i in person], dtype=object)
    ok = np.full(n, OK, dtype=object)
    return Scores(
        names, names, 1 / (1 + np.exp(-z)), live.astype(np.float64), groups, kinds, np.full(n, 4), np.ones(n), ok
    )
