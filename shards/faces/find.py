"""The face of one clip: frames evenly spaced over it, detections, one track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.faces import track
from shards.faces.detector import DETECTORS, open_detector
from shards.faces.track import find_face
from shards.format.face_table import Track
from shards.format.probe import RejectedVideo, evenly_spaced
from shards.format.stored_clip import Shown, StoredClip, pictures_of_video

NO_FACE = "no face found"


@dataclass(frozen=True)
class FaceOptions:
    """num_frames: looked at in each clip, evenly spaced. upsample: see FaceDetector.detect. kind: of DETECTORS."""

    num_frames: int = 8
    upsample: int = 0
    kind: str = DETECTORS[0]

    def about(self) -> dict[str, Any]:
        """How faces are found with these options on this machine, as faces.arrow and packages state it.

        Raises UserError, naming the extra, where there is no detector.
        """
        detector = f"{self.kind}: {open_detector(self.kind).name}, track {track.VERSION}"
        return {"detector": detector, "num_frames": self.num_frames, "upsample": self.upsample}

    @staticmethod
    def of(about: Mapping[str, Any]) -> FaceOptions:
        """The options of `about`, of whatever version."""
        kind = str(about["detector"]).partition(":")[0]
        return FaceOptions(about["num_frames"], about["upsample"], kind if kind in DETECTORS else DETECTORS[0])


@dataclass(frozen=True)
class ClipTask:
    """One clip to find the face in, and how."""

    clip: StoredClip
    options: FaceOptions

    @property
    def frames(self) -> list[int]:
        """Those to look at."""
        return evenly_spaced(self.clip.num_frames, self.options.num_frames)


@dataclass(frozen=True)
class Found:
    """A clip's track, or None and the reason."""

    track: Track | None
    reason: str = ""


def pictures_of(task: ClipTask) -> list[NDArray[np.uint8]] | Found:
    """The frames to look at, upright uint8 [height, width, 3] each; Found, with the reason, if they do not decode."""
    try:
        return list(task.clip.pictures(task.frames))
    except (RejectedVideo, OSError, SyntaxError) as error:
        return Found(None, f"cannot be decoded: {error}")


def find_in_clip(task: ClipTask) -> Found:
    """Decode a few frames of one clip and look for its face: the task of a worker process."""
    pictures = pictures_of(task)
    if isinstance(pictures, Found):
        return pictures
    track = find_in_pictures(pictures, task.frames, task.options)
    return Found(track, "" if track else NO_FACE)


def find_in_pictures(
    pictures: Sequence[NDArray[np.uint8]], frames: Sequence[int], options: FaceOptions
) -> Track | None:
    """The face in upright pictures, uint8 [height, width, 3] each, of the clip's `frames`."""
    return find_face(open_detector(options.kind), pictures, np.array(frames), options.upsample)


def find_in_video(data: bytes, num_frames: int, shown: Shown, options: FaceOptions) -> Track | None:
    """The face in a video file of `num_frames` frames. Raises RejectedVideo, OSError."""
    frames = evenly_spaced(num_frames, options.num_frames)
    return find_in_pictures(list(pictures_of_video(data, frames, shown)), frames, options)
