"""What decoding costs, measured: the table that `livetrain plan DIR` predicts from.

8 evenly spaced of 100 frames of real clips, resized to 224 pixels and augmented. GPU: one H100 80 GB, DALI 2.4.0, four
pipelines (one at 480x852, for 720p and with a crop at 1080p). CPU: two cores at 2 threads, halved; PyAV 18.1, frames
that nobody wants left out, planes of 4:2:0 out. JPEGs: 640x480, quality 92, nvJPEG with a hardware load of 0.65; on a
core, libjpeg-turbo and the resize.
"""

from __future__ import annotations

from dataclasses import dataclass

H264, HEVC, JPEG = "h264", "hevc", "jpeg"


@dataclass(frozen=True)
class Rate:
    """Requested frames a second on one GPU (`nvdec`, `image`) or one core (`cpu`) at a size.

    is_cropped: coded in whole macroblocks, of which the stream says to cut some off: NVDEC through DALI makes a new
    decoder for each clip.
    """

    decoder: str
    codec: str
    width: int
    height: int
    frames_per_second: float
    is_cropped: bool = False


RATES = (
    Rate("nvdec", H264, 640, 480, 667),
    Rate("nvdec", H264, 480, 864, 493),
    Rate("nvdec", H264, 1280, 720, 444),
    Rate("nvdec", H264, 1920, 1088, 302),
    Rate("nvdec", H264, 480, 852, 92, is_cropped=True),
    Rate("nvdec", H264, 1920, 1080, 72, is_cropped=True),
    Rate("nvdec", HEVC, 1280, 720, 478),
    Rate("cpu", H264, 640, 480, 124),
    Rate("cpu", H264, 1280, 720, 58),
    Rate("cpu", H264, 1920, 1080, 37),
    Rate("cpu", HEVC, 1280, 720, 57.5),
    Rate("image", JPEG, 640, 480, 22831),
    Rate("cpu", JPEG, 640, 480, 600),
)


def frames_per_second(decoder: str, codec: str, width: int, height: int) -> float:
    """The rate expected at a size: the measured one of the nearest size.

    Of the same codec and crop where there is one; lower in proportion where there are more pixels. Below the smallest
    size measured, the time of a frame falls along the line through the smallest and the largest, which is careful:
    calls and synchronising remain.
    """
    pixels = width * height
    is_cropped = decoder == "nvdec" and bool(width % 16 or height % 16)
    known = [rate for rate in RATES if rate.decoder == decoder]
    for name, wanted in (("codec", codec), ("is_cropped", is_cropped)):
        known = [rate for rate in known if getattr(rate, name) == wanted] or known
    smallest, largest = (end(known, key=_pixels) for end in (min, max))
    if pixels < _pixels(smallest) < _pixels(largest):
        a_pixel = (1 / largest.frames_per_second - 1 / smallest.frames_per_second) / (
            _pixels(largest) - _pixels(smallest)
        )
        return 1 / (1 / smallest.frames_per_second - a_pixel * (_pixels(smallest) - pixels))
    nearest = min(known, key=lambda rate: abs(_pixels(rate) - pixels))
    return nearest.frames_per_second * min(1.0, _pixels(nearest) / pixels)


def _pixels(rate: Rate) -> int:
    return rate.width * rate.height
