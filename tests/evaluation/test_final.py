"""What a run leaves behind for its report: per-clip details, per-frame scores, the robustness table."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from livetrain.data import Dataset
from livetrain.data.perturb import PERTURBATIONS
from livetrain.tracking.environment import COMMIT, code_version
from livetrain.verdict import clip_metadata, provenance, scores, threshold, verdict
from livetrain.verdict.scores import Scores
from tests.runs import small_config, train_here
from tests.verdict.helpers import make_scores


@pytest.fixture(scope="module")
def run(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conclude") / "run"
    options = ("train.max_steps=1", "eval.num_frames=3", "eval.robustness=true")
    train_here(small_config(demo_shards, folder, *options), with_report=True)
    return folder


@pytest.mark.slow
def test_frames_add_up_to_the_clips_score(run: Path) -> None:
    for split in ("dev", "test"):
        found = scores.read(run / "scores" / f"{split}.csv")
        of = clip_metadata.read(run / "scores" / f"{split}_details.csv", found.key.tolist())
        assert len(of) == len(found) > 0
        for index, key in enumerate(found.key.tolist()):
            p = np.array(of[key].frame_p_live)
            assert len(of[key].frames) == 3 and of[key].frame_shares == pytest.approx([1 / 3] * 3, abs=1e-5)
            mean = 1 / (1 + np.exp(-np.log(p / (1 - p)).mean()))  # pool=mean: log-odds are averaged
            assert mean == pytest.approx(found.p_live[index], abs=1e-4)


def test_details_are_those_of_the_videos(run: Path, demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    found = scores.read(run / "scores" / "test.csv")
    of = clip_metadata.read(run / "scores" / "test_details.csv", found.key.tolist())
    for row in dataset.rows("test").tolist():
        item = of[dataset.text("key", row)]
        turned = dataset.column("rotation")[row] % 180 == 90
        stored = (dataset.column("width")[row], dataset.column("height")[row])
        assert (item.width, item.height) == (stored[::-1] if turned else stored)
        assert item.session == dataset.text("session", row) != ""
        assert item.video_seconds == pytest.approx(dataset.column("duration_seconds")[row], rel=1e-4)
        assert item.frames[-1] < dataset.column("num_frames")[row]
        assert item.brightness is not None and 0.05 < item.brightness < 0.95
    assert len({item.brightness for item in of.values()}) > 1


def test_the_verdict_carries_its_chain(run: Path) -> None:
    made_of = json.loads((run / "verdict.json").read_text())["chain"]
    (best,) = (run / "checkpoints").glob("best-*")
    weights = hashlib.sha256((best / "model.safetensors").read_bytes()).hexdigest()
    assert made_of["weights_sha256"] == {best.name: weights}
    assert json.loads((best / "threshold.json").read_text())["weights_sha256"] == weights
    for split in ("dev", "test"):
        path = run / "scores" / f"{split}.csv"
        with path.open(newline="") as file:
            rows = sorted(f"{row['key']},{row['p_live']},{row['status']}\n" for row in csv.DictReader(file))
        assert made_of["scores_sha256"][split] == hashlib.sha256("".join(rows).encode()).hexdigest()
        assert made_of["videos_sha256"][split] == threshold.digest(scores.read(path))
    assert made_of["precision"] == "fp32" and made_of["scoring"]["eval.num_frames"] == 3
    assert made_of["test_evaluations"] == 1 == len((run / "evaluations.jsonl").read_text().splitlines())
    page = (run / "report.html").read_text()
    assert weights in page and made_of["scores_sha256"]["test"] in page


def test_looks_at_the_test_split_are_counted(tmp_path: Path) -> None:
    """Of the same videos, wherever the evaluation went.

    The same scores again are no other look; other videos count apart; a torn line is passed over.
    """
    dev, test = (make_scores([("live", 0.9), ("print", 0.1)], [name, name]) for name in "ab")
    other = make_scores([("live", 0.9)] * 3)

    def scored(p: float) -> Scores:
        return make_scores([("live", p), ("print", 0.1)], ["b", "b"])

    def look(name: str, of: Scores) -> int:
        run_dir = tmp_path / name
        found = provenance.of(
            run_dir, dev, of, weights={"w": "1"}, scoring={}, precision="fp32", code=None, home=tmp_path / "run"
        )
        return found["test_evaluations"]

    assert [look("run", test), look("run/evaluations/x", scored(0.8)), look("run", test)] == [1, 2, 1]
    with (tmp_path / "run" / provenance.EVALUATED).open("a") as file:
        file.write('{"torn\n')
    assert [look("elsewhere", other), look("run", scored(0.7)), look("run", scored(0.8))] == [1, 3, 2]
    built = verdict.build(dev, test, chain={"test_evaluations": 3})
    assert "evaluation 3 of this run on this test split" in verdict.format_text(built)


def test_a_snapshot_knows_the_commit_that_it_was_made_of(tmp_path: Path) -> None:
    """Not that of a repository around it, which is another one when the job runs."""

    def git(*words: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "x")
    version = code_version(tmp_path)
    assert version and len(version) == 40
    (tmp_path / "file").write_text("x")
    assert code_version(tmp_path) == f"{version}+changes"
    snapshot = tmp_path / "runs" / "code"
    snapshot.mkdir(parents=True)
    assert code_version(snapshot) is None, "a folder in a repository is not the repository"
    (snapshot / COMMIT).write_text("abc+changes\n")
    assert code_version(snapshot) == "abc+changes"


def test_robustness_is_measured_at_the_frozen_threshold(run: Path) -> None:
    found, judged = (json.loads((run / name).read_text()) for name in ("robustness.json", "verdict.json"))
    assert [row["name"] for row in found["rows"]] == [item.name for item in PERTURBATIONS]
    assert found["threshold"] == judged["threshold"]
    assert found["clean"]["hter"]["rate"] == judged["test"]["hter"]
    assert len({row["auc"] for row in found["rows"]}) > 1, "perturbations change scores"
    page = (run / "report.html").read_text()
    assert "shortened: the first half" in page and "another evaluation" not in page
    assert "p_live of each frame alone" in page and 'alt="Frame 3 of 3' in page
