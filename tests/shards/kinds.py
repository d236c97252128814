"""A small video of each kind that people bring: codecs, containers, pixel formats, times, rotation, order of streams.

`KINDS` maps a name to a Kind, whose `data` is the file's bytes, made by PyAV. What its encoders cannot write is cut
and patched by hand. `reference` decodes plainly, from the first packet to the last: what all else is compared with.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from shards.demo.corpus import with_rotation
from shards.format.container import open_bytes
from tests.shards.clips import moov_first
from tests.videos import rgb

X264 = {"preset": "ultrafast", "bf": "2", "g": "6", "sc_threshold": "0"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=6:bframes=2"}
VPX = {"cpu-used": "8", "deadline": "realtime", "g": "6"}
BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
SVT = {"preset": "12", "g": "6", "svtav1-params": "lp=1"}


@dataclass(frozen=True)
class Kind:
    """How a video is made, and what a probe must say of it. `times`: of each frame, in 1/1000 s (None: 25 a second)."""

    suffix: str = "mp4"
    codec: str = "libx264"
    pixels: str = "yuv420p"
    width: int = 64
    height: int = 48
    num_frames: int = 14
    num_hidden: int = 0  # of them, cut off by an edit list
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    flags: int = 0
    times: Sequence[int] | None = None
    sound: str = ""  # codec of a sound track that is stream 0
    cover: bool = False  # a still picture is stream 0
    rotation: int = 0  # clockwise degrees to upright, written as a tag
    tags: dict[str, Any] = field(default_factory=dict)  # attributes of the codec context
    title: str = ""
    patch: Callable[[bytes], bytes] | None = None

    @functools.cached_property
    def data(self) -> bytes:
        """The bytes of the file, made once."""
        buffer = io.BytesIO()
        container_format = {"mkv": "matroska", "m4v": "mp4", "mts": "mpegts"}.get(self.suffix, self.suffix)
        with av.open(buffer, "w", format=container_format, options=self.muxer) as container:
            if self.title:
                container.metadata["title"] = self.title
            sound = self._sound(container) if self.sound else None
            cover = container.add_stream("mjpeg") if self.cover else None
            if cover is not None:
                cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
                cover.disposition = av.stream.Disposition.attached_pic
            stream: Any = container.add_stream(self.codec, rate=25, options=self.options)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pixels
            context = stream.codec_context
            context.flags |= self.flags
            context.thread_count = 1
            for name, value in self.tags.items():
                setattr(context, name, value)
            if self.times is not None:
                context.time_base = stream.time_base = Fraction(1, 1000)
            if cover is not None:
                container.mux(cover.encode(_frame(_still(), "yuvj420p")))
            for number, picture in enumerate(pictures(self.num_frames, self.height, self.width)):
                frame = _frame(picture, self.pixels)
                frame.pts = number if self.times is None else self.times[number]
                frame.time_base = Fraction(1, 25) if self.times is None else Fraction(1, 1000)
                container.mux(stream.encode(frame))
                if sound is not None:
                    container.mux(sound.encode(_silence(sound, number)))
            container.mux(stream.encode(None))
            if sound is not None:
                container.mux(sound.encode(None))
        data = buffer.getvalue()
        if self.patch:
            return self.patch(data)
        return with_rotation(data, self.rotation, self.width, self.height) if self.rotation else data

    @property
    def num_shown(self) -> int:
        """Frames that a player shows."""
        return self.num_frames - self.num_hidden

    def _sound(self, container: Any) -> Any:
        stream = container.add_stream(self.sound, rate=48000)
        stream.layout = "mono"
        return stream


def pictures(num_frames: int, height: int, width: int) -> list[np.ndarray]:
    """uint8 RGB [height, width, 3]: a bright upper left corner, darker with each frame, over a gradient that moves."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint16)
    result = []
    for number in range(num_frames):
        picture = np.stack(
            [(rows * 2 + number * 7) % 160, (columns * 3 + number * 5) % 160, (rows + columns + 9 * number) % 160],
            axis=2,
        ).astype(np.uint8)
        picture[: max(1, height // 3), : max(1, width // 3)] = 255 - 6 * (number % 16)
        result.append(picture)
    return result


def _frame(picture: np.ndarray, pixels: str) -> av.VideoFrame:
    if pixels.startswith(("yuva", "rgba", "argb")):
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        alpha[picture.shape[0] // 2 :] = 90
        return av.VideoFrame.from_ndarray(np.concatenate([picture, alpha], axis=2), format="rgba").reformat(
            format=pixels
        )
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)


def _still() -> np.ndarray:
    return np.full((32, 32, 3), (255, 0, 255), np.uint8)


def _silence(stream: Any, number: int) -> av.AudioFrame:
    samples = stream.codec_context.frame_size or 960
    layout_format = stream.codec_context.format.name
    frame = av.AudioFrame(format=layout_format, layout="mono", samples=samples)
    frame.sample_rate = 48000
    frame.pts = number * samples
    frame.time_base = Fraction(1, 48000)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    return frame


def plain_frames(data: bytes) -> Iterator[av.VideoFrame]:
    """All frames, by libav's plainest loop over the stream that it holds for the best."""
    with open_bytes(data) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.thread_type = "NONE"  # what threads make of damage is not always the same
        for packet in container.demux(stream):
            yield from packet.decode()  # type: ignore[misc]


def reference(data: bytes) -> list[np.ndarray]:
    """All frames of a video as uint8 RGB [height, width, 3], in coded orientation."""
    return [rgb(frame) for frame in plain_frames(data)]


def raw(frame: av.VideoFrame) -> bytes:
    """A frame's samples as the decoder gave them, without the padding of rows: FFmpeg's rawvideo."""
    result = []
    for index, plane in enumerate(frame.planes):
        parts = [part for part in frame.format.components if part.plane == index]
        row = parts[0].width * sum(-(-part.bits // 8) for part in parts)
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        result.append(rows[: plane.height, :row].tobytes())
    return b"".join(result)


def header_says(num_frames: int) -> Callable[[bytes], bytes]:
    """Makes the headers of an AVI count another number of frames, as a camera that lost power leaves them."""

    def patch(data: bytes) -> bytes:
        out = bytearray(data)
        struct.pack_into("<I", out, data.index(b"avih") + 8 + 16, num_frames)
        struct.pack_into("<I", out, data.index(b"strh") + 8 + 32, num_frames)
        return bytes(out)

    return patch


def with_matrix(a: int, d: int) -> Callable[[bytes], bytes]:
    """Makes the display matrix of an MP4 (a 0; 0 d): (-1, 1) mirrors left to right, as some front cameras have it."""

    def patch(data: bytes) -> bytes:
        at = data.index(b"tkhd") + 4 + 40  # version 0: 4 flags, 20 times and ids, 8 reserved, 8 layer to volume
        matrix = struct.pack(">9i", a << 16, 0, 0, 0, d << 16, 0, 64 << 16, 48 << 16, 0x40000000)
        return data[:at] + matrix + data[at + 36 :]

    return patch


VFR = [0, 40, 41, 120, 121, 500, 501, 502, 900, 933, 966, 2000, 2001, 2400]
INTERLACED = Flags.interlaced_dct.value | Flags.interlaced_me.value

KINDS: dict[str, Kind] = {
    "h264.mp4": Kind(options=X264),
    "h264.mov": Kind("mov", options=X264),
    "h264.mkv": Kind("mkv", options=X264),
    "h264.avi": Kind("avi", options=X264 | {"bf": "0"}),
    "h264_b_frames.avi": Kind("avi", options=X264),
    "h264_b_pyramid.mp4": Kind(
        options={"preset": "ultrafast", "bf": "5", "b_strategy": "0", "refs": "5", "x264-params": "b-pyramid=normal"}
    ),
    "h264_open_gop.mp4": Kind(options=X264 | {"x264-params": "open-gop=1:bframes=3:keyint=6:scenecut=0"}),
    "h264_intra_refresh.mp4": Kind(options={"preset": "ultrafast", "x264-params": "intra-refresh=1:keyint=6"}),
    "h264_10bit.mp4": Kind(pixels="yuv420p10le", options=X264),
    "h264_422.mp4": Kind(pixels="yuv422p", options=X264),
    "h264_444_odd.mp4": Kind(pixels="yuv444p", width=63, height=47, options=X264),
    "h264_full_range.mp4": Kind(pixels="yuvj420p", options=X264, tags={"color_range": 2}),
    "h264_bt709.mp4": Kind(options=X264, tags=BT709),
    "h264_interlaced.mp4": Kind(
        height=64, options={"preset": "ultrafast", "x264-params": "interlaced=1:tff=1:bframes=2:keyint=6"},
        flags=INTERLACED,
    ),
    "h264_camcorder.mts": Kind(
        "mts", height=64, options={"preset": "ultrafast", "x264-params": "interlaced=1:tff=1:bframes=2:keyint=6"},
        flags=INTERLACED, tags={"sample_aspect_ratio": Fraction(4, 3)}, times=[11400 + 40 * i for i in range(14)],
    ),
    "h264_cropped.mp4": Kind(width=70, height=50, options=X264),
    "h264_fragmented.mp4": Kind(options=X264, muxer={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "h264_faststart.mp4": Kind(options=X264, patch=moov_first),
    "h264_vfr.mp4": Kind(options=X264, times=VFR),
    "h264_vfr.mkv": Kind("mkv", options=X264, times=VFR),
    "h264_late_start.mp4": Kind(options=X264, times=[3000 + 40 * i for i in range(14)]),
    "h264_trimmed.mp4": Kind(
        options=X264, num_hidden=8, times=[40 * i - 320 for i in range(14)], muxer={"avoid_negative_ts": "disabled"}
    ),
    "h264_one_frame.mp4": Kind(options=X264, num_frames=1),
    "h264_one_frame.mkv": Kind("mkv", options=X264, num_frames=1),
    "h264_two_frames.mp4": Kind(options=X264, num_frames=2),
    "h264_tiny.mp4": Kind(width=16, height=16, options=X264),
    "h264_2x2.mp4": Kind(width=2, height=2, options=X264),
    "h264_wide.mp4": Kind(width=640, height=16, options=X264),
    "h264_tall.mp4": Kind(width=16, height=640, options=X264),
    "h264_sound_first.mp4": Kind(options=X264, sound="aac"),
    "h264_sound_first.mkv": Kind("mkv", options=X264, sound="aac"),
    "h264_sound_first.avi": Kind("avi", options=X264 | {"bf": "0"}, sound="pcm_s16le"),
    "h264_cover_first.mp4": Kind(options=X264, cover=True),
    "h264_cover_first.mkv": Kind("mkv", options=X264, cover=True),
    "h264_turned_90.mp4": Kind(options=X264, rotation=90),
    "h264_turned_180.mov": Kind("mov", options=X264, rotation=180),
    "h264_turned_270.mp4": Kind(options=X264, rotation=270),
    "h264_mirrored.mp4": Kind(options=X264, patch=with_matrix(-1, 1)),
    "h264_upside_down.mp4": Kind(options=X264, patch=with_matrix(1, -1), rotation=180),
    "h264_title_latin1.mp4": Kind(
        options=X264, title="TITLE", patch=lambda data: data.replace(b"TITLE", b"T\xfcr\xff!")),
    "h264_4k.mp4": Kind(width=3840, height=2160, num_frames=3, options=X264),
    "hevc.mp4": Kind(codec="libx265", options=X265),
    "hevc.mkv": Kind("mkv", codec="libx265", options=X265),
    "hevc_cropped.mp4": Kind(codec="libx265", width=70, height=50, options=X265),
    "hevc_vfr.mp4": Kind(codec="libx265", options=X265, times=VFR),
    "hevc_late_start.mp4": Kind(codec="libx265", options=X265, times=[3000 + 40 * i for i in range(14)]),
    "hevc_trimmed.mp4": Kind(
        codec="libx265", options=X265, num_hidden=8, times=[40 * i - 320 for i in range(14)],
        muxer={"avoid_negative_ts": "disabled"},
    ),
    "hevc_10bit.mp4": Kind(codec="libx265", pixels="yuv420p10le", options=X265),
    "hevc_turned.mov": Kind("mov", codec="libx265", options=X265, rotation=90),
    "vp8.webm": Kind("webm", "libvpx", options=VPX),
    "vp8_odd.webm": Kind("webm", "libvpx", width=63, height=47, options=VPX),
    "vp8_alpha.webm": Kind("webm", "libvpx", "yuva420p", options=VPX | {"auto-alt-ref": "0"}),
    "vp9.webm": Kind("webm", "libvpx-vp9", options=VPX),
    "vp9.mp4": Kind("mp4", "libvpx-vp9", options=VPX),
    "vp9_odd.webm": Kind("webm", "libvpx-vp9", width=63, height=47, options=VPX),
    "vp9_alt_ref.webm": Kind(
        "webm", "libvpx-vp9", num_frames=40,
        options={"cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"},
    ),
    "vp9_alpha.webm": Kind("webm", "libvpx-vp9", "yuva420p", options=VPX | {"auto-alt-ref": "0"}),
    "vp9_sound_first.webm": Kind("webm", "libvpx-vp9", options=VPX, sound="libopus"),
    "vp9_one_frame.webm": Kind("webm", "libvpx-vp9", options=VPX, num_frames=1),
    "av1.mp4": Kind("mp4", "libsvtav1", width=64, height=64, options=SVT),
    "av1.mkv": Kind("mkv", "libsvtav1", width=64, height=64, options=SVT),
    "av1.webm": Kind("webm", "libsvtav1", width=66, height=66, options=SVT),
    "av1_10bit.mp4": Kind("mp4", "libsvtav1", "yuv420p10le", width=64, height=64, options=SVT),
    "mpeg4.avi": Kind("avi", "mpeg4", options={"g": "6"}),
    "mpeg4_header_says_48.avi": Kind("avi", "mpeg4", options={"g": "6"}, patch=header_says(48)),
    "mpeg4_b_frames.avi": Kind("avi", "mpeg4", options={"g": "6", "bf": "2"}),
    "mpeg4_b_frames.mp4": Kind("mp4", "mpeg4", options={"g": "6", "bf": "2"}),
    "mpeg4_interlaced.mp4": Kind("mp4", "mpeg4", options={"g": "6"}, flags=INTERLACED),
    "mjpeg.avi": Kind("avi", "mjpeg", "yuvj420p"),
    "mjpeg_odd.avi": Kind("avi", "mjpeg", "yuvj422p", width=63, height=47),
    "mjpeg.mov": Kind("mov", "mjpeg", "yuvj420p"),
    "mjpeg_one_frame.avi": Kind("avi", "mjpeg", "yuvj420p", num_frames=1),
    "mpeg2_interlaced.mkv": Kind("mkv", "mpeg2video", options={"g": "6", "bf": "2"}, flags=INTERLACED),
    "prores.mov": Kind("mov", "prores_ks", "yuv422p10le", options={"profile": "0"}),
    "prores_alpha.mov": Kind("mov", "prores_ks", "yuva444p10le", options={"profile": "4"}),
    "png_alpha.mov": Kind("mov", "png", "rgba"),
    "qtrle_alpha.mov": Kind("mov", "qtrle", "argb"),
    "ffv1.mkv": Kind("mkv", "ffv1", "yuv420p"),
    "huffyuv.avi": Kind("avi", "huffyuv", "yuv422p"),
    "raw.avi": Kind("avi", "rawvideo", "yuv420p"),
}  # fmt: skip
