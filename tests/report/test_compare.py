"""Runs compared on the same videos: what the data can tell apart, who is right where they differ, the sheet of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from livetrain import cli
from livetrain.core.errors import UserError
from livetrain.verdict import comparison, intervals, paired, scores, verdict
from livetrain.verdict.comparison import Judged
from livetrain.verdict.paired import Difference
from livetrain.verdict.scores import Scores
from tests.verdict.helpers import make_scores
from tests.verdict.test_intervals import correlated


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


def pair(one: Judged, other: Judged) -> dict:
    (found,) = comparison.pairs(one, [other])
    return found


def test_a_clear_difference_is_told_apart_and_a_small_one_is_not() -> None:
    good = Judged("good", people(30, 1), 0.5)
    bad, like = Judged("bad", people(30, 20), 0.5), Judged("like", people(30, 2), 0.5)
    row = by_figure(pair(good, bad))["bpcer"]
    assert row["difference"] == pytest.approx(19 / 60) and row["apart"] and row["more_units"] == 0
    assert row["p"] == pytest.approx(2 / 2**19) and row["num_differing"] == 19
    assert row["beyond_these_people"] and row["low"] > 0
    assert row["sentence"].startswith("BPCER: bad is 31.67 points higher than good")
    assert "they differ, on other people of this kind too (p < 0.001)" in row["sentence"]
    row = by_figure(pair(good, like))["bpcer"]
    assert row["apart"] is None and row["low"] <= 0 < row["high"]
    assert "outcomes differ for 1 of 30 people: too few to tell" in row["sentence"]
    same = by_figure(pair(good, good))
    assert all(row["difference"] == 0 and row["apart"] is False for row in same.values())
    assert "decide alike on these people" in same["hter"]["sentence"]


def test_what_is_not_told_apart_says_how_many_more_people_it_would_take() -> None:
    random = np.random.default_rng(4)
    one, other = (
        make_scores(
            [("live", 0.2 if random.random() < rate else 0.9) for _ in range(80)] + [("print", 0.1)] * 40,
            [f"p{i % 40}" for i in range(120)],
        )
        for rate in (0.2, 0.3)
    )
    row = by_figure(pair(Judged("a", one, 0.5), Judged("b", other, 0.5)))["bpcer"]
    assert row["apart"] is False and row["num_differing"] >= 8 and row["more_units"] > 0
    assert "cannot tell them apart" in row["sentence"] and f"{row['more_units']:,} more people" in row["sentence"]


def test_runs_that_differ_on_few_people_are_said_to_differ_on_these() -> None:
    """Nine people, one video each, all for the worse: the flips tell, the interval for other people does not."""
    one, other = (
        make_scores([("live", p)] * 9 + [("print", 0.1)] * 9, [f"p{i % 9}" for i in range(18)]) for p in (0.9, 0.2)
    )
    rows = by_figure(pair(Judged("a", one, 0.5), Judged("b", other, 0.5)))
    assert rows["bpcer"]["apart"] and rows["bpcer"]["beyond_these_people"]
    half = make_scores(
        [("live", 0.2 if i < 9 else 0.9) for i in range(90)] + [("print", 0.1)] * 90, [f"p{i % 90}" for i in range(180)]
    )
    good = make_scores([("live", 0.9)] * 90 + [("print", 0.1)] * 90, [f"p{i % 90}" for i in range(180)])
    row = by_figure(pair(Judged("a", good, 0.5), Judged("b", half, 0.5)))["bpcer"]
    assert row["apart"] and row["num_differing"] == 9
    two = [make_scores([("live", p)] * 2 + [("print", 0.1)] * 2, ["a", "b"] * 2) for p in (0.9, 0.2)]
    row = by_figure(pair(Judged("a", two[0], 0.5), Judged("b", two[1], 0.5)))["bpcer"]
    assert row["apart"] is None and row["more_units"] is None and "more people" not in row["sentence"]


def test_p_values_are_adjusted_for_all_pairs_of_the_page() -> None:
    good, bad = Judged("good", people(30, 1), 0.5), Judged("bad", people(30, 10), 0.5)
    alone = by_figure(pair(good, bad))["bpcer"]
    many = comparison.pairs(good, [bad, Judged("worse", people(30, 29), 0.5), Judged("as good", people(30, 1, 3), 0.5)])
    assert [one["other"] for one in many] == ["bad", "worse", "as good"]
    row = by_figure(many[0])["bpcer"]
    assert row["p"] == alone["p"] < alone["p_adjusted"] < row["p_adjusted"]


def test_pairing_narrows_what_both_find_hard() -> None:
    one = correlated(np.random.default_rng(1), 30, 5, spread=2.0)
    other = one.select(np.arange(len(one)))
    other.p_live[:] = np.clip(one.p_live + np.random.default_rng(2).normal(0, 0.01, len(one)), 0, 1)
    row = by_figure(pair(Judged("a", one, 0.5), Judged("b", other, 0.5)))["bpcer"]
    alone = intervals.of_scores(one, 0.5)["bpcer"]
    error = (alone["high"] - alone["low"]) / 4
    item = paired.of_differences(one, other, (0.5, 0.5), ["bpcer"], intervals.Settings())["bpcer"]
    assert item.error < error / 4 and row["difference"] == item.difference


def test_more_people_on_paper() -> None:
    """Standard error 1 / 1.96 with 10 people; a difference of 0.5 needs ((1.96 + 0.84) / 1.96 / 0.5)^2 as many."""
    item = Difference(0.1, 0.6, -0.5, 1.5, (-0.5, 1.5), 1 / 1.959964, 0.3, 8)
    assert comparison.more_units(item, 10, 0.95) == 72  # 81.7 - 10, rounded up
    assert comparison.more_units(item, 9, 0.95) is None, "too few people say how much people differ"
    assert comparison.more_units(Difference(0.1, 0.1, -0.5, 0.5, (-0.5, 0.5), 0.5, 1, 0), 10, 0.95) is None


def test_discordant_clips_say_who_is_right() -> None:
    one = make_scores([("live", 0.9), ("live", 0.4), ("print", 0.6), ("print", 0.1), ("print", None)])
    other = make_scores([("live", 0.3), ("live", 0.4), ("print", 0.2), ("print", 0.2), ("print", 0.2)])
    found = pair(Judged("a", one, 0.5), Judged("b", other, 0.5))
    assert [(c["key"], c["p_one"], c["p_other"], c["right"]) for c in found["discordant"]] == [
        ("clip0", 0.9, 0.3, "one"),
        ("clip2", 0.6, 0.2, "other"),
    ]
    assert (found["num_clips"], found["num_left_out"]) == (4, 2)


def test_runs_on_other_videos_or_labels_are_refused() -> None:
    one = Judged("a", make_scores([("live", 0.9), ("print", 0.1)]), 0.5)
    with pytest.raises(UserError, match="different labels of clip0"):
        pair(one, Judged("b", make_scores([("print", 0.9), ("print", 0.1)]), 0.5))
    with pytest.raises(UserError, match="no scored test video in common"):
        pair(one, Judged("b", make_scores([]), 0.5))


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
    message = capsys.readouterr().out
    assert "BPCER" in message and message.strip().splitlines()[-1] == str(tmp_path / "out" / "comparison.html")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "a&lt;b&gt; is right" in page and "<b>" not in page and "no picture" in page
    pairs = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert len(pairs) == 1 and len(pairs[0]["discordant"]) == 8

    assert cli.main(["leaderboard", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("a<b>") and "Ranked by dev EER." in lines and max(map(len, lines[:-1])) <= 80
    rows = list(csv.DictReader((tmp_path / "runs" / "leaderboard.csv").open()))
    assert [row["run"] for row in rows] == ["a<b>", "c"] and [row["optim.lr"] for row in rows] == ["0.1", "0.2"]
    assert "optim.name" not in rows[0] and "name" not in rows[0]
    assert float(rows[0]["train_hours"]) == pytest.approx(1) and float(rows[0]["device_hours"]) == pytest.approx(4)
    for row in rows:
        assert float(row["bpcer_low"]) <= float(row["bpcer"]) <= float(row["bpcer_high"])
    assert "leaderboard.html" in [path.name for path in (tmp_path / "runs").iterdir()]

    (other / "config.yaml").write_text("optim: [1")
    assert cli.main(["leaderboard", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert f"{other / 'config.yaml'}: cannot be read as YAML" in said and "Traceback" not in said


def test_test_ranks_nothing_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that is best on dev comes first, whatever test says; with --sort test it says what that means."""
    folder = tmp_path / "runs"
    for name, dev_wrong, test_wrong in (
        ("good-on-dev", 0, 9),
        ("good-on-test", 4, 1),
        ("with-a-very-long-name" * 6, 2, 2),
    ):
        run = make_run(folder / name, people(12, test_wrong), 0.1)
        path = run / "verdict.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"dev": found["dev"] | {"eer": dev_wrong / 12}}))
    assert cli.main(["leaderboard", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0][:9] for line in lines[1:4]] == ["good-on-d", "with-a-ve", "good-on-t"]
    assert max(map(len, lines[:-1])) <= 80 and "…" in lines[2]
    assert [row["run"][:9] for row in csv.DictReader((folder / "leaderboard.csv").open())][0] == "good-on-d"
    assert cli.main(["leaderboard", str(folder), "--sort", "test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("good-on-test") and any("looks better than it is" in line for line in lines)


def test_runs_on_other_videos_are_groups_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    for name, num in (("a", 12), ("b", 6), ("c", 12)):
        make_run(folder / name, people(num, 1), 0.1)
    assert cli.main(["leaderboard", str(folder)]) == 0
    message = capsys.readouterr().out
    assert "do not compare" in message and "group" in message.splitlines()[0]
    found = [(row["run"], row["group"]) for row in csv.DictReader((folder / "leaderboard.csv").open())]
    assert found == [("a", "1"), ("c", "1"), ("b", "2")]


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
