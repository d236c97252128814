"""What a video holds, found by decoding it to the end: only videos that decode without a fault reach a shard."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
from av.sidedata.sidedata import Type as SideData

from shards.format.colour import Colours, ToRgb
from shards.format.container import open_bytes, truncation

DEFAULT_FPS = 25.0  # FFmpeg's own assumption for streams that state no time at all
MAX_PIXELS = 8192 * 8192  # of a frame. A header of a few bytes can state 2^32, and decoders allocate what it says
# FFmpeg passes over a damaged JPEG in silence, and shows in its place what the memory held.
STRICT = {"mjpeg": {"err_detect": "explode"}}
MAX_FRAMES = 1_000_000  # 11 hours
MAX_SECONDS = 600.0  # that one video may take: a damaged one can state frames without end


class RejectedVideo(Exception):
    """A video that cannot be used; the message is the reason, as written to rejected.csv."""


@dataclass(frozen=True)
class Probe:
    """Facts of one video. `width` and `height` in pixels before rotation; `rotation` clockwise degrees to upright.

    coded_width, coded_height: of the frames that a decoder hands out; the picture is `width` x `height` at their upper
    left corner (they differ in shards of the remux store alone). sample_aspect_ratio: a pixel's width over its height.
    pixel_format: of its first frame, by FFmpeg's name. is_interlaced: whether any frame is; such frames are taken as
    woven, both fields in one picture, in every store, in training and in prediction: none is deinterlaced. is_regular:
    whether the decoder hands out a frame for every packet, in the order of the packets' times: then frame i is the same
    picture to a decoder that counts packets, as NVDEC's does. matrix, is_full_range, transfer: see colour.Colours,
    of its first frame. is_range_coded: whether the coded stream has that range without what the container
    adds, which NVDEC does not read. check: "decode", or "probe" where all but the first frame is known from the packets
    alone. frame_seconds: of each frame, after the first; empty where all are within half a spacing of i / fps, or where
    frames have no times.
    """

    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    rotation: int
    coded_width: int
    coded_height: int
    sample_aspect_ratio: float
    codec: str
    pixel_format: str
    is_interlaced: bool
    is_regular: bool
    matrix: str
    is_full_range: bool
    transfer: str
    is_range_coded: bool
    check: str
    frame_seconds: Sequence[float] = ()

    def stored(self) -> dict[str, Any]:
        """The fields as an index holds them: times to a microsecond, so that last bits of a division do not show."""
        return {
            **vars(self),
            "fps": round(self.fps, 6),
            "duration_seconds": round(self.duration_seconds, 6),
            "sample_aspect_ratio": round(self.sample_aspect_ratio, 6),
            "is_interlaced": int(self.is_interlaced),
            "is_regular": int(self.is_regular),
            "is_full_range": int(self.is_full_range),
            "is_range_coded": int(self.is_range_coded),
            "frame_seconds": [round(seconds, 6) for seconds in self.frame_seconds],
        }

    @property
    def colours(self) -> Colours:
        """What its samples stand for."""
        return Colours(self.matrix, self.is_full_range, self.transfer)


def probe(data: bytes, *, quick: bool = False, on_frame: Callable[[av.VideoFrame], Any] | None = None) -> Probe:
    """Decode all of a video file's bytes and describe it; if `quick`, only its first frame where packets tell the rest.

    `on_frame` is given each frame that is decoded.

    Raises RejectedVideo when it is empty, is not a video, is cut short, has no frame, fails to decode, or changes its
    frame size on the way.
    """
    if quick and (found := _probe_packets(data)) is not None:
        return found
    times: list[float] = []
    stamps: list[int | None] = []
    first = formats = colours = None
    turn = 0
    num_frames = 0
    pixel_format, is_interlaced = "", False
    with open_video(data) as container:
        stream = best_stream(container)
        for frame in decode(container, stream):
            if first is None:
                first = frame.width, frame.height
                turn = rotation(frame)
                pixel_format, colours = frame.format.name, Colours.of(frame)
            elif (frame.width, frame.height) != first:
                raise RejectedVideo(
                    f"the frame size changes from {first[0]}x{first[1]} to {frame.width}x{frame.height} "
                    f"at frame {num_frames}"
                )
            if frame.format.name != formats:
                _check_format(frame)
                formats = frame.format.name
            num_frames += 1
            if on_frame:
                on_frame(frame)
            is_interlaced |= bool(frame.interlaced_frame)
            stamps.append(frame.pts)
            if frame.time is not None:
                times.append(frame.time)
        if first is None or colours is None:
            raise RejectedVideo("no frame: the video stream is empty")
        rate = stream.average_rate or stream.guessed_rate
        codec, pixel_aspect = stream.codec_context.codec.canonical_name, aspect(stream)
    fps, seconds = timing(times, num_frames, float(rate) if rate else DEFAULT_FPS)
    is_regular = _is_regular(_packet_times(data), stamps)
    return Probe(
        num_frames, fps, seconds, *first, turn, *first, pixel_aspect, codec, pixel_format, is_interlaced, is_regular,
        colours.matrix, colours.is_full_range, colours.transfer, _is_range_coded(data, codec, colours), "decode",
        uneven(times if len(times) == num_frames else [], fps),
    )  # fmt: skip


def uneven(times: Sequence[float], fps: float) -> list[float]:
    """Seconds of each frame after the first; nothing where all are within half a spacing of where `fps` puts them.

    times: of frames in the order shown. Where they go back the clock stands still.
    """
    rising = list(itertools.accumulate(times, max))
    seconds = [time - rising[0] for time in rising]
    if all(abs(at * fps - number) <= 0.5 for number, at in enumerate(seconds)):
        return []
    return seconds


def _check_format(frame: av.VideoFrame) -> None:
    """Raises RejectedVideo for samples that cannot be made RGB (formats that FFmpeg knows by name alone)."""
    try:
        ToRgb()(frame, (frame.height, frame.width))
    except (OSError, ValueError) as error:
        raise RejectedVideo(f"{frame.format.name} cannot be made RGB") from error


def _is_range_coded(data: bytes, codec: str, colours: Colours) -> bool:
    """See Probe: asked of a decoder that knows nothing of the container. Only full range is ever stated there alone."""
    if not colours.is_full_range or codec not in ("h264", "hevc"):
        return True
    with open_video(data) as container:
        stream = best_stream(container)
        bare: Any = av.CodecContext.create(codec, "r")
        bare.extradata = stream.codec_context.extradata
        bare.thread_count = 1
        for packet in container.demux(stream):
            for frame in bare.decode(packet if packet.size else None):
                return Colours.of(frame).is_full_range
    return False


def _packet_times(data: bytes) -> list[Any]:
    """The time of display of each packet, in the order of the file; None for one that states none.

    Containers without times of display (AVI) give those of storage, ascending. Where the decoder hands frames out in
    another order than their times say, its order counts: times are never a reason to refuse what decodes.
    """
    with open_video(data) as container:
        return [packet.pts for packet in container.demux(best_stream(container)) if packet.size]


def _is_regular(packets: list[Any], frames: list[int | None]) -> bool:
    """See Probe.is_regular; of the times of packets in the file, and of frames as they were decoded."""
    return None not in packets and len(set(packets)) == len(packets) and sorted(packets) == frames


def _probe_packets(data: bytes) -> Probe | None:
    """What the packets of H.264 or HEVC in MP4 say, with the first frame decoded; None where they do not say it all.

    There a packet is a frame, shown at the time it states, unless it is marked to be discarded (edit lists) or comes
    before the first key frame. Damage inside packets is not seen.
    """
    with open_video(data) as container:
        stream = best_stream(container)
        codec = stream.codec_context.codec.canonical_name
        if "mp4" not in container.format.name or codec not in ("h264", "hevc"):
            return None
        try:
            full = (packet for packet in container.demux(stream) if packet.size)
            packets = list(itertools.islice(full, MAX_FRAMES + 1))
        except (av.FFmpegError, ValueError) as error:
            raise RejectedVideo(f"reading its packets fails: {_reason(error)}") from error
        if len(packets) > MAX_FRAMES:
            raise RejectedVideo(f"it has more than {MAX_FRAMES:,} frames")
        if (
            not packets
            or not packets[0].is_keyframe
            or any(p.is_corrupt or p.is_discard or p.pts is None for p in packets)
        ):
            return None
        stamps, base = sorted({packet.pts for packet in packets}), packets[0].time_base
        # A Fraction's float, without a Fraction for each: dividing whole numbers rounds once, too.
        times = [stamp * base.numerator / base.denominator for stamp in stamps]
        if len(times) != len(packets) or packets[0].pts != stamps[0]:
            return None  # two at one time, or leading pictures, which refer to a frame that is not there
        first = _first_frame(stream, packets)
        rate, pixel_aspect = stream.average_rate or stream.guessed_rate, aspect(stream)
    fps, seconds = timing(times, len(times), float(rate) if rate else DEFAULT_FPS)
    size, colours = (first.width, first.height), Colours.of(first)
    return Probe(
        len(times), fps, seconds, *size, rotation(first), *size, pixel_aspect, codec, first.format.name,
        bool(first.interlaced_frame), True, colours.matrix, colours.is_full_range, colours.transfer,
        _is_range_coded(data, codec, colours), "probe", uneven(times, fps),
    )  # fmt: skip


def _first_frame(stream: av.VideoStream, packets: list[av.Packet[Any]]) -> av.VideoFrame:
    try:
        for packet in [*packets, None]:
            for frame in stream.decode(packet):
                if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                    return frame
                raise RejectedVideo("frame 0 is damaged")
    except (av.FFmpegError, ValueError) as error:
        raise RejectedVideo(f"decoding fails at the first frame: {_reason(error)}") from error
    raise RejectedVideo("no frame: the video stream is empty")


def timing(times: list[float], num_frames: int, stated_fps: float) -> tuple[float, float]:
    """(average frames per second, duration in seconds) from the frames' times, in seconds, in display order.

    The mean spacing of frames is the frame time, so n frames last n mean spacings. The container's stated rate is
    used where the times cannot be: a single frame, frames without a time, a clock that stands still.
    """
    spacing = (max(times) - min(times)) / (len(times) - 1) if len(times) > 1 else 0.0
    fps = 1 / spacing if len(times) == num_frames and spacing > 0 else stated_fps
    return fps, num_frames / fps


def open_container(data: bytes) -> Any:
    """The bytes of a media file as an open PyAV container, which decodes no frame above MAX_PIXELS.

    Raises av.FFmpegError, ValueError.

    Titles and the like may be in any encoding: they are not read.
    """
    return open_bytes(data, {"max_pixels": str(MAX_PIXELS)})


def best_stream(container: Any) -> av.VideoStream:
    """The video among a file's streams, as FFmpeg chooses it.

    Sound and covers may come first. It decodes in one thread. Raises ValueError when there is none that can be decoded.
    """
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError("no video stream")
    context = stream.codec_context
    if context is None:
        raise ValueError("no decoder for its video stream")
    if context.width * context.height > MAX_PIXELS:
        raise ValueError(f"its frames are said to be {context.width}x{context.height}, above {MAX_PIXELS:,} pixels")
    if not context.is_open:
        context.options = {"max_pixels": str(MAX_PIXELS), **STRICT.get(context.name, {})}
        context.thread_count = 1  # builder and loader work on a video a core
    assert isinstance(stream, av.VideoStream)
    return stream


def open_video(data: bytes) -> Any:
    """The bytes of a video file as an open PyAV container that has a video stream (`best_stream`).

    Raises RejectedVideo when they are empty, cut short or not a video.
    """
    if not data:
        raise RejectedVideo("empty file (0 bytes)")
    lacking = truncation(data)
    if lacking:
        raise RejectedVideo(lacking)
    try:
        container = open_container(data)
    except (av.FFmpegError, ValueError) as error:
        raise RejectedVideo(f"not a readable video: {_reason(error)}") from error
    try:
        best_stream(container)
    except ValueError as error:
        container.close()
        raise RejectedVideo(str(error)) from error
    return container


def decode(container: Any, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames of `stream` in display order.

    Raises RejectedVideo at the first packet or frame with a fault, and after MAX_SECONDS or MAX_FRAMES.
    """
    num_frames = 0
    end = time.monotonic() + MAX_SECONDS
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise RejectedVideo(f"damaged or cut off after frame {num_frames}")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise RejectedVideo(f"frame {num_frames} is damaged")
                if num_frames == MAX_FRAMES:
                    raise RejectedVideo(f"it has more than {MAX_FRAMES:,} frames")
                yield frame
                num_frames += 1
            if time.monotonic() > end:
                raise RejectedVideo(f"decoding takes longer than {MAX_SECONDS:g} s; it was at frame {num_frames}")
    except (av.FFmpegError, ValueError) as error:
        raise RejectedVideo(f"decoding fails after frame {num_frames}: {_reason(error)}") from error


def aspect(stream: av.VideoStream) -> float:
    """A pixel's width over its height, by the container or else the stream; 1 where neither says."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(ratio) if ratio and ratio > 0 else 1.0


def rotation(frame: av.VideoFrame) -> int:
    """Clockwise degrees (0, 90, 180, 270) that make a frame upright, mirrored left to right or not.

    FFmpeg's display matrix states counter-clockwise degrees in [-180, 180] (av_display_rotation_get) of its first
    column alone. Where it mirrors as well, as front cameras do, the second column tells top from bottom.
    """
    degrees = round(-frame.rotation / 90) * 90 % 360
    side_data: Any = frame.side_data  # PyAV's stubs know but names as keys
    matrix = side_data.get(SideData.DISPLAYMATRIX)
    if matrix is not None and degrees in (0, 180):
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
        if a * d < b * c:
            return 180 - degrees
    return degrees


def _reason(error: Exception) -> str:
    """A library's error in one line, without the file name that PyAV appends."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """The middles of `count` equal parts of a video of `num_frames` frames; all frames when there are fewer."""
    count = min(count, num_frames)
    return [(2 * i + 1) * num_frames // (2 * count) for i in range(count)]
