"""Which decoder a clip uses, and what its samples stand for: pure functions of its row in the index."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from shards.format.colour import Colours

Decoder = Literal["cpu", "nvdec", "image"]

# What NVDEC gives as libavcodec does, through DALI 2.4 on an H200: no value of RGB was more than one level away when
# both were converted alike.
# MPEG-4 was up to 5 away (another inverse transform). Of VP8 and VP9 it counts the hidden frames (libvpx's default) and
# hands out wrong ones silently; 10 bits and 4:2:2 depend on the chip. Codec → smallest width and height.
NVDEC_SMALLEST = {"h264": (48, 16), "hevc": (144, 144)}
# Largest width and height that every chip since Volta takes (NVDEC application note, Video Codec SDK 13.0; Blackwell
# takes H.264 of 8192 too). One size for all chips: the same clips take the same decoder.
NVDEC_LARGEST = {"h264": (4096, 4096), "hevc": (8192, 8192)}
NVDEC_FORMATS = frozenset({"yuv420p", "yuvj420p"})


class Rows(Protocol):
    """A `Dataset`, or video files (livetrain.data.video_files)."""

    def column(self, name: str) -> NDArray[Any]: ...
    def text(self, name: str, row: int) -> str: ...


def decoder_of(rows: Rows, row: int, *, on_gpu: bool) -> Decoder:
    """`choose_decoder` the clip in a row of the index."""
    return choose_decoder(**facts_of(rows, row), on_gpu=on_gpu)


def colours_of(rows: Rows, row: int) -> Colours:
    """What the samples of the clip in a row of the index stand for."""
    return Colours(rows.text("matrix", row), bool(rows.column("is_full_range")[row]), rows.text("transfer", row))


def facts_of(rows: Rows, row: int) -> dict[str, Any]:
    """What `choose_decoder` asks of a row of the index."""
    numbers = {name: int(rows.column(name)[row]) for name in ("is_interlaced", "is_regular", "is_range_coded")}
    size = {name: int(rows.column(f"coded_{name}")[row]) for name in ("width", "height")}
    return {name: rows.text(name, row) for name in ("store", "codec", "pixel_format")} | numbers | size


def decoded_bytes(rows: Rows, row: int, num_frames: int) -> int:
    """Memory that `num_frames` decoded pictures of the clip in a row of the index take: RGB, not resized yet."""
    size = int(rows.column("coded_width")[row]) * int(rows.column("coded_height")[row])
    return 3 * size * num_frames


def choose_decoder(store: str, *, on_gpu: bool, **facts: Any) -> Decoder:
    """`image`: DALI decodes stored JPEG frames. `nvdec`: NVDEC decodes a video. `cpu`: libavcodec, or libjpeg-turbo.

    on_gpu: whether there is a GPU to decode on. facts: those of `why_not_nvdec`.
    """
    if not on_gpu:
        return "cpu"
    if store == "frames":
        return "image"
    return "cpu" if why_not_nvdec(**facts) else "nvdec"


def why_not_nvdec(
    codec: str,
    pixel_format: str,
    *,
    is_interlaced: bool,
    is_regular: bool,
    is_range_coded: bool,
    width: int,
    height: int,
) -> str:
    """Why a video does not go to NVDEC, in a few words; empty where it does.

    is_interlaced, is_regular, is_range_coded: see shards.format.probe.Probe; NVDEC's frame i of an irregular one (edit
    lists, AVI with B-frames) is another picture, and it does not read what a container says of the range. width,
    height: of the coded frame, before rotation.
    """
    if codec not in NVDEC_SMALLEST:
        return f"{codec}: not what libavcodec gives"
    if pixel_format not in NVDEC_FORMATS:
        return f"{pixel_format}: not 8 bits of 4:2:0"
    if is_interlaced:
        return "interlaced"
    if not is_regular:
        return "times do not tell its frames"
    if not is_range_coded:
        return "its full range is stated by the container alone"
    if width < NVDEC_SMALLEST[codec][0] or height < NVDEC_SMALLEST[codec][1]:
        return "smaller than NVDEC takes"
    if width > NVDEC_LARGEST[codec][0] or height > NVDEC_LARGEST[codec][1]:
        return "larger than NVDEC takes"
    return "odd size" if width % 2 or height % 2 else ""
