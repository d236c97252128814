"""The demo corpus: the same bytes for any number of workers, decodable, varied, and not solved by its mean colour."""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from livetrain.core.errors import UserError
from shards.demo import corpus as demo

NUM_SUBJECTS = 7
MAX_SECONDS = 1.6  # enough to look at


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "corpus"
    demo.generate(out, num_subjects=NUM_SUBJECTS, clips_per_subject=3, max_seconds=MAX_SECONDS, workers=2)
    return out


def read_labels(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "label.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def upright(frame: av.VideoFrame) -> np.ndarray:
    """PyAV gives the counter-clockwise turn that makes a frame upright."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def blocks(image: np.ndarray) -> np.ndarray:
    height, width = (length // 8 for length in image.shape[:2])
    return image[: height * 8, : width * 8].reshape(height, 8, width, 8, 3).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def videos(corpus: Path) -> dict[str, list[av.VideoFrame]]:
    return {row["fname"]: decode(corpus / "videos" / row["fname"]) for row in read_labels(corpus)}


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    demo.generate(tmp_path, num_subjects=2, clips_per_subject=3, max_seconds=MAX_SECONDS, workers=1)
    for path in sorted((tmp_path / "videos").iterdir()):
        mine, theirs = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, corpus / "videos" / path.name))
        assert mine == theirs, path.name


def test_the_default_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 clips of 12 people, as many of each kind, up to 4 s; nothing is filmed here."""
    filmed: list[demo.Clip] = []
    monkeypatch.setattr(demo.worker_pool, "unordered", lambda work, clips, *_, **__: filmed.extend(clips) or [])
    demo.generate(tmp_path)
    assert len({clip.name for clip in filmed}) == 120 and len({clip.subject for clip in filmed}) == 12
    assert Counter(clip.kind for clip in filmed) == dict.fromkeys(demo.KINDS, 40)
    assert {clip.max_seconds for clip in filmed} == {4.0}


def test_seed_changes_the_videos(tmp_path: Path) -> None:
    for seed in (0, 1):
        demo.generate(tmp_path / str(seed), num_subjects=1, clips_per_subject=1, seed=seed, workers=1)
    first, second = (next((tmp_path / str(seed) / "videos").iterdir()).read_bytes() for seed in (0, 1))
    assert first != second


def test_labels_cover_the_videos_and_every_person_has_every_kind(corpus: Path) -> None:
    rows = read_labels(corpus)
    assert list(rows[0]) == ["fname", "liveness_score", "subject", "attack_type", "session"]
    assert sorted(row["fname"] for row in rows) == sorted(path.name for path in (corpus / "videos").iterdir())
    assert all((row["liveness_score"] == "1") == (row["attack_type"] == "live") for row in rows)
    for subject, theirs in itertools.groupby(rows, key=lambda row: row["subject"]):
        assert sorted(row["attack_type"] for row in theirs) == sorted(demo.KINDS), subject
    assert len({row["subject"] for row in rows}) == NUM_SUBJECTS
    assert len({row["session"] for row in rows}) == demo.NUM_ROOMS


def test_videos_decode_to_what_was_filmed(corpus: Path, videos: dict[str, list[av.VideoFrame]]) -> None:
    for name, frames in videos.items():
        with av.open(str(corpus / "videos" / name)) as container:
            stream = container.streams.video[0]
            fps = stream.average_rate
            assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
            assert stream.frames == len(frames)
        assert fps is not None and 15 <= fps <= 30
        assert 0.95 <= len(frames) / fps <= MAX_SECONDS + 0.05, name
        assert [frame.time for frame in frames] == pytest.approx([i / float(fps) for i in range(len(frames))], abs=1e-3)


def test_formats_are_varied_and_independent_of_the_kind(corpus: Path, videos: dict[str, list[av.VideoFrame]]) -> None:
    formats: dict[str, set[tuple[int, int, int, Fraction | None]]] = {kind: set() for kind in demo.KINDS}
    for row in read_labels(corpus):
        frame = videos[row["fname"]][0]
        with av.open(str(corpus / "videos" / row["fname"])) as container:
            fps = container.streams.video[0].average_rate
        formats[row["attack_type"]].add((frame.width, frame.height, frame.rotation % 360, fps))
    assert formats["live"] == formats["print"] == formats["replay"]
    assert len(formats["live"]) == len(demo.FORMATS)
    assert {rotation for _, _, rotation, _ in formats["live"]} == {0, 90, 180, 270}
    assert any(w > h and not r for w, h, r, _ in formats["live"]) and any(
        w < h and not r for w, h, r, _ in formats["live"]
    )


@pytest.mark.parametrize(
    "kind", [kind if kind == "print" else pytest.param(kind, marks=pytest.mark.slow) for kind in demo.KINDS]
)
def test_rotation_metadata_makes_frames_upright(kind: str, tmp_path: Path) -> None:
    """Decoded and turned as the file says, each clip is the picture that was rendered (within H.264's loss)."""
    turned = [clip for clip in (demo.Clip(0, group, 0, kind) for group in range(7)) if clip.format.rotation]
    assert {clip.format.rotation for clip in turned} == {90, 180, 270}
    for clip in turned:
        demo.write_clip(clip, tmp_path)
        seen = upright(decode(tmp_path / clip.name)[0])
        meant = next(demo.render(clip))
        assert seen.shape == meant.shape
        # Over blocks of 8 x 8 pixels: halftone dots and moire suffer most from H.264.
        assert np.abs(blocks(seen) - blocks(meant)).mean() < 4
        assert np.abs(blocks(seen[::-1, ::-1]) - blocks(meant)).mean() > 16


def test_living_heads_blink_and_turn_and_no_clip_stands_still(videos: dict[str, list[av.VideoFrame]]) -> None:
    """Poses of a living head blink and turn; in every clip the picture moves (a print by the hand that holds it)."""
    for group in range(4):
        random = np.random.default_rng(group)
        poses = list(demo._poses(random, np.arange(30) / 30, 256, 192, 0.7))
        assert max(pose.blink for pose in poses) > 0.5 > min(pose.blink for pose in poses)
        assert np.ptp([pose.yaw for pose in poses]) > 0.01
    for name, frames in videos.items():
        first, last = frames[0].to_ndarray(format="gray8"), frames[-1].to_ndarray(format="gray8")
        assert np.abs(first.astype(int) - last).mean() > 0.5, f"{name} stands still"


def test_mean_colour_does_not_solve_it() -> None:
    """A linear rule on a frame's mean colour, tested on people it has not seen, stays far from a solution."""
    clips = [demo.Clip(0, group, session, kind) for group in range(16) for session in (0, 1) for kind in demo.KINDS]
    colours = [next(demo.render(clip)).mean(axis=(0, 1)) for clip in clips]
    labels = np.array([clip.kind == "live" for clip in clips])
    rule = make_pipeline(StandardScaler(), LogisticRegression())
    folds = GroupKFold(4).split(colours, labels, [clip.subject for clip in clips])
    scores = cross_val_predict(rule, colours, labels, cv=list(folds), method="predict_proba")[:, 1]
    assert roc_auc_score(labels, scores) < 0.8


def test_foreign_files_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"mine\.mp4"):
        demo.generate(tmp_path, num_subjects=1, clips_per_subject=1, workers=1)


@pytest.mark.parametrize(
    "wrong", [{"num_subjects": 0}, {"clips_per_subject": 0}, {"max_seconds": 0.5}, {"workers": 0}, {"seed": -1}]
)
def test_counts_below_one_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        demo.generate(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
