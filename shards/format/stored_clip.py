"""The upright pictures of a clip, whether it is a file of its own or a member of a shard's tar."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.format.colour import Colours, ToRgb
from shards.format.probe import Probe, RejectedVideo, decode, open_video
from shards.format.tar import payload_offsets

Picture = NDArray[np.uint8]  # RGB, [height, width, 3]

INDEX_COLUMNS = (
    "shard", "offset", "size", "frame_sizes", "store", "num_frames", "width", "height", "rotation", "matrix",
    "is_full_range", "transfer",
)  # fmt: skip


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


@dataclass(frozen=True)
class StoredClip:
    """One clip of a shard folder: its tar, (offset, size) of its media there, its store, its frames."""

    tar: Path
    media: tuple[tuple[int, int], ...]
    store: str
    num_frames: int
    shown: Shown

    @staticmethod
    def of(folder: Path, content: Mapping[str, Any], row: Mapping[str, Any]) -> StoredClip:
        """A row of the index, with INDEX_COLUMNS at least. content: the folder's dataset.json."""
        colours = Colours(row["matrix"], bool(row["is_full_range"]), row["transfer"])
        return StoredClip(
            folder / content["shards"][row["shard"]]["name"],
            tuple(payload_offsets(row)),
            row["store"],
            row["num_frames"],
            Shown((row["height"], row["width"]), row["rotation"], colours),
        )

    def pictures(self, frames: Sequence[int]) -> Iterator[Picture]:
        """The upright pictures of `frames` (ascending, each once), decoded no further than the last.

        Raises RejectedVideo, OSError, SyntaxError (Pillow's for a broken JPEG).
        """
        with self.tar.open("rb") as file:
            if self.store != "frames":
                file.seek(self.media[0][0])
                yield from pictures_of_video(file.read(self.media[0][1]), frames, self.shown)
                return
            for index in frames:
                file.seek(self.media[index][0])
                yield _jpeg(file.read(self.media[index][1]))


def pictures_of_video(data: bytes, frames: Sequence[int], shown: Shown) -> Iterator[Picture]:
    """The upright pictures of `frames` (ascending, each once) of a video file. Raises RejectedVideo, OSError."""
    with open_video(data) as container:
        wanted, to_rgb = set(frames), ToRgb(shown.colours)
        for number, frame in enumerate(decode(container, container.streams.best("video"))):
            if number in wanted:
                picture = to_rgb(frame, (frame.height, frame.width))[: shown.size[0], : shown.size[1]]
                yield np.ascontiguousarray(np.rot90(picture, -shown.rotation // 90))  # counter-clockwise
            if number == frames[-1]:
                return
    raise RejectedVideo(f"it has fewer frames than the index says ({frames[-1] + 1} were requested)")


def _jpeg(data: bytes) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))
