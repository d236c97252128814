"""What a sample keeps of its video, one module a store.

    original    the file's bytes, untouched
    remux       the same pictures without re-encoding them: no sound, index in front, whole macroblocks for NVDEC
    transcode   re-encoded: smaller, key frames closer together
    frames      a few JPEGs

Each has `store(data, facts, media) -> Stored`, a pure function of a file's bytes, what `probe` found in it, and the
options; the same arguments give the same bytes in any process of a machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from shards.format.probe import Probe

STORES = ("original", "remux", "transcode", "frames")


@dataclass(frozen=True)
class StoreOptions:
    """A store and its options, 0 or empty where they mean nothing to it.

    num_frames or frames_per_second: JPEGs of a video. short_side, long_side: pixels that side is shrunk to, 0: as it
    is. gop: frames from one key frame to the next. codec: h264 or hevc. quality: of JPEGs (1 to 100), or the encoder's
    constant rate factor.
    """

    store: str = "original"
    num_frames: int = 0
    frames_per_second: float = 0.0
    short_side: int = 0
    long_side: int = 0
    gop: int = 0
    codec: str = ""
    quality: int = 0


QUALITY = {"frames": 95, "h264": 18, "hevc": 20}  # JPEGs; CRFs are visually lossless for most: cues are faint


def default_quality(store: str, codec: str) -> int:
    """`StoreOptions.quality` where none is given."""
    return QUALITY[codec if store == "transcode" else store]


@dataclass(frozen=True)
class Stored:
    """A sample's media as (extension, bytes), and the facts of what is stored.

    store: that was used; a video that cannot be remuxed is stored as `original`. frame_numbers: of JPEGs, the index of
    each in the original (as the decoder hands frames out).
    """

    payloads: Sequence[tuple[str, bytes]]
    facts: Probe
    store: str
    frame_numbers: Sequence[int] = field(default=())


class Store(Protocol):
    """What each module of this package is."""

    def store(self, data: bytes, facts: Probe, media: StoreOptions) -> Stored:
        """Raises RejectedVideo, av.FFmpegError for a video that cannot be stored in this way."""


def store(video: str, data: bytes, facts: Probe, media: StoreOptions) -> Stored:
    """What is kept of the file `video` (its name) with the bytes `data`. Raises RejectedVideo, av.FFmpegError."""
    module: Store = importlib.import_module(f"{__name__}.{media.store}")
    stored = module.store(data, facts, media)
    if stored.store != "original":
        return stored
    suffix = PurePosixPath(video).suffix[1:].lower()
    return Stored([(suffix, data)], stored.facts, "original")
