"""Which way a clip takes to the graph: a pure function of its row in the index."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from numpy.typing import NDArray

Source = Literal["frames", "video", "jpeg"]

# What NVDEC gives as libavcodec does, through DALI 2.4 on an H200: no value of RGB was more than one level away.
# MPEG-4 was up to 5 away (another inverse transform). Of VP8 and VP9 it counts the hidden frames (libvpx's default) and
# hands out wrong ones without a word; 10 bits and 4:2:2 depend on the chip. Codec → smallest width and height.
NVDEC_SMALLEST = {"h264": (48, 16), "hevc": (144, 144)}
NVDEC_FORMATS = frozenset({"yuv420p", "yuvj420p"})


class Rows(Protocol):
    """A `Dataset`, or video files (livetrain.data.files)."""

    def column(self, name: str) -> NDArray[Any]: ...
    def text(self, name: str, row: int) -> str: ...


def lane_of(rows: Rows, row: int, *, on_gpu: bool) -> Source:
    """`source_of` the clip in a row of the index."""
    store, codec, pixel_format = (rows.text(name, row) for name in ("store", "codec", "pixel_format"))
    facts = {name: int(rows.column(name)[row]) for name in ("is_interlaced", "is_regular", "width", "height")}
    return source_of(store, codec, pixel_format, **facts, on_gpu=on_gpu)  # type: ignore[arg-type]


def source_of(
    store: str,
    codec: str,
    pixel_format: str,
    *,
    is_interlaced: bool,
    is_regular: bool,
    width: int,
    height: int,
    on_gpu: bool,
) -> Source:
    """`jpeg`: pictures that DALI decodes. `video`: a file that NVDEC decodes. `frames`: PyAV decodes on the CPU.

    is_interlaced, is_regular: see shards.probe.Probe; of others (edit lists, AVI with B-frames) NVDEC's frame i is
    another picture. width, height: of the coded frame, before rotation. on_gpu: whether there is an NVDEC to use.
    """
    if store == "frames":
        return "jpeg"
    if not on_gpu or codec not in NVDEC_SMALLEST or pixel_format not in NVDEC_FORMATS:
        return "frames"
    smallest = NVDEC_SMALLEST[codec]
    is_large = width >= smallest[0] and height >= smallest[1]
    is_even = width % 2 == height % 2 == 0
    return "video" if is_large and is_even and is_regular and not is_interlaced else "frames"
