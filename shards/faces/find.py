"""The face of one clip: frames evenly spaced over it, detections, one track."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.faces import track
from shards.faces.detector import DETECTORS, open_detector
from shards.faces.track import find_face
from shards.format.colour import Colours, ToRgb
from shards.format.face_table import Track
from shards.format.probe import Probe, RejectedVideo, decode, evenly_spaced, open_video

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
class Shown:
    """How the frames of a video become upright pictures.

    size: (height, width) of the picture at the upper left of a decoded frame. rotation: clockwise degrees.
    """

    size: tuple[int, int]
    rotation: int
    colours: Colours

    @staticmethod
    def of(facts: Probe) -> Shown:
        """Of a video that was probed."""
        return Shown((facts.height, facts.width), facts.rotation, facts.colours)


def find_in_pictures(
    pictures: Sequence[NDArray[np.uint8]], frames: Sequence[int], options: FaceOptions
) -> Track | None:
    """The face in upright pictures, uint8 [height, width, 3] each, of the clip's `frames`."""
    return find_face(open_detector(options.kind), pictures, np.array(frames), options.upsample)


def find_in_video(data: bytes, num_frames: int, shown: Shown, options: FaceOptions) -> Track | None:
    """The face in a video file of `num_frames` frames. Raises RejectedVideo, OSError."""
    frames = evenly_spaced(num_frames, options.num_frames)
    return find_in_pictures(list(_pictures(data, frames, shown)), frames, options)


def _pictures(data: bytes, frames: Sequence[int], shown: Shown) -> Iterator[NDArray[np.uint8]]:
    with open_video(data) as container:
        wanted, to_rgb = set(frames), ToRgb(shown.colours)
        for number, frame in enumerate(decode(container, container.streams.best("video"))):
            if number in wanted:
                picture = to_rgb(frame, (frame.height, frame.width))[: shown.size[0], : shown.size[1]]
                yield np.ascontiguousarray(np.rot90(picture, -shown.rotation // 90))  # counter-clockwise
            if number == frames[-1]:
                return
    raise RejectedVideo(f"it has fewer frames than the index says ({frames[-1] + 1} were requested)")
