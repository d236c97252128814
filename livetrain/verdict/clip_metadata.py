"""What is known of a split's clips beside their scores: where slices, per-frame curves and worst clips come from.

    key,session,device,domain,width,height,video_seconds,frames_per_second,brightness,face_height,frames,frame_p_live,frame_shares

One row a video, as in the scores file beside it. The last three columns are lists with spaces, an entry a frame:
its index in the video, the score of a clip of that frame alone, and its share in the pooled clip (see
livetrain.model.liveness.LivenessModel.forward). A field is empty where nothing is known.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.files import write_text

WORDS = ("session", "device", "domain")
NUMBERS = ("width", "height", "video_seconds", "frames_per_second", "brightness", "face_height")
LISTS = ("frames", "frame_p_live", "frame_shares")
COLUMNS = ("key", *WORDS, *NUMBERS, *LISTS)


@dataclass(frozen=True)
class Details:
    """Of one clip.

    Upright width and height in pixels of the stored video; brightness: mean luma (Rec. 601) of what the model saw, 0 to
    1; face_height: of the face box over the picture's. None, "" or () where unknown.
    """

    session: str = ""
    device: str = ""
    domain: str = ""
    width: float | None = None
    height: float | None = None
    video_seconds: float | None = None
    frames_per_second: float | None = None
    brightness: float | None = None
    face_height: float | None = None
    frames: tuple[int, ...] = ()
    frame_p_live: tuple[float, ...] = ()
    frame_shares: tuple[float, ...] = ()


def write(path: Path, details: Mapping[str, Details]) -> None:
    """Write key → details as CSV, atomically. Scores of frames keep six digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, item in details.items():
        numbers = ["" if (value := getattr(item, name)) is None else f"{value:.6g}" for name in NUMBERS]
        lists = [" ".join(f"{value:.6g}" for value in getattr(item, name)) for name in LISTS]
        writer.writerow([key, *(getattr(item, name) for name in WORDS), *numbers, *lists])
    write_text(path, out.getvalue())


def read(path: Path, keys: Sequence[str]) -> dict[str, Details]:
    """The details of `keys`; {} when there is no file (a run of an older version).

    Raises UserError for a damaged one, or one that is not of these clips.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = {row["key"]: _parse(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}); `livetrain evaluate RUN` writes it again") from None
    lacking = [key for key in keys if key not in found]
    if lacking:
        raise UserError(f"{path}: has no row for {lacking[0]}; `livetrain evaluate RUN` writes it again")
    return {key: found[key] for key in keys}


def _parse(row: Mapping[str, str]) -> Details:
    frames, scores, shares = (row[name].split() for name in LISTS)
    return Details(
        row["session"],
        row["device"],
        row["domain"],
        _number(row["width"]),
        _number(row["height"]),
        _number(row["video_seconds"]),
        _number(row["frames_per_second"]),
        _number(row["brightness"]),
        _number(row["face_height"]),
        tuple(map(int, frames)),
        tuple(map(float, scores)),
        tuple(map(float, shares)),
    )


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None
