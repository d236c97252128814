"""Selected frames of one video on the CPU, by PyAV: every codec that libav supports, with no more work than needed.

Optimizations, none of which changes a pixel: start at the last key frame before a requested frame, and seek forward
where that saves packets; let libavcodec skip frames that are neither requested nor referenced (`skip_frame = NONREF`,
set per packet); stop at the packet of the last requested frame and drain, instead of feeding the decoder's delay. The
frame index → timestamp map comes from the packets alone. Where packets do not provide it (no timestamps, or decoding
instead of presentation timestamps, as in AVI; a count that differs from the builder's), or where frames after a key
frame depend on frames before it, the video is decoded from its start and frames are counted.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from shards.format.colour import Picture, ToRgb
from shards.format.probe import best_stream, open_container


class DecodeError(Exception):
    """A video that cannot give the frames asked for; the message is the reason."""


@dataclass
class Work:
    """What decoding took: packets given to the decoder, frames that came out of it."""

    num_packets: int = 0
    num_frames: int = 0


Shape = Callable[[Any, tuple[int, int]], Picture]  # of shards.format.colour.ToRgb's kind


def decode_video(
    data: bytes,
    wanted: NDArray[np.integer],
    num_frames: int,
    *,
    is_regular: bool = True,
    shape: Shape | None = None,
    work: Work | None = None,
) -> NDArray[np.uint8]:
    """Frames `wanted` (indices in display order, any order, repeats allowed) of the video file `data`.

    `num_frames` is how many frames decoding the whole file yields, as the shard builder counted. is_regular: as the
    index has it (see shards.format.probe.Probe); frames of a video that is not are counted, unless an edit list is why.
    `shape` is what becomes of each frame (an av.VideoFrame, taken to have the given height and width: the first one's)
    while it is in the processor's cache: `ToRgb` or `crop.CropAndResize`; it gives pictures of one size and must not
    keep its argument. Returns uint8 RGB [len(wanted), height, width, 3] in coded orientation (rotation metadata is
    applied later, on the small picture), by the standard formulas (`shards.format.colour`). A frame whose size differs
    from the first one's is scaled to it. What it took is added to `work`. Raises DecodeError.
    """
    indices = np.unique(wanted)
    if indices[0] < 0 or indices[-1] >= num_frames:
        raise DecodeError(f"frame {indices[-1]} was asked of a video of {num_frames} frames")
    work, shape = work or Work(), shape or ToRgb()
    try:
        with open_container(data) as container:
            pictures = _Pictures(len(indices), shape)
            frames = _by_timestamp(container, indices, num_frames, pictures, work, is_regular=is_regular)
        if frames is None:
            with open_container(data) as container:
                frames = _by_counting(container, indices, _Pictures(len(indices), shape), work)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:  # OSError: swscale, of unknown colours
        raise DecodeError(f"{type(error).__name__}: {error}") from error
    return frames if np.array_equal(wanted, indices) else frames[np.searchsorted(indices, wanted)]


def packet_runs(times: Sequence[int], keys: Sequence[bool], wanted: Sequence[int]) -> list[range]:
    """Which packets the frames at times `wanted` (ascending) need, as runs of positions in file (decoding) order.

    times, keys: presentation time of each packet, and whether decoding can start there. A run starts at a key frame (or
    at the first packet) and ends with a wanted frame; the decoder is drained and emptied between runs.
    """
    position = {time: index for index, time in enumerate(times)}
    starts = [index for index, key in enumerate(keys) if key]
    spans = []
    for time in wanted:
        # A key frame that is shown later than the wanted frame does not help, though it may come first in the file. Of
        # those before it in the file the last is shown earlier as a rule: the search ends at once.
        before = range(bisect.bisect_right(starts, position[time]) - 1, -1, -1)
        start = next((starts[number] for number in before if times[starts[number]] <= time), 0)
        spans.append((start, position[time] + 1))
    runs: list[range] = []
    for start, stop in sorted(spans):
        if runs and start <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, max(stop, runs[-1].stop))
        else:
            runs.append(range(start, stop))
    return runs


def frames_by_timestamp(
    container: Any, indices: NDArray[np.integer], num_frames: int, work: Work, *, is_regular: bool = True
) -> Iterator[tuple[int, Any]]:
    """(i, av.VideoFrame of indices[i]) of an open container, each once, in the order decoded.

    `indices`: ascending, no two alike. Frames are missing where timestamps do not lead to them. Raises av.FFmpegError.
    """
    stream = best_stream(container)
    packets = [packet for packet in container.demux(stream) if packet.size]
    shown = [packet.pts for packet in packets]
    # What an edit list cuts off is never shown, but what is shown may refer to it.
    times = sorted(packet.pts for packet in packets if not packet.is_discard and packet.pts is not None)
    if len(times) != num_frames or None in shown or len(set(shown)) != len(shown):
        return
    if not is_regular and not any(packet.is_discard for packet in packets):
        return  # the decoder hands frames out in another order than their times say
    context = stream.codec_context
    if bool(context.has_b_frames) == (shown == sorted(shown)):
        return  # frames are shown in another order than decoded, and the times do not know; or the other way round
    slots = {times[index]: slot for slot, index in enumerate(indices)}
    runs = packet_runs(shown, [packet.is_keyframe for packet in packets], list(slots))
    context.thread_type, context.thread_count = "NONE", 1  # skip_frame per packet needs a decoder without look-ahead
    for number, run in enumerate(runs):
        if number:
            context.flush_buffers()
        is_key_seen = run.start == 0
        for packet in [*packets[run.start : run.stop], None]:
            if packet is not None:
                context.skip_frame = "DEFAULT" if packet.pts in slots else "NONREF"
                work.num_packets += 1
            for frame in context.decode(packet):
                work.num_frames += 1
                if frame.pts == shown[run.start]:
                    is_key_seen |= bool(frame.key_frame)
                if frame.pts in slots:
                    if not is_key_seen:
                        return  # the container takes a frame for a key frame that the decoder does not
                    yield slots.pop(frame.pts), frame


def _by_timestamp(
    container: Any,
    indices: NDArray[np.integer],
    num_frames: int,
    pictures: _Pictures,
    work: Work,
    *,
    is_regular: bool,
) -> NDArray[np.uint8] | None:
    """The frames by their timestamps, or None when timestamps do not lead to them."""
    num_found = 0
    for slot, frame in frames_by_timestamp(container, indices, num_frames, work, is_regular=is_regular):
        if frame.is_corrupt:
            return None
        pictures.put(slot, frame)
        num_found += 1
    return pictures.pixels if num_found == len(indices) else None


def _by_counting(container: Any, indices: NDArray[np.integer], pictures: _Pictures, work: Work) -> NDArray[np.uint8]:
    """The frames by decoding from the start and counting."""
    slot = 0
    number = -1
    stream = best_stream(container)
    stream.codec_context.thread_type = "NONE"
    for number, frame in enumerate(container.decode(stream)):
        work.num_frames += 1
        if number == indices[slot]:
            if frame.is_corrupt:
                raise DecodeError(f"damaged data at frame time {frame.time}")
            pictures.put(slot, frame)
            slot += 1
            if slot == len(indices):
                assert pictures.pixels is not None
                return pictures.pixels
    raise DecodeError(f"the video gave {number + 1} frames, frame {indices[slot]} was requested")


class _Pictures:
    """Frames as RGB in one array, each as `shape` makes it. A frame of another size than the first is scaled to it."""

    def __init__(self, count: int, shape: Shape) -> None:
        self.pixels: NDArray[np.uint8] | None = None
        self._count, self._shape = count, shape
        self._size: tuple[int, int] | None = None

    def put(self, slot: int, frame: Any) -> None:
        """Frame `slot` of the array."""
        self._size = self._size or (frame.height, frame.width)
        picture = self._shape(frame, self._size)
        if self.pixels is None:
            self.pixels = np.empty((self._count, *picture.shape), np.uint8)
        self.pixels[slot] = picture
