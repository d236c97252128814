"""The table of ways."""

from __future__ import annotations

import pytest

from livetrain.data.decoders import source_of

PLAIN = {"store": "original", "codec": "h264", "pixel_format": "yuv420p", "is_interlaced": False, "is_regular": True}
PLAIN |= {"width": 320, "height": 240, "is_range_coded": True}


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ({}, "video"),
        ({"codec": "hevc"}, "video"),
        ({"width": 48, "height": 16}, "video"),
        ({"width": 46}, "frames"),  # NVDEC refuses what is smaller
        ({"codec": "hevc", "height": 142}, "frames"),
        ({"width": 4096, "height": 4096}, "video"),
        ({"width": 4098}, "frames"),  # more than most chips take
        ({"codec": "hevc", "width": 8192}, "video"),
        ({"codec": "hevc", "height": 8194}, "frames"),
        ({"is_regular": False}, "frames"),  # an edit list: NVDEC's frame 0 is one that is never shown
        ({"is_range_coded": False}, "frames"),  # NVDEC does not read what the container adds
        ({"codec": "mpeg4"}, "frames"),  # another inverse transform: other pixels
        ({"pixel_format": "yuvj420p"}, "video"),
        ({"codec": "vp9"}, "frames"),  # hidden frames: wrong pictures without a word
        ({"codec": "vp8"}, "frames"),
        ({"codec": "av1"}, "frames"),
        ({"codec": "mjpeg", "pixel_format": "yuvj420p"}, "frames"),
        ({"pixel_format": "yuv420p10le"}, "frames"),
        ({"pixel_format": "yuv422p"}, "frames"),
        ({"pixel_format": "yuv444p"}, "frames"),
        ({"is_interlaced": True}, "frames"),
        ({"width": 161}, "frames"),
        ({"height": 121}, "frames"),
        ({"store": "frames", "codec": "jpeg", "pixel_format": "rgb24"}, "jpeg"),
    ],
)
def test_ways(change: dict[str, object], way: str) -> None:
    assert source_of(**(PLAIN | change), on_gpu=True) == way  # type: ignore[arg-type]
    assert source_of(**(PLAIN | change), on_gpu=False) == ("jpeg" if way == "jpeg" else "frames")  # type: ignore[arg-type]
