"""Frames of clips as JPEG bytes, for pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from livetrain.data.dataset import Dataset, FetchError
from livetrain.data.decode import DecodeError, decode_video
from livetrain.data.decoders import colours_of
from shards.format.colour import ToRgb

Pictures = Callable[[str, Sequence[int]], list[bytes]]


def clip_pictures(dataset: Dataset) -> Pictures:
    """key, frames → JPEG bytes of those frames of that clip (none: of its middle), [] where there is none to show."""

    def pictures(key: str, frames: Sequence[int]) -> list[bytes]:
        row = dataset.row_of(key)
        try:
            return [] if row is None else pictures_of(dataset, row, frames)
        except (FetchError, DecodeError):
            return []

    return pictures


def pictures_of(dataset: Dataset, row: int, frames: Sequence[int], shown_height: int = 160) -> list[bytes]:
    """Frames of a sample (indices; none: the middle one), upright, `shown_height` pixels high, as JPEG bytes.

    Raises FetchError, DecodeError.
    """
    from PIL import Image

    num_frames = int(dataset.column("num_frames")[row])
    wanted = np.array(frames or [num_frames // 2])
    if dataset.text("store", row) == "frames":
        found = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in dataset.jpeg_bytes(row, wanted)]
    else:
        turn = -int(dataset.column("rotation")[row])
        is_regular = bool(dataset.column("is_regular")[row])
        shape = ToRgb(colours_of(dataset, row))
        decoded = decode_video(dataset.video_bytes(row), wanted, num_frames, is_regular=is_regular, shape=shape)
        height, width = (int(dataset.column(name)[row]) for name in ("height", "width"))
        found = [Image.fromarray(frame[:height, :width]).rotate(turn, expand=True) for frame in decoded]
    return [_jpeg(picture, shown_height) for picture in found]


def _jpeg(picture: Any, height: int) -> bytes:
    from PIL import Image

    width = max(1, round(picture.width * height / picture.height))
    out = io.BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(out, format="JPEG", quality=80)
    return out.getvalue()
