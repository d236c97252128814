"""Error rates against counting by hand, on examples worked on paper and on any scores hypothesis thinks of."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from livetrain.verdict import metrics
from tests.verdict.helpers import make_scores

KINDS = ("live", "print", "replay")


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kinds, live, p_live) of 2 to 30 clips with both classes and many ties."""
    kinds = draw(
        st.lists(st.sampled_from(KINDS), min_size=2, max_size=30).filter(lambda k: 0 < k.count("live") < len(k))
    )
    values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
    p_live = draw(hnp.arrays(np.float64, len(kinds), elements=values))
    kind = np.array(kinds, dtype=object)
    return kind, kind == "live", p_live


def rates(live: np.ndarray, p_live: np.ndarray, threshold: float) -> tuple[float, float]:
    """(FPR, FNR) by counting."""
    accepted = [p >= threshold for p in p_live.tolist()]
    attacks = [a for a, is_live in zip(accepted, live, strict=True) if not is_live]
    people = [a for a, is_live in zip(accepted, live, strict=True) if is_live]
    return sum(attacks) / len(attacks), people.count(False) / len(people)


def candidates(p_live: np.ndarray) -> list[float]:
    """Thresholds, one for each way of parting the scores."""
    return [*sorted(set(p_live.tolist())), float("inf")]


@given(labelled_scores())
def test_curves_are_counts(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, live, p_live = case
    thresholds, fpr, fnr = metrics.error_curves(live, p_live)
    assert (fpr[0], fnr[0], fpr[-1], fnr[-1]) == (0, 1, 1, 0)
    assert {*thresholds.tolist()} == {*candidates(p_live)}
    for threshold, a, b in zip(thresholds, fpr, fnr, strict=True):
        assert (a, b) == pytest.approx(rates(live, p_live, threshold))


@given(labelled_scores())
def test_auc_is_the_share_of_pairs_in_order(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, live, p_live = case
    pairs = [(a > b) + (a == b) / 2 for a in p_live[live] for b in p_live[~live]]
    assert metrics.auc(live, p_live) == pytest.approx(np.mean(pairs))


@given(labelled_scores())
def test_eer_is_on_the_roc_where_both_errors_are_equal(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The crossing of FNR = FPR with the polygon through the counted points, sought segment by segment."""
    _, live, p_live = case
    points = [rates(live, p_live, t) for t in reversed(candidates(p_live))]
    crossings = []
    for (fpr0, fnr0), (fpr1, fnr1) in zip(points, points[1:], strict=False):
        gap0, gap1 = fnr0 - fpr0, fnr1 - fpr1
        if gap0 >= 0 >= gap1:
            part = gap0 / (gap0 - gap1) if gap0 != gap1 else 0.0
            crossings.append(fpr0 + part * (fpr1 - fpr0))
    assert metrics.eer(live, p_live) == pytest.approx(min(crossings)) == pytest.approx(max(crossings))


@given(labelled_scores())
def test_eer_variants_are_within_the_errors_of_the_closest_point(case: tuple) -> None:
    _, live, p_live = case
    variants = metrics.eer_variants(live, p_live)
    gap = min(abs(a - b) for a, b in (rates(live, p_live, t) for t in candidates(p_live)))
    fpr, fnr = rates(live, p_live, metrics.eer_threshold(live, p_live))
    assert abs(fpr - fnr) == pytest.approx(gap)
    assert variants["mean"] == pytest.approx((fpr + fnr) / 2) and variants["fpr"] == pytest.approx(fpr)


@given(labelled_scores())
def test_threshold_is_midway_between_scores(case: tuple) -> None:
    _, live, p_live = case
    threshold = metrics.eer_threshold(live, p_live)
    above, below = p_live[p_live >= threshold], p_live[p_live < threshold]
    if len(above) and len(below) and threshold not in above:
        assert threshold - below.max() == pytest.approx(above.min() - threshold, rel=1e-6)


def test_threshold_between_neighbouring_numbers() -> None:
    low, high = 0.5, float(np.nextafter(0.5, 1))
    threshold = metrics.eer_threshold(np.array([True, False]), np.array([high, low]))
    assert threshold == high


@given(labelled_scores(), st.floats(0, 1))
def test_rates_at_a_threshold(case: tuple, threshold: float) -> None:
    kinds, live, p_live = case
    found = metrics.at_threshold(make_scores(list(zip(kinds, p_live.tolist(), strict=True))), threshold)
    for kind in set(kinds[~live].tolist()):
        accepted = [p >= threshold for k, p in zip(kinds, p_live, strict=True) if k == kind]
        assert found["apcer"][kind] == pytest.approx(sum(accepted) / len(accepted))
    fpr, fnr = rates(live, p_live, threshold)
    assert found["apcer"].keys() == set(kinds[~live].tolist())
    assert found["apcer_max"] == max(found["apcer"].values()) >= found["apcer_pooled"] == pytest.approx(fpr)
    assert found["bpcer"] == pytest.approx(fnr) and found["hter"] == pytest.approx((fpr + fnr) / 2)
    assert found["acer_legacy_max"] == pytest.approx((found["apcer_max"] + fnr) / 2)


@given(labelled_scores(), st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.34, 1.0]))
def test_bpcer_at_apcer_is_the_best_that_keeps_to_it(case: tuple, target: float) -> None:
    kinds, live, p_live = case
    allowed = []
    for threshold in candidates(p_live):
        worst = max((p_live[kinds == kind] >= threshold).mean() for kind in set(kinds[~live].tolist()))
        if worst <= target:
            allowed.append(rates(live, p_live, threshold)[1])
    assert metrics.bpcer_at_apcer(kinds, live, p_live, target) == pytest.approx(min(allowed))


def test_an_example_on_paper() -> None:
    """Four live, three prints, two replays; the threshold 0.5 refuses one live and lets two attacks in."""
    scores = make_scores(
        [("live", 0.9), ("live", 0.8), ("live", 0.6), ("live", 0.3)]
        + [("print", 0.7), ("print", 0.2), ("print", 0.1), ("replay", 0.5), ("replay", 0.4)]
    )
    found = metrics.at_threshold(scores, 0.5)
    assert found["apcer"] == pytest.approx({"print": 1 / 3, "replay": 1 / 2})
    assert (found["apcer_max"], found["apcer_pooled"], found["bpcer"]) == pytest.approx((0.5, 0.4, 0.25))
    assert found["hter"] == pytest.approx(0.325) and found["acer_legacy_max"] == pytest.approx(0.375)
    ranking = metrics.ranking(scores)
    assert ranking["auc"] == pytest.approx(16 / 20)  # 0.3 is under three attacks, 0.6 under one
    # The ROC goes (0.2, 0.25) → (0.4, 0.25): FNR is 0.25 where FPR passes 0.25.
    assert ranking["eer"] == pytest.approx(0.25)
    assert ranking["eer_variants"]["mean"] == pytest.approx(0.225) and ranking["eer_variants"]["fpr"] == 0.2
    # No print nor replay may pass: the threshold is above 0.7, two of four live stay out. But of two replays one that
    # passes is 50 %: they say nothing of an APCER of 10 %.
    assert metrics.bpcer_at_apcer(scores.attack_type, scores.live, scores.p_live, 0.1) == 0.5
    assert metrics.operating_threshold(scores, "bpcer_at_apcer", 0.1) == pytest.approx(0.75)
    assert ranking["bpcer_at_apcer"] == {"0.1": None, "0.05": None, "0.01": None}


def test_failures_to_acquire_are_counted_beside_the_rates() -> None:
    rows = [("live", 0.9), ("live", None), ("print", 0.1), ("print", None), ("print", None)]
    scores = make_scores(rows)
    assert metrics.failures(scores) == {
        "num": 3, "num_no_face": 0, "rate": 0.6, "rate_live": 0.5, "rate_attack": pytest.approx(2 / 3),
        "rate_by_type": {"print": pytest.approx(2 / 3)},
    }  # fmt: skip
    whole = make_scores([row for row in rows if row[1] is not None])
    found, without = metrics.at_threshold(scores, 0.05), metrics.at_threshold(whole, 0.05)
    assert (found.pop("with_failures"), without.pop("with_failures")) == (
        {"apcer_max": pytest.approx(1 / 3), "bpcer": 0.5},
        {"apcer_max": 1.0, "bpcer": 0.0},
    )
    assert found == without
    assert metrics.ranking(scores) == metrics.ranking(whole)


def test_one_class_only() -> None:
    lives, attacks = make_scores([("live", 0.2), ("live", 0.7)]), make_scores([("print", 0.2)])
    assert metrics.at_threshold(lives, 0.5) == {
        "apcer": {}, "apcer_max": None, "apcer_pooled": None, "bpcer": 0.5, "hter": None, "acer_legacy_max": None,
        "acer_legacy_pooled": None, "apcer_plus_bpcer": None, "with_failures": {"apcer_max": None, "bpcer": 0.5},
    }  # fmt: skip
    assert metrics.at_threshold(attacks, 0.1)["bpcer"] is None
    for scores in (lives, attacks):
        assert set(metrics.ranking(scores).values()) == set(metrics.summary(scores).values()) == {None}
    with pytest.raises(ValueError, match="both"):
        metrics.error_curves(np.array([True]), np.array([0.5]))
    with pytest.raises(ValueError, match="NaN"):
        metrics.auc(np.array([True, False]), np.array([0.5, np.nan]))


def test_summary_is_that_of_the_own_threshold() -> None:
    scores = make_scores([("live", 0.9), ("live", 0.4), ("print", 0.5), ("print", 0.1)])
    assert metrics.summary(scores) == {"auc": 0.75, "eer": 0.5, "hter": 0.5}


@given(labelled_scores(), st.sampled_from([0.0, 0.001, 0.01, 0.34, 1.0]))
def test_tpr_at_fpr_is_the_best_that_keeps_to_it(case: tuple, target: float) -> None:
    _, live, p_live = case
    points = [rates(live, p_live, threshold) for threshold in candidates(p_live)]
    assert metrics.tpr_at_fpr(live, p_live, target) == pytest.approx(max(1 - b for a, b in points if a <= target))


def test_of_equally_close_thresholds_counts_decide_not_rounding() -> None:
    """1/2 - 1/3 and 2/3 - 1/2 are one number on paper and two as floats."""
    live, p_live = np.array([1, 1, 0, 0, 0], bool), np.array([0.9, 0.2, 0.8, 0.5, 0.1])
    assert metrics.eer_threshold(live, p_live) == pytest.approx(0.65)
    variants = metrics.eer_variants(live, p_live)
    assert (variants["mean"], variants["fpr"]) == (pytest.approx(5 / 12), pytest.approx(1 / 3))


def test_no_chosen_threshold_is_dominated_by_an_equally_good_one() -> None:
    """FPR 1/2 with FNR 3/4 and with FNR 1/4 are equally close; the second refuses fewer and accepts no more."""
    live = np.array([0, 1, 1, 1, 1, 0], bool)
    p_live = np.array([0.9, 0.8, 0.6, 0.6, 0.5, 0.1])
    assert metrics.eer_threshold(live, p_live) == pytest.approx(0.55)
    live, p_live = np.array([1, 1, 0], bool), np.array([0.9, 0.8, 0.1])
    assert metrics.cost_threshold(live, p_live, 1.0, 0.0) == pytest.approx(0.45), "refusing everybody is as cheap"


@settings(max_examples=200)
@given(labelled_scores())
def test_the_eer_threshold_by_fractions(case: tuple) -> None:
    _, live, p_live = case
    num_live, num_attack = int(live.sum()), int((~live).sum())
    points = [
        (int((p_live[~live] >= at).sum()), int((p_live[live] < at).sum()))
        for at in [np.inf, *sorted(set(p_live.tolist()), reverse=True)]
    ]
    gap = [abs(Fraction(a, num_attack) - Fraction(r, num_live)) for a, r in points]
    tied = [point for point, one in zip(points, gap, strict=True) if one == min(gap)]
    wanted = [point for point in tied if point[0] == tied[0][0]][-1]
    at = metrics.eer_threshold(live, p_live)
    assert (int((p_live[~live] >= at).sum()), int((p_live[live] < at).sum())) == wanted


def test_an_apcer_of_just_the_target_is_within_it() -> None:
    """20 attacks, one above the live scores: APCER 5 % is no more than 5 %."""
    p = np.array([0.6] * 5 + [0.9] + [0.1] * 19)
    live, kinds = p == 0.6, np.where(p == 0.6, "live", "print")
    assert metrics.apcer_threshold(kinds, live, p, 0.05) == pytest.approx(0.35)
    assert metrics.apcer_threshold(kinds, live, p, 0.049) > 0.9
