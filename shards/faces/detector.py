"""The one door to a face detector: boxes of faces in a picture, and the identity of a face.

    blazeface   a network (shards.faces.blazeface): faces small, dark, turned and half covered
    dlib        dlib's frontal detector (histograms of oriented gradients): upright faces that look at the camera, from
                about 80 pixels (40 with `upsample=1`)

Both run on one core, without a download. benchmarks/faces.md compares them. Identities are dlib's (5-point landmarks
and ResNet from the package `face_recognition_models`). Another detector is another class with the methods of
FaceDetector, and a line in `DETECTORS`.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError

EMBEDDING_SIZE = 128
LACKING = "faces need the packages dlib-bin and face-recognition-models: pip install livetrain[faces]"


@dataclass(frozen=True)
class Detections:
    """Faces of one picture, most certain first.

    boxes: float32 [n, 4], top, left, bottom, right in pixels (they may reach beyond the picture). scores: float32 [n],
    above 0; 1 is a good one.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


class FaceDetector(Protocol):
    """Finds faces. One thread at a time."""

    @property
    def name(self) -> str:
        """Detector and version, as recorded beside its boxes."""

    def detect(self, picture: NDArray[np.uint8], upsample: int = 0) -> Detections:
        """Faces of an upright RGB picture, uint8 [height, width, 3].

        `upsample`: how often it is enlarged twofold before, to find small faces; each time costs several times as much.
        """


DETECTORS = ("blazeface", "dlib")


@functools.lru_cache(maxsize=len(DETECTORS))
def open_detector(name: str) -> FaceDetector:
    """The detector of this process, by its name in DETECTORS.

    Raises UserError, naming the packages, when they are missing.
    """
    if name == "dlib":
        return DlibFaceModel()
    from shards.faces.blazeface import BlazeFace

    return BlazeFace()


class DlibFaceModel:
    """FaceDetector by dlib, and identities of faces."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError:
            raise UserError(LACKING) from None
        self._dlib: Any = dlib
        self._detector = dlib.get_frontal_face_detector()

    @property
    def name(self) -> str:
        return f"dlib {self._dlib.__version__} HOG"

    def detect(self, picture: NDArray[np.uint8], upsample: int = 0) -> Detections:
        found, scores, _ = self._detector.run(np.ascontiguousarray(picture), upsample, 0.0)
        # dlib's right and bottom are the last pixels inside; a border lies behind them.
        boxes = [(box.top(), box.left(), box.bottom() + 1, box.right() + 1) for box in found]
        order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
        return Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4)[order], np.asarray(scores, np.float32).reshape(-1)[order]
        )

    def embed(self, picture: NDArray[np.uint8], box: NDArray[np.floating]) -> NDArray[np.float32]:
        """The identity of the face in `box` ([4], as `detect` gives it): float32 [128], Euclidean distances.

        Above about 0.6 are different people (dlib's own threshold).
        """
        landmarks, network = self._recognition
        top, left, bottom, right = (round(float(side)) for side in box)
        picture = np.ascontiguousarray(picture)
        shape = landmarks(picture, self._dlib.rectangle(left, top, right - 1, bottom - 1))
        return np.asarray(network.compute_face_descriptor(picture, shape), np.float32)

    def load(self) -> None:
        """Read the networks that tell faces apart. Raises UserError, naming the package, when they are missing."""
        _ = self._recognition

    @functools.cached_property
    def _recognition(self) -> tuple[Any, Any]:
        # Found, not imported: the package imports pkg_resources, which setuptools no longer has.
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or spec.origin is None:
            raise UserError(LACKING)
        folder = Path(spec.origin).parent / "models"
        landmarks = self._dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        network = self._dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
        return landmarks, network
