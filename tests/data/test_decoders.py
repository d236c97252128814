"""Which decoder a clip uses."""

from __future__ import annotations

import pytest

from livetrain.data.decoders import choose_decoder

PLAIN = {"store": "original", "codec": "h264", "pixel_format": "yuv420p", "is_interlaced": False, "is_regular": True}
PLAIN |= {"width": 320, "height": 240, "is_range_coded": True}


@pytest.mark.parametrize(
    ("change", "decoder"),
    [
        ({}, "nvdec"),
        ({"codec": "hevc"}, "nvdec"),
        ({"width": 48, "height": 16}, "nvdec"),
        ({"width": 46}, "cpu"),  # NVDEC refuses what is smaller
        ({"codec": "hevc", "height": 142}, "cpu"),
        ({"width": 4096, "height": 4096}, "nvdec"),
        ({"width": 4098}, "cpu"),  # more than most chips take
        ({"codec": "hevc", "width": 8192}, "nvdec"),
        ({"codec": "hevc", "height": 8194}, "cpu"),
        ({"is_regular": False}, "cpu"),  # an edit list: NVDEC's frame 0 is one that is never shown
        ({"is_range_coded": False}, "cpu"),  # NVDEC does not read what the container adds
        ({"codec": "mpeg4"}, "cpu"),  # another inverse transform: other pixels
        ({"pixel_format": "yuvj420p"}, "nvdec"),
        ({"codec": "vp9"}, "cpu"),  # hidden frames: wrong pictures silently
        ({"codec": "vp8"}, "cpu"),
        ({"codec": "av1"}, "cpu"),
        ({"codec": "mjpeg", "pixel_format": "yuvj420p"}, "cpu"),
        ({"pixel_format": "yuv420p10le"}, "cpu"),
        ({"pixel_format": "yuv422p"}, "cpu"),
        ({"pixel_format": "yuv444p"}, "cpu"),
        ({"is_interlaced": True}, "cpu"),
        ({"width": 161}, "cpu"),
        ({"height": 121}, "cpu"),
        ({"store": "frames", "codec": "jpeg", "pixel_format": "rgb24"}, "image"),
    ],
)
def test_which_decoder(change: dict[str, object], decoder: str) -> None:
    assert choose_decoder(**(PLAIN | change), on_gpu=True) == decoder  # type: ignore[arg-type]
    assert choose_decoder(**(PLAIN | change), on_gpu=False) == "cpu"  # type: ignore[arg-type]
