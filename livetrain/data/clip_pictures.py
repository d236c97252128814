"""Frames of clips as JPEG bytes, for pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from livetrain.data.dataset import Dataset, FetchError
from livetrain.data.decode import DecodeError

Pictures = Callable[[str, Sequence[int]], list[bytes]]


def clip_pictures(dataset: Dataset) -> Pictures:
    """key, frames → JPEG bytes of those frames of that clip (none: of its middle), [] where there is none to show."""

    def pictures(key: str, frames: Sequence[int]) -> list[bytes]:
        row = dataset.row_of(key)
        try:
            return [] if row is None else dataset.pictures(row, frames)
        except (FetchError, DecodeError):
            return []

    return pictures
