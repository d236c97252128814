"""One person's face through a clip: detections on a few frames, linked, gaps filled, smoothed.

A detector answers frame by frame: it misses some, sees a face in a shirt, and its box jumps by a fifth where it steps
from one scale to the next. A track follows what is near and of like size; of several people the one counts who is large
and seen throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.faces.detector import Detections, FaceDetector
from shards.format.face_table import Track

DETECT_SIDE = 480  # pixels of the shorter side that the detector is shown; a face has to be a sixth of it
VERSION = 2  # of what follows: other boxes have another number
CHANCE_SCORE = 0.5  # a face that one frame alone shows, with a lower score, is none

Seen = tuple[int, NDArray[np.float32], float]  # position of the frame, box, score


def find_face(
    model: FaceDetector, pictures: Sequence[NDArray[np.uint8]], frames: NDArray[np.integer], upsample: int = 0
) -> Track | None:
    """The main face of a clip, None when there is none.

    pictures: upright RGB, k times uint8 [height, width, 3], the clip's `frames` (int [k], ascending). If they show
    none, they are looked at again, enlarged twofold and with their contrast stretched: a small or dark face costs four
    times as much, the others nothing.
    """
    small = [shrunk(picture) for picture in pictures]
    seen = link([relative(model.detect(picture, upsample), picture.shape) for picture in small])
    if not seen:
        small = [_stretched(picture) for picture in small]
        seen = link([relative(model.detect(picture, upsample + 1), picture.shape) for picture in small])
    return smooth(seen, frames) if seen else None


def link(detections: Sequence[Detections]) -> list[Seen]:
    """The detections of the main face, at most one a frame; none where there is no face.

    `detections`: of each frame in time, boxes in any unit. A detection continues the track whose last box is nearest,
    if its centre moved by no more than the box's side and its side changed by no more than twofold.
    """
    tracks: list[list[Seen]] = []
    for position, found in enumerate(detections):
        pairs = [
            (distance, number, index)
            for number, track in enumerate(tracks)
            for index, box in enumerate(found.boxes)
            if (distance := _distance(track[-1][1], box)) <= 1
        ]
        taken_tracks, taken = set(), set()
        for _, number, index in sorted(pairs):
            if number not in taken_tracks and index not in taken:
                taken_tracks.add(number)
                taken.add(index)
                tracks[number].append((position, found.boxes[index], float(found.scores[index])))
        tracks += [
            [(position, box, float(found.scores[index]))] for index, box in enumerate(found.boxes) if index not in taken
        ]
    sure = [track for track in tracks if len(track) > 1 or track[0][2] >= CHANCE_SCORE]
    return max(sure, key=lambda track: sum(_side(box) * min(score, 1.0) for _, box, score in track), default=[])


def smooth(seen: Sequence[Seen], frames: NDArray[np.integer]) -> Track:
    """The track at all of `frames` (int [k]), filled and smoothed.

    Gaps are interpolated, then a running median of 3 (against a wrong box) and weights 1/4, 1/2, 1/4
    (against steps of the detector's scale), of centre and logarithm of the size.
    """
    from scipy.ndimage import convolve1d, median_filter

    times = frames[[position for position, _, _ in seen]]
    boxes = np.stack([box for _, box, _ in seen]).astype(np.float64)
    values = np.concatenate([boxes[:, :2] + boxes[:, 2:], np.log(boxes[:, 2:] - boxes[:, :2])], axis=1)
    filled = np.stack([np.interp(frames, times, column) for column in values.T], axis=1)
    # Extrapolated beyond the ends: with the ends held, a moving face would lag there by a quarter of a step.
    more = min(2, len(filled) - 1)
    filled = np.pad(filled, ((more, more), (0, 0)), mode="reflect", reflect_type="odd") if more else filled
    filled = median_filter(filled, size=(3, 1), mode="nearest")
    filled = convolve1d(filled, np.array([0.25, 0.5, 0.25]), axis=0, mode="nearest")[more : len(filled) - more]
    centre, size = filled[:, :2] / 2, np.exp(filled[:, 2:])
    scores = np.zeros(len(frames), np.float32)
    for position, _, score in seen:
        scores[position] = score
    smoothed = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1).astype(np.float32)
    return Track(frames.astype(np.int32), smoothed, scores)


def _side(box: NDArray[np.float32]) -> float:
    return float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))


def _distance(before: NDArray[np.float32], box: NDArray[np.float32]) -> float:
    """How far the centre moved, in sides of the larger box; infinite when the side changed by more than twofold."""
    sides = sorted((_side(before), _side(box)))
    if sides[1] > 2 * sides[0]:
        return float("inf")
    step = (before[:2] + before[2:] - box[:2] - box[2:]) / 2 / np.maximum(before[2:] - before[:2], box[2:] - box[:2])
    return float(np.hypot(step[0], step[1]))


def relative(found: Detections, shape: Sequence[int]) -> Detections:
    """Detections with boxes in parts of the picture's sides. `shape`: its height, width and more."""
    height, width = shape[:2]
    sides = np.array([height, width, height, width], np.float32)
    return Detections((found.boxes / sides).astype(np.float32), found.scores)


def shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As large as the detector is shown it: DETECT_SIDE pixels on the shorter side, or less."""
    height, width = picture.shape[:2]
    if min(height, width) <= DETECT_SIDE:
        return picture
    from PIL import Image

    scale = DETECT_SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))


def _stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.autocontrast(Image.fromarray(picture), cutoff=1))
