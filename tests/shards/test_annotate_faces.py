"""`python -m shards faces`: tracks beside the index, listed and checked, the same for any number of workers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import annotate_faces as annotate
from shards import cli
from shards.faces.find import ClipTask, Found
from shards.format import face_table, index_table, manifest
from tests.shards.faces import clips

pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def built(face_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without faces."""
    return clips.build(face_videos, tmp_path_factory.mktemp("built") / "shards")


@pytest.fixture
def shards(face_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(face_shards, tmp_path / "shards"))


def tracks(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of faces.arrow by video."""
    table, _ = face_table.read(folder / face_table.FILE_NAME)
    videos = index_table.read(folder / index_table.FILE_NAME)["video"].to_pylist()
    return dict(zip(videos, table.to_pylist(), strict=True))


@pytest.mark.parametrize("video", ["train-live.mp4", "dev-print.mp4", clips.TURNED])
def test_the_track_follows_the_face_in_the_upright_frame(face_shards: Path, video: str) -> None:
    track = tracks(face_shards)[video]
    assert track["frames"] == [1, 3, 5, 7, 9, 11] and len(track["scores"]) == 6 and track["reason"] == ""
    boxes = np.array(track["boxes"]).reshape(-1, 4)
    wanted = np.array([clips.true_box(frame) for frame in track["frames"]])
    assert np.abs(boxes - wanted)[1:-1].max() < 0.06  # the ends are held back by smoothing
    assert (np.diff(boxes[:, 1]) > 0).all()


def test_clips_without_a_face_are_listed_and_counted(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tracks(shards)[clips.NO_FACE] == {"frames": [], "boxes": [], "scores": [], "reason": "no face found"}
    with (shards / annotate.MISSING).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["split"], row["label"], row["reason"]) for row in rows] == [
        (clips.NO_FACE, "test", "1", "no face found")
    ]
    assert cli.main(["faces", str(shards), "--num-frames", "6"]) == 0  # nothing to do: the table again
    out = capsys.readouterr().out
    table = {tuple(line.split()[:2]): line.split()[2:] for line in out.splitlines() if line}
    assert table["test", "live"] == ["1", "1"] and table["train", "live"] == ["2", "0"]


def test_verify_knows_the_file(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not (shards / annotate.STATE_FOLDER).exists()
    assert cli.main(["verify", str(shards)]) == 0
    path = shards / face_table.FILE_NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert cli.main(["verify", str(shards)]) == 1
    assert "faces.arrow: SHA-256 differs" in capsys.readouterr().out


def test_workers_and_a_stop_change_no_byte(
    built: Path, face_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, stopped = (Path(shutil.copytree(built, tmp_path / name)) for name in ("many", "stopped"))
    assert cli.main(["faces", str(many), "--num-frames", "6", "--workers", "2"]) == 0
    looked: list[ClipTask] = []

    def interrupted(task: ClipTask) -> Found:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(task)
        return find(task)

    find = annotate.find_in_clip
    monkeypatch.setattr(annotate, "find_in_clip", interrupted)
    assert cli.main(["faces", str(stopped), "--num-frames", "6", "--workers", "1"]) == cli.EXIT_INTERRUPTED
    assert face_table.FILE_NAME not in manifest.read(stopped)["files"]
    with (stopped / annotate.STATE_FOLDER / "clips.jsonl").open("a") as file:
        file.write('["half a li')  # what a kill leaves
    again: list[ClipTask] = []
    monkeypatch.setattr(annotate, "find_in_clip", lambda task: again.append(task) or find(task))
    assert cli.main(["faces", str(stopped), "--num-frames", "6", "--workers", "1"]) == 0
    assert not set(looked) & set(again) and len(looked) + len(again) == 8
    names = (face_table.FILE_NAME, manifest.FILE_NAME, annotate.MISSING)
    assert all((face_shards / n).read_bytes() == (many / n).read_bytes() == (stopped / n).read_bytes() for n in names)


def test_other_options_are_refused_unless_told(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faces", str(shards), "--num-frames", "3"]) == 2
    assert "num_frames: 6" in capsys.readouterr().err
    assert cli.main(["faces", str(shards), "--num-frames", "3", "--overwrite", "--workers", "1"]) == 0
    assert len(tracks(shards)["train-live.mp4"]["frames"]) == 3
    assert cli.main(["verify", str(shards)]) == 0
    by_dlib = ["faces", str(shards), "--num-frames", "3", "--detector", "dlib", "--upsample", "1", "--workers", "1"]
    assert cli.main(by_dlib) == 2
    assert "detector: blazeface" in capsys.readouterr().err
    assert cli.main([*by_dlib, "--overwrite"]) == 0
    about = face_table.read(shards / face_table.FILE_NAME)[1]
    assert about["detector"].startswith("dlib: dlib") and about["upsample"] == 1


def test_a_build_anew_takes_the_faces_away(face_videos: Path, shards: Path) -> None:
    clips.build(face_videos, shards, "--overwrite", "--seed", "3")
    assert not (shards / face_table.FILE_NAME).exists() and not (shards / annotate.MISSING).exists()
    assert cli.main(["verify", str(shards)]) == 0


def test_jpeg_shards_have_boxes_of_their_frames(face_videos: Path, tmp_path: Path) -> None:
    out = clips.build(face_videos, tmp_path / "jpeg", "--store", "frames", "--num-frames", "4")
    assert cli.main(["faces", str(out), "--num-frames", "2", "--workers", "1"]) == 0
    track = tracks(out)[clips.TURNED]
    assert track["frames"] == [1, 3]  # of the four stored, which are 1, 4, 7 and 10 of the video
    wanted = np.array([clips.true_box(frame) for frame in (4, 10)]).mean(axis=0)
    assert np.abs(np.array(track["boxes"]).reshape(-1, 4).mean(axis=0) - wanted).max() < 0.05


def test_a_clip_that_does_not_decode_is_told_apart(built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "s"))
    row = next(r for r in index_table.read(out / index_table.FILE_NAME).to_pylist() if r["video"] == "train-live.mp4")
    tar = out / json.loads((out / "dataset.json").read_text())["shards"][row["shard"]]["name"]
    with tar.open("rb+") as file:
        file.seek(row["offset"])
        file.write(bytes(row["size"]))
    assert cli.main(["faces", str(out), "--num-frames", "1", "--workers", "1"]) == 0
    assert tracks(out)["train-live.mp4"]["reason"].startswith("cannot be decoded: ")


def test_a_folder_that_is_no_build_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faces", str(tmp_path)]) == 2
    assert "dataset.json" in capsys.readouterr().err
