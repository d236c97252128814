"""What planning knows of a clip: its length, its sizes, the times of its frames, its face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.format.face_table import Track

SIZES = ("height", "width", "rotation", "coded_height", "coded_width")
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

    @staticmethod
    def of(rows: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], seconds: FrameSeconds, face: FaceOf) -> Facts:
        """Of the rows int64 [n] of an index with these columns."""
        num_frames = columns["num_frames"][rows].astype(np.int64)
        sizes = {name: columns[name][rows].astype(np.int64) for name in SIZES}
        duration = columns["duration_seconds"][rows].astype(np.float64)
        known = np.isfinite(duration) & (duration > 0)
        # Stored JPEGs are thinner than the video they come from: frames a second of what is stored.
        rate = np.where(known, num_frames / np.where(known, duration, 1), columns["fps"][rows].astype(np.float64))
        aspect = columns["sample_aspect_ratio"][rows].astype(np.float64)
        return Facts(rows, num_frames, rate, **sizes, sample_aspect_ratio=aspect, seconds=seconds, face=face)
