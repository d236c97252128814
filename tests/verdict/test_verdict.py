"""The verdict: the threshold comes from dev alone and is frozen; what cannot be loaded is said."""

from __future__ import annotations

import json

import pytest

from livetrain.core.errors import UserError
from livetrain.verdict import verdict
from tests.verdict.helpers import make_scores

DEV = make_scores([("live", 0.9), ("live", 0.7), ("print", 0.3), ("replay", 0.1)])
TEST = make_scores([("live", 0.95), ("live", 0.4), ("print", 0.6), ("print", 0.2), ("replay", None)])


def test_the_threshold_of_dev_is_applied_to_test() -> None:
    built = verdict.build(DEV, TEST)
    assert built["threshold"] == 0.5
    assert built["dev"]["hter"] == 0
    test = built["test"]
    assert (test["apcer"], test["bpcer"]) == ({"print": 0.5}, 0.5)
    assert test["failure_to_acquire"]["num"] == 1 and test["num_by_type"] == {"print": 2, "replay": 1}
    assert (test["num_clips"], test["num_live"], test["num_attack"], test["num_subjects"]) == (5, 2, 3, 3)


def test_what_training_saw_is_stated() -> None:
    built = verdict.build(DEV, TEST, trained_on={"live": 1200, "synthetic:moire": 30})
    assert built["trained_on"] == {"live": 1200, "synthetic:moire": 30}
    assert "trained on: live 1,200, synthetic:moire 30" in verdict.format_text(built)
    assert "trained on" not in verdict.format_text(verdict.build(DEV, TEST))


def test_test_scores_do_not_move_the_threshold() -> None:
    other = make_scores([("live", 0.01), ("print", 0.99)])
    assert verdict.build(DEV, other)["threshold"] == verdict.build(DEV, TEST)["threshold"]


def test_it_is_json_and_says_what_its_figures_are() -> None:
    built = verdict.build(DEV, TEST)
    assert json.loads(json.dumps(built, allow_nan=False)) == built
    for name in ("apcer", "apcer_max", "bpcer", "hter", "auc", "eer", "bpcer_at_apcer", "acer_legacy_max"):
        assert name in built["definitions"] and name in built["test"]


@pytest.mark.parametrize(("kind", "says"), [("live", "only live"), ("print", "only attack")])
def test_dev_needs_both_classes(kind: str, says: str) -> None:
    with pytest.raises(UserError, match=f"dev split has {says} clips"):
        verdict.build(make_scores([(kind, 0.5)]), TEST)


def test_a_test_split_of_one_class_still_has_its_rates() -> None:
    built = verdict.build(DEV, make_scores([("live", 0.8), ("live", 0.1)]))
    assert built["test"]["bpcer"] == 0.5 and built["test"]["apcer_max"] is None and built["test"]["auc"] is None


def test_text() -> None:
    text = verdict.format_text(verdict.build(DEV, TEST))
    lines = {line[:24].strip(): line[24:].split() for line in text.splitlines()}
    assert lines["APCER print"][:4] == ["0.00", "%", "50.00", "%"]
    assert lines["APCER replay"] == ["0.00", "%", "-"]
    assert lines["failures to acquire"] == ["0", "1"]
    assert "warning" not in text
    unknown = make_scores([("live", 0.8), ("print", 0.1)], people=["", ""])
    assert "no person is known" in verdict.format_text(verdict.build(DEV, unknown))
