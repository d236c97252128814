"""The small difficult files of ../shared/cases, each with its known answer. Generated twins are in kinds.py."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from livetrain.data import Dataset
from livetrain.data.decode import decode_video
from shards.format import index_table
from tests.shards import clips

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases here")
TABLE = list(csv.DictReader((CASES / "cases.csv").open())) if CASES.is_dir() else []
VIDEOS = [row for row in TABLE if row["kind"] == "video"]


def number_shown(picture: np.ndarray) -> int:
    """The number in a frame (see the cases' README); -1 where its blocks and their complement do not differ."""
    rows, columns = (np.linspace(0, side, n + 1) for side, n in zip(picture.shape[:2], (6, 8), strict=True))
    gray = picture.mean(axis=2)
    values = np.empty((2, 8))
    for row in range(2):
        for column in range(8):
            (top, bottom), (left, right) = rows[row : row + 2], columns[column : column + 2]
            inner = [
                round(low + part * (high - low)) for low, high in ((top, bottom), (left, right)) for part in (0.3, 0.7)
            ]
            values[row, column] = gray[inner[0] : inner[1], inner[2] : inner[3]].mean()
    if np.abs(values[0] - values[1]).min() < 24:
        return -1
    return int("".join(str(int(bit)) for bit in values[0] > values[1]), 2)


@pytest.fixture(scope="module", params=["original", "remux", "frames", "transcode"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the videos in one shard folder."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "videos").mkdir()
    for row in VIDEOS:
        shutil.copy(CASES / row["file"], folder / "videos")
    rows = [{"fname": row["file"], "liveness_score": number % 2} for number, row in enumerate(VIDEOS)]
    clips.write_labels(folder / "label.csv", rows, ("fname", "liveness_score"))
    options = ("--num-frames", 60) if request.param == "frames" else ()
    assert clips.build(folder, folder / "s", "--store", request.param, *options) == 0
    return folder / "s"


@pytest.mark.parametrize("row", VIDEOS, ids=lambda row: row["file"])
def test_videos(row: dict[str, str], built: Path) -> None:
    dataset = Dataset.open(built)
    names = dataset.columns["video"].to_pylist()
    if row["outcome"] != "decode":
        assert row["file"] not in names
        assert any(rejected["video"] == row["file"] and rejected["reason"] for rejected in dataset.rejected())
        return
    place = names.index(row["file"])
    facts = index_table.read(built / "index.arrow").to_pylist()[place]
    num_frames, rotation = int(row["num_frames"]), int(row["rotation"])
    assert facts["num_frames"] == num_frames
    turn = facts["rotation"] // 90
    assert facts["rotation"] in (rotation, 0)
    wanted = [tuple(map(int, check.split(":"))) for check in row["checks"].split(";")]

    def shown(frames: list[int]) -> list[np.ndarray]:
        if facts["store"] == "frames":
            import io

            from PIL import Image

            jpegs = dataset.jpeg_bytes(place, np.array(frames))
            return [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs]
        decoded = decode_video(dataset.video_bytes(place), np.array(frames), num_frames)
        return [np.rot90(frame[: facts["height"], : facts["width"]], -turn) for frame in decoded]

    together = shown([frame for frame, _ in wanted])
    for (frame, number), picture in zip(wanted, together, strict=True):
        if facts["store"] != "transcode":  # whole macroblocks
            assert picture.shape[:2] == (int(row["height"]), int(row["width"]))
        assert number_shown(picture) == number_shown(shown([frame])[0]) == number
    if row["file"].startswith("06"):
        shape = facts["width"] * facts["sample_aspect_ratio"] / facts["height"]
        assert shape == pytest.approx(192 / 128, rel=1e-3)
    if row["file"].startswith("14"):
        corner = together[0][: together[0].shape[0] // 3]
        assert corner.min() < 16 and corner.max() > 239


@pytest.mark.parametrize("labels", ["label.csv", "label_bare.csv"])
def test_a_label_file_from_a_spreadsheet(labels: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(CASES / "16_labels" / "videos", folder / "videos")
    shutil.copy(CASES / "16_labels" / labels, folder / "label.csv")
    assert clips.build(folder, tmp_path / "s") == 0
    dataset = Dataset.open(tmp_path / "s")
    expected = list(csv.DictReader((CASES / "16_labels" / "expected.csv").open(encoding="utf-8-sig")))
    found = {dataset.text("video", row): row for row in range(len(dataset))}
    assert sorted(found) == sorted(row["file"] for row in expected)
    for row in expected:
        place = found[row["file"]]
        assert float(dataset.column("label")[place]) == float(row["live"])
        frame = decode_video(dataset.video_bytes(place), np.array([0]), 8)[0]
        assert number_shown(frame) == int(row["first_index"])
