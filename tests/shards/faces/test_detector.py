"""shards/faces/detector.py on a real photograph."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from livetrain.core.errors import UserError
from shards.faces import detector
from tests.shards.faces.portrait import portrait

pytest.importorskip("dlib")


def test_a_face_is_found_where_it_is() -> None:
    found = detector.open_face_model().detect(portrait())
    assert found.boxes.shape == (1, 4) and found.boxes.dtype == np.float32
    assert np.abs(found.boxes[0] - [137, 161, 353, 377]).max() < 20
    assert found.scores.shape == (1,) and found.scores[0] > 1


def test_nothing_is_found_where_nothing_is() -> None:
    found = detector.open_face_model().detect(np.full((200, 300, 3), 90, np.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_small_faces_are_found_enlarged() -> None:
    small = portrait()[::5, ::5]  # a face of 44 pixels
    model = detector.open_face_model()
    assert len(model.detect(small).boxes) == 0
    assert np.abs(model.detect(small, upsample=1).boxes[0] - np.array([137, 161, 353, 377]) / 5).max() < 6


def test_the_most_certain_face_comes_first() -> None:
    picture = portrait()
    dim = (picture[::2, ::2] * 0.6 + 60).astype(np.uint8)
    both = np.zeros((600, 1024, 3), np.uint8)
    both[:, :512], both[:300, 600:856] = picture, dim
    found = detector.open_face_model().detect(both)
    assert len(found.boxes) == 2 and found.scores[0] > found.scores[1]
    assert found.boxes[0, 3] < 512 < found.boxes[1, 1]


def test_identity_survives_mirroring_and_light() -> None:
    picture, model = portrait(), detector.open_face_model()
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
