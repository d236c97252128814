"""Windows: the part of each frame that the model sees, where it moves with the face or reaches beyond the picture.

Pixels beyond the picture are black, in every decoder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_SIDE = 8  # pixels of a window, whatever the box says


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
