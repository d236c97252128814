"""The one door to a face detector: boxes of faces in a picture, and the identity of a face.

dlib's frontal detector (histograms of oriented gradients; it comes within dlib) and, for identities, its 5-point
landmarks and ResNet from the package `face_recognition_models`: no download, one core. It looks for upright faces that
look at the camera, from about 80 pixels (40 with `upsample=1`). Another detector is another class with these methods.
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


class FaceModel(Protocol):
    """A detector, with an embedding of identities. One thread at a time."""

    @property
    def name(self) -> str:
        """Detector and version, as recorded beside its boxes."""

    def detect(self, picture: NDArray[np.uint8], upsample: int = 0) -> Detections:
        """Faces of an upright RGB picture, uint8 [height, width, 3].

        `upsample`: how often it is enlarged twofold before, to find small faces; each time costs four times as much.
        """

    def embed(self, picture: NDArray[np.uint8], box: NDArray[np.floating]) -> NDArray[np.float32]:
        """The identity of the face in `box` ([4], as `detect` gives it): float32 [128], Euclidean distances.

        Above about 0.6 are different people (dlib's own threshold).
        """


@functools.lru_cache(maxsize=1)
def open_face_model() -> FaceModel:
    """The face model of this process. Raises UserError, naming the extra, when its packages are missing."""
    return DlibFaceModel()


class DlibFaceModel:
    """FaceModel by dlib."""

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
        landmarks, network = self._recognition
        top, left, bottom, right = (round(float(side)) for side in box)
        picture = np.ascontiguousarray(picture)
        shape = landmarks(picture, self._dlib.rectangle(left, top, right - 1, bottom - 1))
        return np.asarray(network.compute_face_descriptor(picture, shape), np.float32)

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
