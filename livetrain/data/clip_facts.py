"""What planning knows of a clip: its length, its sizes, the times of its frames, its face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.format.face_table import Track

# Row → seconds of its frames after the first, float32 [num_frames], ascending; [0] where they are evenly spaced.
FrameSeconds = Callable[[int], NDArray[np.float32]]
# Row → the track of its face; None where none was found.
FaceOf = Callable[[int], Track | None]


def evenly_spaced(row: int) -> NDArray[np.float32]:
    """The FrameSeconds of clips without any."""
    return np.empty(0, np.float32)


def nobody(row: int) -> Track | None:
    """The FaceOf of clips whose faces are not used."""
    return None


@dataclass(frozen=True)
class Facts:
    """What planning needs to know of n clips: arrays [n], int64; `frames_per_second`, `sample_aspect_ratio` float64.

    The picture is height x width at the upper left corner of the coded frame. seconds: see FrameSeconds. face: see
    FaceOf.
    """

    rows: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    frames_per_second: NDArray[np.float64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]
    rotation: NDArray[np.int64]
    coded_height: NDArray[np.int64]
    coded_width: NDArray[np.int64]
    sample_aspect_ratio: NDArray[np.float64]
    seconds: FrameSeconds
    face: FaceOf
