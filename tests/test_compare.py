"""Runs compared on the same videos: what the data can tell apart, who is right where they differ, the sheet of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from livetrain import cli
from livetrain.errors import UserError
from livetrain.verdict import compare, scores, verdict
from livetrain.verdict.compare import Judged
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import Scores
from tests.verdict.helpers import make_scores
from tests.verdict.test_intervals import correlated

FEW = Settings(replicates=300)


def people(num: int, wrong: int, seed: int = 0) -> Scores:
    """`num` people with two live and two attack clips each; of `wrong` people one live clip is refused."""
    random = np.random.default_rng(seed)
    rows, groups = [], []
    for person in range(num):
        rows += [("live", 0.9), ("live", 0.2 if person < wrong else 0.8), ("print", 0.1), ("print", 0.05)]
        groups += [f"p{person}"] * 4
    jitter = random.uniform(0, 0.01, len(rows))
    return make_scores([(kind, p + j) for (kind, p), j in zip(rows, jitter.tolist(), strict=True)], groups)


def by_figure(found: dict) -> dict[str, dict]:
    return {row["figure"]: row for row in found["differences"]}


def test_a_clear_difference_is_told_apart_and_a_small_one_is_not() -> None:
    good = Judged("good", people(30, 1), 0.5)
    bad, like = Judged("bad", people(30, 20), 0.5), Judged("like", people(30, 2), 0.5)
    row = by_figure(compare.pair(good, bad, FEW))["bpcer"]
    assert row["difference"] == pytest.approx(19 / 60) and row["apart"] and row["more_units"] == 0
    assert (
        row["sentence"].startswith("BPCER: bad is 31.67 points higher than good")
        and "tell them apart" in row["sentence"]
    )
    row = by_figure(compare.pair(good, like, FEW))["bpcer"]
    assert not row["apart"] and row["low"] <= 0 < row["high"] and row["more_units"] > 30
    assert "cannot tell them apart" in row["sentence"] and f"{row['more_units']:,} more people" in row["sentence"]
    same = by_figure(compare.pair(good, good, FEW))
    assert all(row["difference"] == 0 and not row["apart"] and row["more_units"] is None for row in same.values())
    assert "are alike" in same["hter"]["sentence"]


def test_pairing_narrows_what_both_find_hard() -> None:
    one = correlated(np.random.default_rng(1), 30, 5, spread=2.0)
    other = one.select(np.arange(len(one)))
    other.p_live[:] = np.clip(one.p_live + np.random.default_rng(2).normal(0, 0.01, len(one)), 0, 1)
    found = compare.pair(Judged("a", one, 0.5), Judged("b", other, 0.5), FEW)
    row = by_figure(found)["bpcer"]
    from livetrain.verdict import intervals

    alone = intervals.of_scores(one, 0.5, FEW)["bpcer"]
    assert row["high"] - row["low"] < (alone["high"] - alone["low"]) / 4


def test_more_people_on_paper() -> None:
    """Standard error 1 / 1.96 with 10 people; a difference of 0.5 needs ((1.96 + 0.84) / 1.96 / 0.5)^2 as many."""
    row = {"low": -0.5, "high": 1.5, "difference": 0.5}
    assert compare.more_units(row, 10, 0.95) == 72  # 81.7 - 10, rounded up
    assert compare.more_units(row | {"low": 0.1}, 10, 0.95) == 0
    assert compare.more_units(row | {"difference": 0}, 10, 0.95) is None


def test_discordant_clips_say_who_is_right() -> None:
    one = make_scores([("live", 0.9), ("live", 0.4), ("print", 0.6), ("print", 0.1), ("print", None)])
    other = make_scores([("live", 0.3), ("live", 0.4), ("print", 0.2), ("print", 0.2), ("print", 0.2)])
    found = compare.pair(Judged("a", one, 0.5), Judged("b", other, 0.5), FEW)
    assert [(c["key"], c["p_one"], c["p_other"], c["right"]) for c in found["discordant"]] == [
        ("clip0", 0.9, 0.3, "one"),
        ("clip2", 0.6, 0.2, "other"),
    ]
    assert (found["num_clips"], found["num_left_out"]) == (4, 2)


def test_runs_on_other_videos_or_labels_are_refused() -> None:
    one = Judged("a", make_scores([("live", 0.9), ("print", 0.1)]), 0.5)
    with pytest.raises(UserError, match="different labels of clip0"):
        compare.pair(one, Judged("b", make_scores([("print", 0.9), ("print", 0.1)]), 0.5), FEW)
    with pytest.raises(UserError, match="no scored test video in common"):
        compare.pair(one, Judged("b", make_scores([]), 0.5), FEW)


def make_run(folder: Path, test: Scores, learning_rate: float) -> Path:
    dev = people(6, 0, seed=5)
    (folder / "scores").mkdir(parents=True)
    scores.write(folder / "scores" / "dev.csv", dev)
    scores.write(folder / "scores" / "test.csv", test)
    (folder / "verdict.json").write_text(json.dumps(verdict.build(dev, test)))
    (folder / "config.yaml").write_text(f"name: {folder.name}\noptim: {{lr: {learning_rate}, name: adamw}}\n")
    lines = [{"kind": "train", "step": s, "loss": 1.0, "step_seconds": 36.0} for s in (50, 100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text('{"num_processes": 4, "device": "GPU"}')
    return folder


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_run(tmp_path / "runs" / "a<b>", people(12, 1), 0.1)
    other = make_run(tmp_path / "runs" / "c", people(12, 9), 0.2)
    assert cli.main(["compare", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "BPCER" in told and told.strip().splitlines()[-1] == str(tmp_path / "out" / "comparison.html")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "a&lt;b&gt; is right" in page and "<b>" not in page and "no picture" in page
    pairs = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert len(pairs) == 1 and len(pairs[0]["discordant"]) == 8

    assert cli.main(["leaderboard", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a<b>"), "the lowest HTER comes first"
    rows = list(csv.DictReader((tmp_path / "runs" / "leaderboard.csv").open()))
    assert [row["run"] for row in rows] == ["a<b>", "c"] and [row["optim.lr"] for row in rows] == ["0.1", "0.2"]
    assert "optim.name" not in rows[0] and "name" not in rows[0]
    assert float(rows[0]["train_hours"]) == pytest.approx(1) and float(rows[0]["device_hours"]) == pytest.approx(4)
    for row in rows:
        assert float(row["bpcer_low"]) <= float(row["bpcer"]) <= float(row["bpcer_high"])
    assert "leaderboard.html" in [path.name for path in (tmp_path / "runs").iterdir()]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in [
        ([str(tmp_path)], "needs two runs; for all runs of a folder: livetrain leaderboard"),
        ([str(tmp_path), str(tmp_path)], "livetrain evaluate"),
        ([str(tmp_path), str(tmp_path), "--wandb", "p"], "--wandb takes"),
        ([str(tmp_path), "--nonsense"], "--nonsense"),
    ]:
        assert cli.main(["compare", *arguments]) == 2
        assert says in capsys.readouterr().err
    assert cli.main(["leaderboard", str(tmp_path)]) == 2
    assert "holds no evaluated runs" in capsys.readouterr().err
    assert cli.main(["leaderboard", str(tmp_path), str(tmp_path)]) == 2
    assert "takes one folder" in capsys.readouterr().err
