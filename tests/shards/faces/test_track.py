"""shards/faces/track.py: linking, filling and smoothing made-up detections; small and dark real faces."""

from __future__ import annotations

import numpy as np
import pytest

from shards.faces import track
from shards.faces.detector import DETECTORS, Detections, open_detector
from tests.shards.faces.portrait import portrait


def seen(*faces: tuple[float, float, float, float]) -> Detections:
    """Square faces: (row and column of the centre, side, score)."""
    boxes = [(y - side / 2, x - side / 2, y + side / 2, x + side / 2) for y, x, side, _ in faces]
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array([f[3] for f in faces], np.float32))


def centres(found: list[track.Seen]) -> list[tuple[int, float]]:
    return [(position, round(float(box[1] + box[3]) / 2, 3)) for position, box, _ in found]


def test_the_face_that_stays_wins_over_one_that_flashes() -> None:
    flash = (0.2, 0.8, 0.4, 3.0)
    found = track.link([seen((0.5, 0.3 + i / 20, 0.2, 1.0), *([flash] if i == 2 else [])) for i in range(5)])
    assert centres(found) == [(i, round(0.3 + i / 20, 3)) for i in range(5)]


def test_the_larger_of_two_people_wins() -> None:
    found = track.link([seen((0.5, 0.2, 0.1, 1.5), (0.5, 0.7, 0.3, 1.0))] * 4)
    assert [x for _, x in centres(found)] == [0.7] * 4


def test_two_that_pass_keep_apart() -> None:
    """Each detection goes to the nearest track, not to the first."""
    found = track.link([seen((0.5, 0.4 - i / 50, 0.2, 1), (0.5, 0.6 + i / 50, 0.24, 1)) for i in range(4)])
    assert centres(found) == [(i, round(0.6 + i / 50, 3)) for i in range(4)]


def test_a_jump_or_another_size_is_another_face() -> None:
    assert len(track.link([seen((0.5, 0.2, 0.2, 1)), seen((0.5, 0.45, 0.2, 1)), seen((0.5, 0.45, 0.2, 1))])) == 2
    assert len(track.link([seen((0.5, 0.2, 0.2, 1)), seen((0.5, 0.2, 0.05, 1))])) == 1


def test_one_weak_detection_is_chance() -> None:
    assert track.link([seen(), seen((0.5, 0.5, 0.2, 0.3)), seen()]) == []
    assert len(track.link([seen(), seen((0.5, 0.5, 0.2, 0.6)), seen()])) == 1
    assert len(track.link([seen((0.5, 0.5, 0.2, 0.3)), seen(), seen((0.5, 0.5, 0.2, 0.3))])) == 2


def test_gaps_are_filled_and_outliers_smoothed() -> None:
    frames = np.array([5, 15, 25, 35, 45, 55])
    seen_at = [(i, seen((0.5, 0.2 + i / 10, 0.2, 1.0)).boxes[0], 1.0) for i in (0, 1, 3, 4, 5)]
    found = track.smooth(seen_at, frames)
    assert found.frames.tolist() == frames.tolist() and found.scores.tolist() == [1, 1, 0, 1, 1, 1]
    middle = (found.boxes[:, 1] + found.boxes[:, 3]) / 2
    np.testing.assert_allclose(middle, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7], atol=1e-6)  # the ends too
    seen_at[3] = (4, seen((0.5, 0.9, 0.3, 1.0)).boxes[0], 1.0)
    again = track.smooth(seen_at, frames)
    assert np.abs(again.boxes - found.boxes).max() < 0.06
    np.testing.assert_allclose(again.boxes[:, 2] - again.boxes[:, 0], 0.2, atol=1e-6)


def test_boxes_stay_in_the_frame() -> None:
    found = track.smooth([(0, seen((0.05, 0.95, 0.3, 1.0)).boxes[0], 1.0)], np.array([0]))
    np.testing.assert_allclose(found.boxes[0], [0, 0.8, 0.2, 1], atol=1e-6)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("how", ["large", "small", "dark"])
def test_large_small_and_dark_faces(how: str, kind: str) -> None:
    pytest.importorskip("dlib")
    picture = {
        "large": np.repeat(np.repeat(portrait(), 2, 0), 2, 1),
        "small": portrait()[::5, ::5],
        "dark": (portrait()[::3, ::3] * 0.06).astype(np.uint8),
    }[how]
    found = track.find_face(open_detector(kind), [picture], np.array([4]))
    assert found is not None and found.frames.tolist() == [4]
    assert np.abs(found.boxes[0] - np.array([137, 161, 353, 377]) / [600, 512, 600, 512]).max() < 0.06


def test_nothing_is_no_track() -> None:
    pytest.importorskip("dlib")
    grey = np.full((120, 160, 3), 90, np.uint8)
    assert track.find_face(open_detector(DETECTORS[0]), [grey, grey], np.array([0, 1])) is None
