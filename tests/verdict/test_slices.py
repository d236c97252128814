"""Slices: the right clips in each, intervals that know of people, worst first. Details: what is written is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livetrain.core.errors import UserError
from livetrain.verdict import clip_metadata, intervals, slices
from livetrain.verdict.clip_metadata import Details
from tests.verdict.helpers import make_scores


def test_details_come_back(tmp_path: Path) -> None:
    path = tmp_path / "test_details.csv"
    whole = Details("s,1", "phone", "zalo", 240, 320, 2.5, 30.0, 0.25, 0.5, (3, 11), (0.25, 0.123457), (0.5, 0.5))
    clip_metadata.write(path, {"a": whole, "b": Details()})
    assert clip_metadata.read(path, ["b", "a"]) == {"b": Details(), "a": whole}
    with pytest.raises(UserError, match="no row for c"):
        clip_metadata.read(path, ["c"])
    path.write_text(path.read_text().replace("0.25", "dark"))
    with pytest.raises(UserError, match="cannot be read.*livetrain evaluate"):
        clip_metadata.read(path, ["a"])
    assert clip_metadata.read(tmp_path / "absent.csv", ["a"]) == {}


def test_each_domain_has_the_temperature_of_its_own_scores() -> None:
    # Right in 88 of 100 clips of either class, as a log-odds of 2 says; the other domain's are three times as sure.
    live = np.arange(400) % 2 == 0
    right = np.arange(400) // 2 % 100 < 88
    logits = np.where(live == right, 2.0, -2.0) * np.where(np.arange(400) >= 200, 3, 1)
    p = 1 / (1 + np.exp(-logits))
    scores = make_scores([("live" if of else "print", float(value)) for of, value in zip(live, p, strict=True)])
    details = {f"clip{i}": Details(domain="far" if i >= 200 else "near") for i in range(400)}
    found = {item["value"]: item for item in slices.slices(scores, details, 0.5)}
    assert found["near"]["temperature"] == pytest.approx(1, rel=0.02)
    assert found["far"]["temperature"] == pytest.approx(3, rel=0.02)
    assert found["print"]["temperature"] is None, "one class alone"
    columns, rows = slices.table(list(found.values()))
    assert [row[columns.index("temperature")] for row in rows] == [item["temperature"] for item in found.values()]


def test_intervals_of_slices_are_those_of_the_verdict() -> None:
    """They are over people, and of one person alone as wide as can be."""
    wrong = [("live", 0.1)] * 10 + [("live", 0.9)] * 30
    scores = make_scores(wrong, people=np.repeat(["a", "b", "c", "d"], 10).tolist())
    of = {f"clip{i}": Details(device="new" if i < 20 else "old", session=str(i // 5 % 2)) for i in range(40)}
    found = {(item["attribute"], item["value"]): item["bpcer"] for item in slices.slices(scores, of, 0.5)}
    whole = intervals.of_scores(scores.select(np.arange(20)), 0.5, ranking=False)["bpcer"]
    assert (found["device", "new"]["low"], found["device", "new"]["high"]) == (whole["low"], whole["high"])
    assert found["device", "old"]["high"] == pytest.approx(intervals.clopper_pearson(0, 2, 0.95)[1])
    other = {(i["attribute"], i["value"]): i for i in slices.slices(scores, of, 0.5, intervals.Settings(0.8))}
    narrow = other["session", "0"]["bpcer"]
    assert narrow["high"] - narrow["low"] < found["session", "0"]["high"] - found["session", "0"]["low"]
    alone = make_scores([("live", 0.1), ("live", 0.9), ("live", 0.9)], people=["a", "a", "b"])
    of = {"clip0": Details(device="x"), "clip1": Details(device="x"), "clip2": Details(device="y")}
    first, second = slices.slices(alone, of, 0.5)
    assert {first["value"], second["value"]} == {"x", "y"}
    x = next(item["bpcer"] for item in (first, second) if item["value"] == "x")
    assert (x["num"], x["errors"], x["rate"]) == (2, 1, 0.5) and x["low"] < 0.05 and x["high"] > 0.95


def test_slices_have_their_clips_and_the_worst_comes_first() -> None:
    kinds = (
        [("live", 0.9)] * 10 + [("live", 0.1)] * 10 + [("print", 0.1)] * 10 + [("replay", 0.8)] * 2 + [("print", None)]
    )
    scores = make_scores(kinds, people=[f"p{i}" for i in range(33)])
    of = {
        f"clip{i}": Details(
            device="old" if 10 <= i < 20 else "new", width=4, height=3, video_seconds=float(i), brightness=0.5
        )
        for i in range(33)
    }
    found = slices.slices(scores, of, 0.5)
    by_name = {(item["attribute"], item["value"]): item for item in found}
    assert found[0]["attribute"] == "device" and found[0]["value"] == "old"
    old, new = by_name["device", "old"], by_name["device", "new"]
    assert (old["num_clips"], old["apcer"], old["bpcer"]["errors"], old["bpcer"]["num"]) == (10, None, 10, 10)
    assert (new["num_clips"], new["apcer"]["errors"], new["apcer"]["num"], new["bpcer"]["errors"]) == (22, 2, 12, 0)
    replay = by_name["attack type", "replay"]
    assert replay["apcer"]["rate"] == 1.0 and replay["bpcer"] is None and replay["num_subjects"] == 2
    assert found.index(replay) > 0, "two of two are less sure to be bad than ten of ten"
    lengths = [item for item in found if item["attribute"] == "length"]
    assert sorted(item["value"] for item in lengths) == ["0.0 s to 10.3 s", "10.3 s to 20.7 s", "20.7 s to 31.0 s"]
    assert sum(item["num_clips"] for item in lengths) == 32
    others = {item["attribute"] for item in found} - {"attack type", "device", "length"}
    assert not others, "one value alone, or none, is no slice"


def test_without_details_there_are_attack_types() -> None:
    found = slices.slices(make_scores([("live", 0.9), ("print", 0.7), ("replay", 0.1)]), {}, 0.5)
    assert [item["value"] for item in found] == ["print", "replay"]
    assert slices.slices(make_scores([("live", None)]), {}, 0.5) == []


def test_equal_numbers_are_in_one_third() -> None:
    scores = make_scores([("live", 0.9)] * 9)
    of = {f"clip{i}": Details(video_seconds=1.0 if i < 8 else 2.0) for i in range(9)}
    assert slices.slices(scores, of, 0.5) == []
    of = {f"clip{i}": Details(brightness=[0.1, 0.2, 0.3][i // 3]) for i in range(9)}
    assert sorted(i["num_clips"] for i in slices.slices(scores, of, 0.5)) == [3, 3, 3]
