"""A run on face crops from training to prediction: the same boxes everywhere, clips without a face counted apart."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from livetrain import evaluate as evaluate_verb
from livetrain import load_model
from livetrain.core.errors import UserError
from livetrain.data import Dataset
from livetrain.inference import package
from livetrain.inference.ensemble import combine
from livetrain.inference.video_scorer import face_options
from livetrain.report import page
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import clip_metadata, scores
from shards import cli
from shards.faces.blazeface import BlazeFace
from shards.format import face_table
from tests.runs import forget_accelerator, small_config, train_here
from tests.shards.faces import clips

pytest.importorskip("dlib")

pytestmark = pytest.mark.slow  # a run on face crops, scored again and again

FACE = ("data.crop=face", "data.face_missing=skip", "train.max_steps=2", "eval.num_frames=3", "train.global_batch=2")


@pytest.fixture(scope="module")
def run(face_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run") / "run"
    train_here(small_config(face_shards, run_dir, *FACE))
    return run_dir


def paths(folder: Path, found: scores.Scores) -> list[Path]:
    return [folder / "videos" / name for name in found.video.tolist()]


def test_clips_without_a_face_are_failures_of_their_own_kind(run: Path) -> None:
    test = scores.read(run / "scores" / "test.csv")
    status = dict(zip(test.video.tolist(), test.status.tolist(), strict=True))
    assert status[clips.NO_FACE] == scores.NO_FACE and set(status.values()) == {scores.OK, scores.NO_FACE}
    verdict = RunDir(run).read_verdict()
    assert verdict["test"]["failure_to_acquire"]["num_no_face"] == verdict["test"]["failure_to_acquire"]["num"] == 1
    assert "1 of 3 clips of test have no face: they are left out" in verdict["notices"]
    assert "without a face" in page.write(run).read_text()


def test_face_heights_are_in_the_metadata_and_the_slices(run: Path) -> None:
    keys = scores.read(run / "scores" / "test.csv").key.tolist()
    details = clip_metadata.read(run / "scores" / "test_details.csv", keys)
    heights = {key: item.face_height for key, item in details.items()}
    assert heights.pop("empty") is None
    true = clips.true_box(0)
    assert all(height == pytest.approx(true[2] - true[0], rel=0.1) for height in heights.values())


@pytest.mark.parametrize("overrides", [(), ("data.face_multi_scale=[1.0,1.6]",)])
def test_prediction_scores_what_evaluation_scores(
    run: Path, face_videos: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    folder = run
    if overrides:
        forget_accelerator()
        assert evaluate_verb.main([str(run), f"run_dir={tmp_path / 'other'}", *overrides]) == 0
        folder = tmp_path / "other"
    known = scores.read(folder / "scores" / "test.csv")
    packaged = package.write(package.load(run, overrides), tmp_path / "package")
    for model in (load_model(run, *overrides), load_model(packaged)):
        found = model.predict(paths(face_videos, known))
        assert [item.status for item in found] == known.status.tolist()
        scored = known.scored
        mine = np.array([item.p_live for item in found], dtype=float)
        assert np.abs(mine[scored] - known.p_live[scored]).max() <= 1e-6 and np.isnan(mine[~scored]).all()
    description = json.loads((packaged / package.DESCRIPTION).read_text())
    assert description["faces"]["detector"].startswith("blazeface") and description["faces"]["num_frames"] == 6
    assert "square around the face" in description["preprocessing"]["crop"]


def test_another_detector_is_refused_everywhere(
    run: Path, face_shards: Path, face_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = package.write(package.load(run), tmp_path / "package")
    monkeypatch.setattr(BlazeFace, "name", "another 2.0")
    with pytest.raises(
        UserError,
        match=r"package was trained on faces found by blazeface: BlazeFace .* here is blazeface: another 2\.0",
    ):
        load_model(packaged)
    other = Path(shutil.copytree(face_shards, tmp_path / "other"))
    assert cli.main(["faces", str(other), "--num-frames", "6", "--overwrite", "--workers", "1"]) == 0
    forget_accelerator()
    assert evaluate_verb.main([str(run), f"data.shards={other}", f"run_dir={tmp_path / 'e'}"]) == 2


def test_a_run_goes_on_with_the_boxes_it_began_with_alone(
    run: Path, face_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    again = Path(shutil.copytree(face_shards, tmp_path / "shards"))
    assert cli.main(["faces", str(again), "--num-frames", "7", "--overwrite"]) == 0
    with pytest.raises(UserError, match="was begun with faces found by blazeface.* 6 frames a clip"):
        train_here(small_config(again, folder, *FACE[:2], "train.max_steps=3", *FACE[3:]))
    (folder / "faces.json").write_text("{")
    with pytest.raises(UserError, match=r"faces\.json: cannot be read"):
        train_here(small_config(face_shards, folder, *FACE[:2], "train.max_steps=3", *FACE[3:]))


def test_models_of_one_ensemble_find_faces_in_one_way_and_data_sets_as_the_model(run: Path, face_shards: Path) -> None:
    trained = package.load(run)
    dataset = Dataset.open(face_shards)
    package.check_faces(trained, dataset)
    other = dataclasses.replace(trained, facts=trained.facts | {"faces": trained.facts["faces"] | {"num_frames": 9}})
    with pytest.raises(UserError, match="9 frames a clip, .* has .* 6 frames a clip"):
        package.check_faces(other, dataset)
    with pytest.raises(UserError, match="another model of the ensemble has"):
        face_options([trained, other])
    unknown = dataclasses.replace(trained, facts={})
    with pytest.raises(UserError, match="does not say how they were found"):
        face_options([unknown])
    one, two = (scores.read(run / "scores" / "test.csv") for _ in range(2))
    assert combine([one, two], np.array([0.5, 0.5])).status.tolist() == one.status.tolist()


def test_damaged_faces_end_no_run_that_does_not_use_them(
    face_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(face_shards, tmp_path / "broken"))
    (broken / face_table.FILE_NAME).write_bytes(b"no faces")
    train_here(small_config(broken, tmp_path / "run", "train.max_steps=1", "train.global_batch=2"))
    assert "warning: no face heights in the clip metadata" in capsys.readouterr().err


def test_clips_that_are_seen_whole_are_told_in_the_verdict(run: Path, tmp_path: Path) -> None:
    forget_accelerator()
    out = tmp_path / "whole"
    assert evaluate_verb.main([str(run), f"run_dir={out}", "data.face_missing=whole"]) == 0
    with (out / "scores" / "test.csv").open(newline="") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"ok"}
    assert "1 of 3 clips of test have no face: the whole frame is used" in RunDir(out).read_verdict()["notices"]


def test_sources_whose_faces_were_found_differently_are_refused(face_shards: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(face_shards, tmp_path / "other"))
    assert cli.main(["faces", str(other), "--num-frames", "7", "--overwrite"]) == 0
    both = f"data.sources=[{face_shards},{other}]"
    with pytest.raises(UserError, match=r"other has blazeface.* 7 frames a clip"):
        train_here(small_config(Path(), tmp_path / "run", "data.shards=", both, *FACE, "data.allow_leak=true"))
    table, about = face_table.read(other / face_table.FILE_NAME)
    assert table.num_rows == 8 and about["num_frames"] == 7
