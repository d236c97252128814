"""Face crops: squares around the face of a clip, frame by frame, as pixels of its frames.

The centre follows the track of the face (shards.faces), which is smooth; the side is one number a clip, the median of
the face's side over the frames times a scale. So the face stays in place and what moves or grows within the crop is the
face itself, and every frame of a clip has as many pixels as the others.

A square may reach beyond the picture: pixels there are black, in every decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.format.face_table import Track

MIN_SIDE = 8  # pixels of a crop, whatever the box says


def squares(
    tracks: Sequence[Track],
    frames: NDArray[np.int64],
    height: NDArray[np.floating],
    width: NDArray[np.floating],
    scale: NDArray[np.floating],
    shift: NDArray[np.floating],
) -> NDArray[np.float64]:
    """The square of each of `frames` (int [n, F]) of n clips: top, left, bottom, right of the upright picture.

    height, width: float [n], the sides that a player shows. scale: float [n], side over that of the face. shift: float
    [n, 2], down and to the right, as a share of the side. Returns [n, F, 4]; 0 and 1 are the picture's borders.
    """
    found = np.empty((*frames.shape, 4))
    for clip, track in enumerate(tracks):
        sides = np.array([height[clip], width[clip]])
        first, last = track.boxes[:, :2] * sides, track.boxes[:, 2:] * sides
        face = np.sqrt(np.prod(last - first, axis=1))
        side = scale[clip] * float(np.median(np.interp(frames[clip], track.frames, face)))
        centre = (
            np.stack([np.interp(frames[clip], track.frames, values) for values in (first + last).T / 2], axis=1)
            + shift[clip] * side
        )
        found[clip] = np.concatenate([(centre - side / 2) / sides, (centre + side / 2) / sides], axis=1)
    return found


def pixel_windows(
    boxes: NDArray[np.floating], height: NDArray[np.integer], width: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Boxes [n, F, 4] of pictures of these sides (int [n]) on whole pixels: top, left, height, width, int64 [n, F, 4].

    All windows of a clip are equally large, and may reach beyond the picture.
    """
    sides = np.stack([height, width], axis=1)[:, None]
    size = (boxes[..., 2:] - boxes[..., :2]).mean(axis=1, keepdims=True) * sides
    size = np.maximum(np.rint(size), MIN_SIDE).astype(np.int64)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 * sides
    first = np.rint(centre - size / 2).astype(np.int64)
    return np.concatenate([first, np.broadcast_to(size, first.shape)], axis=-1)


def around(
    windows: NDArray[np.int64], height: NDArray[np.integer], width: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What windows [n, F, 4] (top, left, height, width) need of pictures of these sides (int [n]).

    Returns the box around all windows of a clip, within the picture and on even pixels or its edge (top, left, bottom,
    right, int64 [n, 4], never empty), and the windows relative to its corner.
    """
    sides = np.stack([height, width], axis=1)
    first = np.clip(windows[..., :2].min(axis=1) // 2 * 2, 0, np.maximum(sides - 2, 0) // 2 * 2)
    last = -(-(windows[..., :2] + windows[..., 2:]).max(axis=1) // 2) * 2
    last = np.clip(last, np.minimum(first + 2, sides), sides)
    moved = windows.copy()
    moved[..., :2] -= first[:, None]
    return np.concatenate([first, last], axis=1), moved


def graph_inputs(window: NDArray[np.integer]) -> dict[str, NDArray[np.float32]]:
    """The graph's inputs for windows int [..., 4]: `crop_matrix` float32 [..., 2, 3] and `crop_size` [..., 2].

    crop_matrix maps a pixel of the crop to one of the picture (an affine map that only moves); crop_size is (height,
    width).
    """
    matrix = np.zeros((*window.shape[:-1], 2, 3), np.float32)
    matrix[..., 0, 0] = matrix[..., 1, 1] = 1
    matrix[..., 0, 2], matrix[..., 1, 2] = window[..., 1], window[..., 0]
    return {"crop_matrix": matrix, "crop_size": window[..., 2:].astype(np.float32)}
