"""One look at a clip: what the audit keeps of it, so that no clip is decoded twice.

Thumbnails of up to MAX_FRAMES frames, an eighth of a second apart (further in clips longer than 4 s, closer in short
ones) over its first MAX_SECONDS; cues of its pictures; a small picture of it; its faces, where the extra is installed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from shards.audit import picture_cues
from shards.audit.alignment import SIDE
from shards.faces.detector import DlibFaceModel, open_detector
from shards.format.probe import DEFAULT_FPS, RejectedVideo, evenly_spaced
from shards.format.stored_clip import Picture, StoredClip

MAX_FRAMES = 32
MAX_SECONDS = 8.0
STEP_SECONDS = 0.125
MIN_FRAMES = 16  # of a short clip, where it has as many
NUM_MEASURED = 4  # frames that are measured at full size
NUM_FACES = 3  # frames in which faces are looked for
PICTURE_SIDE = 160  # pixels of the short side of the picture kept
MAX_PROBLEM = 200  # characters
WHITE, BLACK = 250, 5  # levels at which a pixel is over- or underexposed


@dataclass(frozen=True)
class LookTask:
    """A clip to look at: these frames of it, ascending, shown at these seconds. faces: whether to look for faces."""

    clip: StoredClip
    frames: Sequence[int]
    seconds: Sequence[float]
    faces: bool

    @staticmethod
    def of(clip: StoredClip, row: Mapping[str, Any], *, faces: bool) -> LookTask:
        """row: of the index, with fps and frame_seconds at least."""
        seconds = frame_seconds(row)
        frames = sampled(seconds)
        return LookTask(clip, frames, seconds[frames].tolist(), faces)


@dataclass(frozen=True)
class Look:
    """What the audit keeps of a clip.

    problem: why it could not be decoded; then all else is empty. thumbnails: uint8 [t, SIDE, SIDE], grey. seconds:
    float32 [t], from 0 on. cues: see picture_cues. picture: a JPEG of its middle frame. extremes: shares of pixels that
    are white and black, and the standard deviation of the greyest picture. num_faces: found in each frame looked at;
    empty: not looked. face_height: share of the picture's height, NaN without a face. identity: float32 [128] or empty.
    """

    problem: str = ""
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, SIDE, SIDE), np.uint8))
    seconds: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    cues: Mapping[str, Sequence[float]] = field(default_factory=dict)
    picture: bytes = b""
    extremes: tuple[float, float, float] = (0.0, 0.0, 0.0)
    num_faces: tuple[int, ...] = ()
    face_height: float = float("nan")
    identity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


def frame_seconds(row: Mapping[str, Any]) -> NDArray[np.float64]:
    """When each frame of a row of the index is shown, after its first: float64 [num_frames]."""
    if row["frame_seconds"]:
        return np.array(row["frame_seconds"], np.float64)
    return np.arange(row["num_frames"]) / (row["fps"] if row["fps"] > 0 else DEFAULT_FPS)


def sampled(times: NDArray[np.float64]) -> list[int]:
    """The frames whose thumbnails are kept, of times [num_frames]: ascending, each once."""
    if len(times) == 1:
        return [0]
    length = min(MAX_SECONDS, float(times[-1] * len(times) / (len(times) - 1)))
    step = min(max(STEP_SECONDS, length / MAX_FRAMES), length / MIN_FRAMES)
    if step <= 0:
        return list(range(min(len(times), MAX_FRAMES)))
    wanted = np.arange(0, length, step)[:MAX_FRAMES]
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    nearest = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    return sorted(set(nearest.tolist()))


def look_at(task: LookTask) -> Look:
    """Decode a clip and look at it: the task of a worker process. What cannot be decoded is a Look with a problem."""
    frames = task.frames
    measured = {frames[number] for number in evenly_spaced(len(frames), NUM_MEASURED)}
    thumbnails, pictures = [], []
    try:
        for number, picture in zip(frames, task.clip.pictures(frames), strict=True):
            thumbnails.append(thumbnail(picture))
            if number in measured:
                pictures.append(picture)
    except (RejectedVideo, OSError, SyntaxError, ValueError) as error:
        return Look(problem=f"cannot be decoded: {error}"[:MAX_PROBLEM])
    middle = pictures[len(pictures) // 2]
    small = np.stack(thumbnails)
    faces = _Faces.of(pictures) if task.faces else _Faces()
    times = np.array(task.seconds, np.float64)
    return Look(
        thumbnails=small,
        seconds=(times - times[0]).astype(np.float32),
        cues=picture_cues.measure(pictures, faces.box, small.astype(np.float32)),
        picture=jpeg(middle),
        extremes=extremes(pictures),
        num_faces=faces.numbers,
        face_height=faces.height,
        identity=faces.identity,
    )


def thumbnail(picture: Picture) -> NDArray[np.uint8]:
    """A picture in SIDE x SIDE grey levels, the mean of what each pixel covers."""
    from PIL import Image

    image = Image.fromarray(picture).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def jpeg(picture: Picture) -> bytes:
    """A picture as JPEG, its short side PICTURE_SIDE pixels at most."""
    from PIL import Image

    scale = min(1.0, PICTURE_SIDE / min(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    out = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0).save(out, "JPEG", quality=80)
    return out.getvalue()


def extremes(pictures: Sequence[Picture]) -> tuple[float, float, float]:
    """Shares of pixels that are white and that are black, and the largest standard deviation of a picture."""
    greys = [picture_cues.grey(picture) for picture in pictures]
    white = float(np.mean([(grey >= WHITE).mean() for grey in greys]))
    black = float(np.mean([(grey <= BLACK).mean() for grey in greys]))
    return white, black, float(max(grey.std() for grey in greys))


@dataclass(frozen=True)
class _Faces:
    numbers: tuple[int, ...] = ()
    box: NDArray[np.floating] | None = None  # [4], shares
    height: float = float("nan")
    identity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @staticmethod
    def of(pictures: Sequence[Picture]) -> _Faces:
        """Of some pictures of a clip: the largest face of each; who it is, from the one that is seen best."""
        detector = open_detector("blazeface")
        numbers, boxes = [], []
        best: tuple[float, Picture, NDArray[np.floating]] | None = None
        for picture in pictures[:NUM_FACES]:
            found = detector.detect(picture)
            numbers.append(len(found.boxes))
            if not len(found.boxes):
                continue
            sides = found.boxes[:, 2:] - found.boxes[:, :2]
            largest = int(np.argmax(sides.prod(axis=1)))
            height, width = picture.shape[:2]
            boxes.append(found.boxes[largest] / [height, width, height, width])
            if best is None or found.scores[largest] > best[0]:
                best = float(found.scores[largest]), picture, found.boxes[largest]
        if best is None:
            return _Faces(tuple(numbers))
        box = np.median(boxes, axis=0)
        return _Faces(tuple(numbers), box, float(box[2] - box[0]), _dlib().embed(best[1], best[2]))


def _dlib() -> DlibFaceModel:
    model = open_detector("dlib")
    assert isinstance(model, DlibFaceModel)
    return model


def can_find_faces() -> bool:
    """Whether what finds faces and tells them apart is installed (extra `faces`)."""
    try:
        open_detector("blazeface")
        _dlib().load()
    except UserError:
        return False
    return True
