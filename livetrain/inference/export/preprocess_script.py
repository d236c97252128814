"""Frames and face boxes to the input of an exported model. Needs NumPy and Pillow alone.

    clips = preprocess(frames, boxes)                     # float32 [1, F, 3, S, S]
    session = onnxruntime.InferenceSession("model.onnx")
    (p_live,) = session.run(["p_live"], {"clips": clips})

frames: upright RGB pictures of one video, F times uint8 [height, width, 3]; which ones, `PREPROCESSING["frames"]` says.
boxes: the face in each of them, [F, 4]: top, left, bottom, right in pixels; None: the whole frame is used, or its
centre. Pixels are square. How faces are found, `PREPROCESSING["crop"]` says.

`livetrain export` writes this file beside the model, with the model's numbers in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

PREPROCESSING: dict[str, Any] = {}


def preprocess(
    frames: Sequence[np.ndarray],
    boxes: np.ndarray | None = None,
    how: dict[str, Any] = PREPROCESSING,
    scale: float | None = None,
) -> np.ndarray:
    """The model's input, float32 [1, F, 3, S, S]. scale: of the face crop, where the model averages several."""
    windows = [whole(frame, how) for frame in frames] if boxes is None else face_windows(boxes, how, scale)
    size = tuple(how["size"])[::-1]
    small = [
        Image.fromarray(cut(frame, *window)).resize(size, Image.Resampling.BILINEAR)
        for frame, window in zip(frames, windows, strict=True)
    ]
    pixels = np.stack([np.asarray(picture) for picture in small]).astype(np.float32) / 255
    normal = (pixels - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2)[None])


def whole(frame: np.ndarray, how: dict[str, Any]) -> tuple[int, ...]:
    """(top, left, height, width) of the frame, or of the square in it or around it where the model sees that."""
    height, width = frame.shape[:2]
    if how["fit"] == "stretch":
        return 0, 0, height, width
    side = min(height, width) if how["fit"] == "center" else max(height, width)
    return int(np.rint((height - side) / 2)), int(np.rint((width - side) / 2)), side, side


def face_windows(boxes: np.ndarray, how: dict[str, Any], scale: float | None = None) -> list[tuple[int, ...]]:
    """(top, left, height, width) around the face in each frame: equally large, their centres those of the boxes."""
    first, last = np.asarray(boxes, np.float64)[:, :2], np.asarray(boxes, np.float64)[:, 2:]
    face = float(np.median(np.sqrt(np.prod(last - first, axis=1))))
    side = max(int(np.rint((scale or how["face_scales"][0]) * face)), 8)
    corners = np.rint((first + last) / 2 - side / 2).astype(int)
    return [(int(top), int(left), side, side) for top, left in corners]


def cut(picture: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A part of a picture, black beyond it."""
    out = np.zeros((height, width, 3), np.uint8)
    rows = slice(max(0, top), max(0, min(picture.shape[0], top + height)))
    columns = slice(max(0, left), max(0, min(picture.shape[1], left + width)))
    part = picture[rows, columns]
    out[rows.start - top :, columns.start - left :][: part.shape[0], : part.shape[1]] = part
    return out
