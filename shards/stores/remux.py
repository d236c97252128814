"""The same packets in a new MP4: no sound and no cover, the index in front, and no crop in the stream.

A stream whose coded size (whole macroblocks) is not its shown size makes NVDEC through DALI set up a decoder for every
clip: 80 instead of 242 wanted frames/s at 1080p on an H100. Here the crop is taken out of the sequence parameter set
and the container says the coded size too; the index keeps the size to show, `width` x `height` from the upper left
corner, and the graph cuts it out. Nothing is re-encoded.

It is believed only after both files have been decoded, and every frame's samples and what they stand for (range,
matrix, rotation) compared. What cannot be done (a codec that MP4 does not hold, a crop at the left, anything that would
change a frame) leaves the file as it is.
"""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from shards.format.probe import Probe, RejectedVideo, best_stream, decode, open_video, probe
from shards.stores import Stored, StoreOptions

NO_CROP = "crop_left=0:crop_right=0:crop_top=0:crop_bottom=0"
TAGS = {"h264": "avc1", "hevc": "hvc1"}
FILTERS = {"h264": f"h264_metadata={NO_CROP}", "hevc": f"hevc_metadata={NO_CROP}"}


def store(data: bytes, facts: Probe, media: StoreOptions) -> Stored:
    """See shards.stores."""
    before, coded = _decoded(data, facts)
    after: list[int] = []
    try:
        made = remux(data, facts.codec, coded)
        found = probe(made, on_frame=lambda frame: after.append(digest(frame, facts.width, facts.height)))
    except (RejectedVideo, av.FFmpegError, ValueError):
        after = []
    if not after or after != before or (found.rotation, found.colours) != (facts.rotation, facts.colours):
        return Stored([("", data)], facts, "original")
    shown = replace(
        facts, coded_width=found.coded_width, coded_height=found.coded_height, is_regular=found.is_regular,
        is_range_coded=found.is_range_coded, check="decode",
    )  # fmt: skip
    return Stored([("mp4", made)], shown, "remux")


def remux(data: bytes, codec: str, coded_size: tuple[int, int]) -> bytes:
    """The video stream of a file alone, as MP4. `coded_size`: (width, height) in whole macroblocks.

    Raises av.FFmpegError, ValueError for what MP4 does not hold.
    """
    # A file on the disk: to put the index in front, FFmpeg reads again what it has written.
    with tempfile.TemporaryDirectory(prefix="livetrain-remux-") as folder:
        path = Path(folder) / "clip.mp4"
        muxing = {"movflags": "faststart", "fflags": "+bitexact"}
        with open_video(data) as source, av.open(str(path), "w", format="mp4", options=muxing) as output:
            stream = best_stream(source)
            target: Any = output.add_stream_from_template(stream, opaque=True)
            filtering = BitStreamFilterContext(FILTERS[codec], stream, target) if codec in FILTERS else None
            target.codec_context.codec_tag = TAGS.get(codec, "\0\0\0\0")  # MP4's own, not AVI's
            if filtering:
                target.codec_context.width, target.codec_context.height = coded_size
            for packet in source.demux(stream):
                if packet.size:
                    for item in filtering.filter(packet) if filtering else [packet]:
                        item.stream = target
                        output.mux(item)
        return path.read_bytes()


def digest(frame: Any, width: int, height: int) -> int:
    """CRC-32 of a frame's samples as decoded, of `width` x `height` pixels at its upper left corner."""
    value = 0
    components = av.VideoFormat(frame.format.name, width, height).components
    for index, plane in enumerate(frame.planes):
        parts = [part for part in components if part.plane == index]
        if parts:  # a palette has none
            row = parts[0].width * sum(-(-part.bits // 8) for part in parts)
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            value = zlib.crc32(rows[: parts[0].height, :row].tobytes(), value)
    return value


def _decoded(data: bytes, facts: Probe) -> tuple[list[int], tuple[int, int]]:
    """The digests of a file's frames, and the coded size (width, height) of its stream."""
    with open_video(data) as container:
        stream = best_stream(container)
        digests = [digest(frame, facts.width, facts.height) for frame in decode(container, stream)]
        context = stream.codec_context
        return digests, (context.coded_width, context.coded_height)
