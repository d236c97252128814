"""The threshold: chosen on dev alone by the named criterion, stored, read back, frozen."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.config import Config, VerdictConfig
from livetrain.core.errors import UserError
from livetrain.verdict import calibration, threshold
from livetrain.verdict.threshold import Made
from tests.verdict.helpers import make_scores
from tests.verdict.test_metrics import candidates, labelled_scores, rates

DEV = make_scores([("live", 0.9), ("live", 0.7), ("live", 0.4), ("print", 0.5), ("print", 0.2), ("replay", 0.1)])
TEST = make_scores([("live", 0.8), ("print", 0.3)])
OTHER = make_scores([("live", 0.3), ("print", 0.6), ("print", 0.65)])


@settings(max_examples=40)
@given(labelled_scores(), st.sampled_from([0.0, 0.05, 0.34]), st.sampled_from([0.1, 1.0, 7.0]))
def test_each_criterion_is_the_best_of_all_thresholds(case: tuple, most: float, cost: float) -> None:
    kinds, live, p_live = case
    dev = make_scores(list(zip(kinds.tolist(), p_live.tolist(), strict=True)))

    def worst(at: float) -> float:
        return max((p_live[kinds == kind] >= at).mean() for kind in set(kinds[~live].tolist()))

    def chosen(criterion: str) -> float:
        asked = VerdictConfig(criterion=criterion, max_apcer=most, attack_cost=cost, live_cost=1.0)
        return threshold.fit(dev, asked).threshold

    points = [(*rates(live, p_live, at), worst(at)) for at in candidates(p_live)]
    fpr, fnr = rates(live, p_live, chosen("min_hter"))
    assert fpr + fnr == pytest.approx(min(a + b for a, b, _ in points))
    fpr, fnr = rates(live, p_live, chosen("cost"))
    assert cost * fpr + fnr == pytest.approx(min(cost * a + b for a, b, _ in points))
    fpr, fnr = rates(live, p_live, chosen("eer"))
    assert abs(fpr - fnr) == pytest.approx(min(abs(a - b) for a, b, _ in points))
    for criterion, target in (("max_apcer", most), ("bpcer20", 0.05)):
        at = chosen(criterion)
        assert worst(at) <= target
        assert rates(live, p_live, at)[1] == pytest.approx(min(b for _, b, c in points if c <= target))


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    assert threshold.read(tmp_path) is None
    fitted = threshold.fit(DEV, VerdictConfig(criterion="max_apcer", max_apcer=0.25), Made(dev_split="fold0"))
    path = threshold.write(tmp_path, fitted)
    assert path.name == "threshold.json" and threshold.read(tmp_path) == fitted
    assert (fitted.dev_split, fitted.dev_num_clips, fitted.dev_num_subjects) == ("fold0", 6, 3)
    assert "no attack type's APCER above 25 % on fold0" in fitted.describe()
    for damage in ("{", '{"format": 2}', path.read_text().replace('"threshold"', '"level"')):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"threshold\.json: cannot be read"):
            threshold.read(tmp_path)


def test_it_is_never_fitted_on_a_test_split() -> None:
    with pytest.raises(UserError, match="never fitted on a test split, and fold2 is one"):
        threshold.fit(DEV, VerdictConfig(), Made(dev_split="fold1+fold2", test_splits=("fold2+fold3",)))
    with pytest.raises(UserError, match="the same videos"):
        threshold.choose(DEV, DEV, VerdictConfig(), stored=None)
    with pytest.raises(UserError, match="holdout split has only live clips"):
        threshold.fit(make_scores([("live", 0.5)]), VerdictConfig(), Made(dev_split="holdout"))


def test_other_data_are_judged_by_the_frozen_threshold() -> None:
    eer, cost = VerdictConfig(), VerdictConfig(criterion="cost", attack_cost=3.0)
    stored = threshold.choose(DEV, TEST, eer, stored=None)
    assert threshold.choose(OTHER, TEST, eer, stored=stored) is stored
    assert threshold.choose(make_scores([]), TEST, eer, stored=stored) is stored
    with pytest.raises(UserError, match="its threshold is frozen"):
        threshold.choose(OTHER, TEST, cost, stored=stored)
    with pytest.raises(UserError, match="the checkpoint has no threshold"):
        threshold.choose(OTHER, TEST, eer, stored=None, may_fit=False)
    again = threshold.choose(DEV, TEST, cost, stored=stored)
    assert again.criterion == "cost" and "3 x APCER" in again.describe()


def test_the_digest_is_of_the_videos_not_of_their_scores_or_order() -> None:
    turned = DEV.select(np.arange(len(DEV))[::-1])
    other_scores = dataclasses.replace(DEV, p_live=1 - DEV.p_live)
    assert threshold.digest(DEV) == threshold.digest(turned) == threshold.digest(other_scores)
    assert threshold.digest(DEV) != threshold.digest(DEV.select(np.arange(5)))


def test_calibration_error_on_paper() -> None:
    live, p_live = np.array([True, False, True, False]), np.array([0.9, 0.92, 0.1, 0.12])
    # Two bins of two videos: means 0.91 and 0.11, half of each live.
    assert calibration.expected_calibration_error(live, p_live, 5) == pytest.approx((0.41 + 0.39) / 2)
    assert calibration.expected_calibration_error(np.array([True]), np.array([1.0])) == 0
    assert calibration.expected_calibration_error(np.array([], bool), np.array([])) is None


def test_temperature_undoes_what_made_scores_too_sure() -> None:
    random = np.random.default_rng(0)
    logit = random.normal(size=20_000) * 2
    live = random.random(len(logit)) < 1 / (1 + np.exp(-logit))
    sure = 1 / (1 + np.exp(-3 * logit))
    temperature = calibration.fit_temperature(live, sure)
    assert temperature == pytest.approx(3, rel=0.05)
    raw, better = (
        calibration.expected_calibration_error(live, p)
        for p in (sure, calibration.apply_temperature(sure, temperature))
    )
    assert raw is not None and better is not None and better < 0.02 < raw
    assert calibration.apply_temperature(sure, 1.0) == pytest.approx(sure, abs=1e-6)
    assert calibration.fit_temperature(np.array([True, False]), np.array([0.9, 0.1])) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="both"):
        calibration.fit_temperature(np.array([True]), np.array([0.5]))
    with pytest.raises(ValueError, match="NaN"):
        calibration.fit_temperature(np.array([True, False]), np.array([0.5, np.nan]))


def test_a_threshold_belongs_to_a_way_of_scoring(tmp_path: Path) -> None:
    config = Config()
    own = threshold.scoring_of(config)
    config.eval.aggregate = "max"
    highest = threshold.scoring_of(config)
    stored = threshold.choose(DEV, TEST, VerdictConfig(), stored=None, made=Made(scoring=own, checkpoint="best-1"))
    higher = dataclasses.replace(DEV, p_live=np.sqrt(DEV.p_live))
    again = threshold.choose(
        higher, TEST, VerdictConfig(), stored=stored, made=Made(scoring=highest, checkpoint="best-1")
    )
    assert (stored.scoring, again.scoring) == (own, highest) and again.threshold > stored.threshold
    with pytest.raises(UserError, match="eval.aggregate=model, not max.*the same settings first"):
        threshold.choose(OTHER, TEST, VerdictConfig(), stored=stored, made=Made(scoring=highest))

    beside, made = tmp_path / "checkpoints" / "best-1", tmp_path / threshold.EVALUATIONS / "max"
    threshold.write(beside, stored)
    assert threshold.find(tmp_path, beside, highest, trained=own) == stored, "choose() then refuses or fits again"
    threshold.write(made, again)
    assert threshold.find(tmp_path, beside, own, trained=own) == stored
    assert threshold.find(tmp_path, beside, highest, trained=own) == again
    other_weights = beside.with_name("best-2")
    assert threshold.find(tmp_path, other_weights, highest, trained=own) is None


def test_a_threshold_belongs_to_weights(tmp_path: Path) -> None:
    """Other weights in a folder of the same name get one of their own, on the run's own dev split alone."""
    known = {"scoring": {"a": 1}, "checkpoint": "best-1"}
    stored = threshold.fit(DEV, VerdictConfig(), Made(weights_sha256="one", **known))
    assert (
        threshold.choose(DEV, TEST, VerdictConfig(), stored=stored, made=Made(weights_sha256="one", **known)) == stored
    )
    again = threshold.choose(DEV, TEST, VerdictConfig(), stored=stored, made=Made(weights_sha256="two", **known))
    assert again.weights_sha256 == "two"
    with pytest.raises(UserError, match=r"belongs to scores made with other weights \(best-1\)"):
        threshold.choose(OTHER, TEST, VerdictConfig(), stored=stored, made=Made(weights_sha256="two", **known))
    threshold.write(tmp_path / "evaluations" / "x", stored)
    (tmp_path / "best-1").mkdir()
    for weights, found in (("one", stored), ("two", None), ("", stored)):
        asked = {"trained": {}, "weights_sha256": weights}
        assert threshold.find(tmp_path, tmp_path / "best-1", {"a": 1}, **asked) == found


def test_a_file_of_an_older_version_is_of_the_runs_own_scoring(tmp_path: Path) -> None:
    path = threshold.write(tmp_path / "best-1", threshold.fit(DEV, VerdictConfig()))
    content = json.loads(path.read_text()) | {"format": 1}
    del content["scoring"], content["checkpoint"]
    path.write_text(json.dumps(content))
    own = threshold.scoring_of(Config())
    found = threshold.find(tmp_path, path.parent, own, trained=own)
    assert found is not None and (found.scoring, found.checkpoint) == (own, "best-1")


def test_settings_without_effect_are_no_other_scoring() -> None:
    config = Config()
    own = threshold.scoring_of(config)
    config.eval.top_frames, config.eval.trim, config.data.frame_stride = 7, 0.1, 3
    assert threshold.scoring_of(config) == own
    config.eval.aggregate = "topk"
    assert "eval.top_frames=unset, not 7" in threshold.other_scoring(own, threshold.scoring_of(config))


def test_faces_are_scored_at_one_scale_or_at_several() -> None:
    config = Config()
    config.data.crop, config.data.face_scale = "face", 1.5
    one = threshold.scoring_of(config)
    assert one["data.face_scale"] == 1.5 and "data.face_multi_scale" not in one
    config.data.face_multi_scale = [1.0, 2.0]
    several = threshold.scoring_of(config)
    assert several["data.face_multi_scale"] == [1.0, 2.0] and "data.face_scale" not in several


@pytest.mark.parametrize(("key", "value"), [("temperature", 0.0), ("threshold", math.inf)])
def test_numbers_out_of_range_are_refused(key: str, value: float, tmp_path: Path) -> None:
    path = threshold.write(tmp_path, threshold.fit(DEV, VerdictConfig()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match="a number out of range"):
        threshold.read(tmp_path)
