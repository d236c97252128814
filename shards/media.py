"""What a sample stores in place of its video: a few upright JPEG frames, or the video encoded anew.

Both run decoded frames through one FFmpeg filter graph (turn upright, scale, convert), single-threaded and with the
bit-exact code paths, so that the same video gives the same bytes in any process of a machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import numpy as np

from shards.probe import Probe, best_stream, decode, open_video

JPEG_QUALITY = 95
# mbtree off: with it x264 core 165 (PyAV 18.1) gave other bytes for the same frames in up to 4 % of runs at 48x64 and
# 0.8 % at 170x128; without it in none of 7,750. No B-frames and scene cuts: key frames exactly every `gop` frames.
X264_PARAMETERS = "threads=1:lookahead-threads=1:keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:no-mbtree=1"
X264_CRF = 18  # visually lossless for most content; liveness cues are faint, so err on the side of quality
TURNS = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}


@dataclass(frozen=True)
class Frames:
    """JPEGs of evenly spaced frames, upright, all `width` x `height` pixels."""

    jpegs: list[bytes]
    width: int
    height: int


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """The middles of `count` equal parts of a video of `num_frames` frames; all frames when there are fewer."""
    count = min(count, num_frames)
    return [(2 * i + 1) * num_frames // (2 * count) for i in range(count)]


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side at most `short_side` pixels (0: no limit), never enlarged, both even."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return tuple(max(2, round(side * scale / 2) * 2) for side in (width, height))  # type: ignore[return-value]


def upright_size(facts: Probe) -> tuple[int, int]:
    """Width and height of a video once its rotation is applied."""
    return (facts.height, facts.width) if facts.rotation in (90, 270) else (facts.width, facts.height)


def extract_frames(data: bytes, facts: Probe, count: int, short_side: int) -> Frames:
    """`count` evenly spaced frames of a video as JPEGs, upright, the short side at most `short_side` (0: as it is)."""
    from PIL import Image

    wanted = set(evenly_spaced(facts.num_frames, count))
    width, height = scaled_size(*upright_size(facts), short_side) if short_side else upright_size(facts)
    jpegs = []
    with open_video(data) as container:
        stream = best_stream(container)
        frames = (frame for index, frame in enumerate(decode(container, stream)) if index in wanted)
        for frame in _filtered(frames, stream, facts.rotation, width, height, "rgb24"):
            buffer = io.BytesIO()
            image = Image.fromarray(np.ascontiguousarray(frame.to_ndarray()))
            image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
            jpegs.append(buffer.getvalue())
    return Frames(jpegs, width, height)


def transcode(data: bytes, facts: Probe, short_side: int, gop: int) -> bytes:
    """The video as H.264 in MP4: upright, short side at most `short_side` (0: as is), a key frame every `gop` frames.

    Frame times are kept, sound is dropped, and there are no B-frames: a wanted frame never waits for a later one.
    """
    width, height = scaled_size(*upright_size(facts), short_side)
    target = io.BytesIO()
    with open_video(data) as container:
        stream = best_stream(container)
        with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
            rate = stream.average_rate or Fraction(facts.fps).limit_denominator(1001)
            encoder = output.add_stream("libx264", rate=rate)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            context = encoder.codec_context
            context.time_base = encoder.time_base = stream.time_base or Fraction(1, 90_000)
            context.gop_size, context.max_b_frames, context.thread_count = gop, 0, 1
            context.flags |= av.codec.context.Flags.bitexact
            context.options = {
                "crf": str(X264_CRF),
                "preset": "fast",
                "x264-params": X264_PARAMETERS.format(gop=gop),
            }
            last = -1
            for frame in _filtered(decode(container, stream), stream, facts.rotation, width, height, "yuv420p"):
                # Times must rise for the encoder; a source with broken ones keeps its frames, one tick apart.
                last = frame.pts = max(last + 1, frame.pts if frame.pts is not None else 0)
                frame.time_base = stream.time_base
                frame.pict_type = av.video.frame.PictureType.NONE  # or the encoder repeats the source's choice
                output.mux(encoder.encode(frame))
            output.mux(encoder.encode(None))
    return target.getvalue()


def _filtered(
    frames: Iterator[av.VideoFrame], stream: av.VideoStream, degrees: int, width: int, height: int, pixel_format: str
) -> Iterator[av.VideoFrame]:
    """Frames turned clockwise by `degrees`, scaled to width x height and converted."""
    steps = [
        *TURNS.get(degrees, []),
        f"scale={width}:{height}:flags=bicubic+accurate_rnd+bitexact+full_chroma_int",
        f"format={pixel_format}",
    ]
    graph = None
    for frame in frames:
        if graph is None:
            graph = _graph(frame, stream, steps)
        graph.push(frame)
        filtered = graph.pull()  # these filters give one frame for one frame, at once
        assert isinstance(filtered, av.VideoFrame)
        yield filtered


def _graph(frame: av.VideoFrame, stream: av.VideoStream, steps: list[str]) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    node = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base or Fraction(1, 1000)
    )
    for step in steps:
        name, _, arguments = step.partition("=")
        following = graph.add(name, arguments)
        node.link_to(following)
        node = following
    node.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
