"""The same scores give the figures that other people's code gives, and scikit-learn's.

fixtures/others.json holds what bob.measure, bob.pad.base (`apcer_bpcer`, `bpcer20`) and pyeer said; it names their
versions and the command. fixtures/make.py makes it; those packages need an environment of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from livetrain.config import VerdictConfig
from livetrain.verdict import calibration, metrics, threshold
from livetrain.verdict.scores import Scores
from tests.verdict.helpers import make_scores

OTHERS = json.loads((Path(__file__).parent / "fixtures" / "others.json").read_text(encoding="utf-8"))


def scores_of(case: dict[str, Any]) -> Scores:
    attacks = zip(case["attack_type"], case["attack"], strict=True)
    return make_scores([("live", p) for p in case["live"]] + list(attacks))


@pytest.mark.parametrize("name", sorted(OTHERS["cases"]))
def test_rates_are_bobs(name: str) -> None:
    case = OTHERS["cases"][name]
    for theirs in case["at"].values():
        ours = metrics.at_threshold(scores_of(case), theirs["threshold"])
        assert ours["apcer"] == pytest.approx(theirs["apcer"])
        assert ours["apcer_max"] == pytest.approx(theirs["apcer_max"])
        assert ours["apcer_pooled"] == pytest.approx(theirs["far"])
        assert ours["bpcer"] == pytest.approx(theirs["bpcer"]) == pytest.approx(theirs["frr"])


@pytest.mark.parametrize("name", sorted(OTHERS["cases"]))
def test_our_thresholds_are_as_good_as_bobs_on_their_own_terms(name: str) -> None:
    case = OTHERS["cases"][name]
    dev = scores_of(case)

    def at(criterion: str) -> dict[str, Any]:
        return metrics.at_threshold(dev, threshold.fit(dev, VerdictConfig(criterion=criterion)).threshold)

    theirs = case["at"]["bob_min_hter"]
    assert at("min_hter")["hter"] == pytest.approx((theirs["far"] + theirs["frr"]) / 2)
    theirs = case["at"]["bob_eer"]
    ours = at("eer")
    assert abs(ours["apcer_pooled"] - ours["bpcer"]) <= abs(theirs["far"] - theirs["frr"]) + 1e-12
    theirs, ours = case["at"]["bob_bpcer20"], at("bpcer20")
    assert ours["apcer_max"] <= 0.05
    # bob takes 5 % as near as it comes; where it keeps below, nobody does better than we do.
    assert theirs["apcer_max"] > 0.05 or ours["bpcer"] <= theirs["bpcer"] + 1e-12


@pytest.mark.parametrize("name", sorted(OTHERS["cases"]))
def test_auc_and_eer_are_those_of_pyeer(name: str) -> None:
    case = OTHERS["cases"][name]
    ours = metrics.ranking(scores_of(case))
    # pyeer takes the mean of both rates at the closest of its thresholds (our `mean`), which are others by a score.
    step = 1 / min(len(case["live"]), len(case["attack"]))
    assert ours["eer_variants"]["mean"] == pytest.approx(case["pyeer"]["eer"], abs=step)
    assert ours["auc"] == pytest.approx(case["pyeer"]["auc"], abs=step)


@pytest.mark.parametrize("name", sorted(OTHERS["cases"]))
def test_figures_are_those_of_scikit_learn(name: str) -> None:
    scores = scores_of(OTHERS["cases"][name])
    ours = metrics.at_threshold(scores, 0.5) | metrics.ranking(scores)
    accepted = scores.p_live >= 0.5
    (_, fp), (fn, tp) = confusion_matrix(scores.live, accepted)
    assert ours["bpcer"] == pytest.approx(fn / (fn + tp)) and ours["apcer_pooled"] == pytest.approx(
        fp / (~scores.live).sum()
    )
    assert ours["hter"] == pytest.approx(1 - balanced_accuracy_score(scores.live, accepted))
    assert ours["auc"] == pytest.approx(roc_auc_score(scores.live, scores.p_live))
    p_live = np.clip(scores.p_live - 1e-4, 0, 1)  # off the edges of bins, which belong to the other bin there
    observed, predicted = calibration_curve(scores.live, p_live, n_bins=5)
    counts = np.bincount((p_live * 5).astype(int), minlength=5)
    wanted = float((np.abs(observed - predicted) * counts[counts > 0]).sum() / counts.sum())
    found = calibration.expected_calibration_error(scores.live, p_live, 5)
    assert found == pytest.approx(wanted)
