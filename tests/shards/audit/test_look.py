"""Which frames are looked at, what is kept of them, and whether there are faces."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livetrain.core.engines import LocalEngine
from shards.audit import look, look_table, outliers
from shards.audit.clips import Clips
from shards.format import index_table, manifest
from shards.format.stored_clip import INDEX_COLUMNS, StoredClip
from tests.shards.audit import planted
from tests.shards.audit.test_audit import build


@pytest.mark.parametrize(
    ("num_frames", "rate", "step"),
    [(100, 25.0, 0.12), (250, 25.0, 0.25), (1000, 25.0, 0.25), (16, 25.0, 0.04), (5, 25.0, 0.04), (40, 5.0, 0.2)],
)
def test_frames_lie_evenly_over_the_first_seconds(num_frames: int, rate: float, step: float) -> None:
    seconds = np.arange(num_frames) / rate
    frames = look.sampled(seconds)
    assert frames == sorted(set(frames)) and frames[0] == 0 and len(frames) <= look.MAX_FRAMES
    assert seconds[frames[-1]] < look.MAX_SECONDS
    assert np.median(np.diff(seconds[frames])) == pytest.approx(step, abs=0.045)


def test_single_frames_and_clocks_that_stand_still_are_looked_at() -> None:
    assert look.sampled(np.zeros(1)) == [0]
    assert look.sampled(np.zeros(3)) == [0, 1, 2]


@pytest.mark.parametrize("store", ["original", "frames"])
def test_a_look_shows_the_clip_upright_whatever_the_store(
    store: str, demo_shards: Path, demo_videos: Path, tmp_path: Path
) -> None:
    folder = demo_shards if store == "original" else build(demo_videos, tmp_path / "frames", "--store", "frames")
    content, index = manifest.read(folder), index_table.read(folder / "index.arrow")
    rows = index.select([*INDEX_COLUMNS, "fps", "frame_seconds"]).to_pylist()
    row = next(row for row in rows if store == "frames" or row["rotation"] == 90)
    seen = look.look_at(look.LookTask.of(StoredClip.of(folder, content, row), row, faces=False))
    assert seen.problem == "" and len(seen.thumbnails) == len(seen.seconds) > 3
    with Image.open(io.BytesIO(seen.picture)) as picture:
        turned = row["rotation"] in (90, 270)
        assert (picture.width < picture.height) == ((row["width"] < row["height"]) != turned)
    assert seen.num_faces == () and np.isnan(seen.face_height)


def test_faces_are_counted_measured_and_told_apart(face_shards: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    assert look.can_find_faces()
    content, index = manifest.read(face_shards), index_table.read(face_shards / "index.arrow")
    rows = index.select([*INDEX_COLUMNS, "fps", "frame_seconds"]).to_pylist()
    faces = index_table_faces(face_shards)
    row = next(number for number, reason in enumerate(faces) if not reason)
    clip = StoredClip.of(face_shards, content, rows[row])
    seen = look.look_at(look.LookTask.of(clip, rows[row], faces=True))
    assert seen.num_faces == (1, 1, 1) and 0.1 < seen.face_height < 1 and seen.identity.shape == (128,)


def index_table_faces(folder: Path) -> list[str]:
    from shards.format import face_table

    reasons: list[str] = face_table.read(folder / face_table.FILE_NAME)[0]["reason"].to_pylist()
    return reasons


def test_outliers_are_of_their_kind(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    usual = planted.scene(random, 12)
    lower = (np.arange(72) >= 15).astype(np.uint8)[:, None, None]
    clips = {
        "usual": usual,
        "usual2": planted.scene(random, 12),
        "blank": [np.full((72, 96, 3), 90, np.uint8)] * 12,
        "frozen": [usual[0]] * 12,
        "white": [np.maximum(frame, 255 * lower) for frame in usual],
        "black": [frame * (1 - lower) for frame in usual],
    }
    rows = []
    for number, (name, frames) in enumerate(clips.items()):
        planted.write(tmp_path / "videos" / f"{name}.mp4", frames, 25, crf=4)
        rows.append({"fname": f"{name}.mp4", "liveness_score": str(number % 2), "subject": name})
    planted.label(tmp_path / "label.csv", rows)
    of = Clips.read([build(tmp_path, tmp_path / "shards", "--fractions", "1,0,0")])
    looks = look_table.look_at_all(of, tmp_path / "state", faces=False, engine=LocalEngine())
    found = {kind: [of.name(row) for row in rows] for kind, rows in outliers.find(looks).items()}
    assert found == {
        "blank": ["blank.mp4"], "frozen": ["frozen.mp4"], "over-exposed": ["white.mp4"], "dark": ["black.mp4"],
    }  # fmt: skip
