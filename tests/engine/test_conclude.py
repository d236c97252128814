"""What a run leaves behind for its report: per-clip details, per-frame scores, the robustness table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from livetrain.data import Dataset
from livetrain.data.perturb import PERTURBATIONS
from livetrain.verdict import details, scores
from tests.runs import small_config, train_here


@pytest.fixture(scope="module")
def run(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conclude") / "run"
    options = ("train.max_steps=1", "eval.num_frames=3", "eval.robustness=true")
    train_here(small_config(demo_shards, folder, *options), with_report=True)
    return folder


def test_frames_add_up_to_the_clips_score(run: Path) -> None:
    for split in ("dev", "test"):
        found = scores.read(run / "scores" / f"{split}.csv")
        of = details.read(run / "scores" / f"{split}_details.csv", found.key.tolist())
        assert len(of) == len(found) > 0
        for index, key in enumerate(found.key.tolist()):
            p = np.array(of[key].frame_p_live)
            assert len(of[key].frames) == 3 and of[key].frame_shares == pytest.approx([1 / 3] * 3, abs=1e-5)
            mean = 1 / (1 + np.exp(-np.log(p / (1 - p)).mean()))  # pool=mean: log-odds are averaged
            assert mean == pytest.approx(found.p_live[index], abs=1e-4)


def test_details_are_those_of_the_videos(run: Path, demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    found = scores.read(run / "scores" / "test.csv")
    of = details.read(run / "scores" / "test_details.csv", found.key.tolist())
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


def test_robustness_is_measured_at_the_frozen_threshold(run: Path) -> None:
    found, verdict = (json.loads((run / name).read_text()) for name in ("robustness.json", "verdict.json"))
    assert [row["name"] for row in found["rows"]] == [item.name for item in PERTURBATIONS]
    assert found["threshold"] == verdict["threshold"]
    assert found["clean"]["hter"]["rate"] == verdict["test"]["hter"]
    assert len({row["auc"] for row in found["rows"]}) > 1, "perturbations change scores"
    page = (run / "report.html").read_text()
    assert "shortened: the first half" in page and "another evaluation" not in page
    assert "p_live of each frame alone" in page and 'alt="Frame 3 of 3' in page
