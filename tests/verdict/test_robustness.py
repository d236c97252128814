"""The robustness table: figures at the frozen threshold, paired differences, and whose evaluation it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livetrain.verdict import metrics, robustness, verdict
from tests.verdict.helpers import make_scores

KINDS = ["live", "live", "print", "replay"] * 10
CLEAN = make_scores([(kind, 0.9 if kind == "live" else 0.1) for kind in KINDS], [f"p{i // 4}" for i in range(40)])


def changed(num: int) -> list[tuple[str, float]]:
    """The clean rows with the first `num` live clips refused."""
    rows, left = [], num
    for kind in KINDS:
        refuse = kind == "live" and left > 0
        left -= refuse
        rows.append((kind, 0.2 if refuse else 0.9 if kind == "live" else 0.1))
    return rows


def test_figures_and_differences_are_those_of_the_scores() -> None:
    worse = make_scores(changed(10), CLEAN.subject.tolist())
    found = robustness.build(CLEAN, {"blur": ("blurred", worse), "same": ("the same", CLEAN)}, 0.5)
    blur, same = found["rows"]
    assert blur["bpcer"]["rate"] == 0.5 == metrics.at_threshold(worse, 0.5)["bpcer"]
    assert blur["difference"]["bpcer"]["value"] == 0.5 and blur["difference"]["hter"]["value"] == 0.25
    # Five of ten people fail: 2 in 2^5 patterns of signs are as far from 0, and five people are too few to tell.
    change = blur["difference"]["bpcer"]
    assert change["low"] < 0 < 0.8 < change["high"] and change["apart"] is None
    assert change["p_adjusted"] == pytest.approx(8 * 2 / 2**5), "of eight differences in the table"
    assert blur["bpcer"]["low"] < 0.5 < blur["bpcer"]["high"] and blur["apcer_max"]["rate"] == 0
    assert all(part["value"] == 0 and part["apart"] is False for part in same["difference"].values())
    assert all(part["low"] == pytest.approx(-part["high"], abs=0.02) for part in same["difference"].values())
    everybody = robustness.build(CLEAN, {"dark": ("dark", make_scores(changed(20), CLEAN.subject.tolist()))}, 0.5)
    change = everybody["rows"][0]["difference"]["bpcer"]
    assert change["apart"] and change["p_adjusted"] == pytest.approx(4 * 2 / 2**10)
    json.dumps(found, allow_nan=False)


def test_differences_are_paired_by_key_and_over_clips_that_both_have() -> None:
    rows: list[tuple[str, float | None]] = [*changed(1)]
    rows[1] = ("live", None)
    found = robustness.build(CLEAN, {"crop": ("cropped", make_scores(rows, CLEAN.subject.tolist()))}, 0.5)["rows"][0]
    assert found["num_failed"] == 1
    assert found["difference"]["bpcer"]["value"] == pytest.approx(1 / 19)
    backwards = type(CLEAN)(*(getattr(CLEAN, name)[::-1] for name in CLEAN.__dataclass_fields__))
    again = robustness.build(CLEAN, {"x": ("backwards", backwards)}, 0.5)["rows"][0]
    assert all(part["value"] == 0 and part["apart"] is False for part in again["difference"].values())


def test_without_a_class_there_are_no_figures_but_no_failure_either() -> None:
    lives = make_scores([("live", 0.9), ("live", 0.1)], ["a", "a"])
    row = robustness.build(lives, {"x": ("x", lives)}, 0.5)["rows"][0]
    assert row["apcer_max"] == {"rate": None, "low": None, "high": None} and row["auc"] is None
    alone = row["difference"]["bpcer"]
    assert (alone["value"], alone["low"], alone["high"]) == (0, pytest.approx(-0.975), pytest.approx(0.975))
    assert set(row["difference"]["hter"].values()) == {None}


def test_a_table_of_another_evaluation_is_known(tmp_path: Path) -> None:
    built = verdict.build(CLEAN, CLEAN)
    assert robustness.read(tmp_path / "robustness.json", built) is None
    found = robustness.build(CLEAN, {"same": ("the same", CLEAN)}, built["threshold"])
    (tmp_path / "robustness.json").write_text(json.dumps(found))
    read = robustness.read(tmp_path / "robustness.json", built)
    assert read and not read["stale"] and read["rows"] == found["rows"]
    other = verdict.build(CLEAN, make_scores(changed(3), CLEAN.subject.tolist()))
    assert (robustness.read(tmp_path / "robustness.json", other) or {})["stale"]
    columns, rows = robustness.table(found)
    assert [row[0] for row in rows] == ["none", "the same"] and all(len(row) == len(columns) for row in rows)
