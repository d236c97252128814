"""Face crops: squares around the face of a clip, frame by frame.

The centre follows the track of the face (shards.faces), which is smooth; the side is one number a clip, the median of
the face's side over the frames times a scale. So the face stays in place and what moves or grows within the crop is the
face itself, and every frame of a clip has as many pixels as the others.

A square may reach beyond the picture (see livetrain.data.windows).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.format.face_table import Track


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
