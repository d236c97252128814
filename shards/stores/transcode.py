"""The video re-encoded as H.264 or HEVC in MP4: upright, smaller if wanted, a key frame every so many frames.

Decoded frames run through one FFmpeg filter graph (turn upright, scale, convert), single-threaded and with the
bit-exact code paths. Sides are multiples of 16: where the coded size is not the shown one, NVDEC through DALI makes a
new decoder for every clip.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import av.filter
from av.video.reformatter import ColorRange

from shards.format.colour import HD_LINES, MATRICES, NUMBERS, RGB, TRANSFER_NUMBERS, UNSPECIFIED, Colours
from shards.format.probe import Probe, RejectedVideo, best_stream, decode, open_video, probe
from shards.stores import QUALITY, Stored, StoreOptions
from shards.stores.pictures import BLOCK, aspect_at, scaled_size, upright_size

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
# mbtree off: with it x264 core 165 (PyAV 18.1) gave other bytes for the same frames in up to 4 % of runs at 48x64 and
# 0.8 % at 170x128; without it in none of 7,750. x265 did so with weightp, in half of the runs at 80x64. No B-frames and
# scene cuts: key frames exactly every `gop` frames.
PARAMETERS = {
    "h264": "threads=1:lookahead-threads=1:keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:no-mbtree=1",
    "hevc": "log-level=none:pools=none:frame-threads=1:wpp=0:keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:"
    "open-gop=0:rc-lookahead=0:cutree=0:weightp=0",
}
OPTION = {"h264": "x264-params", "hevc": "x265-params"}
TURNS = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}


def store(data: bytes, facts: Probe, media: StoreOptions) -> Stored:
    """See shards.stores. Raises RejectedVideo where frames get lost."""
    encoded = encode(data, facts, media)
    found = probe(encoded)
    if found.num_frames != facts.num_frames:
        raise RejectedVideo(f"{facts.num_frames} frames became {found.num_frames} by encoding")
    aspect = aspect_at(facts, found.width, found.height)  # the file itself says nothing of it
    return Stored([("mp4", encoded)], replace(found, sample_aspect_ratio=aspect), "transcode")


def encode(data: bytes, facts: Probe, media: StoreOptions) -> bytes:
    """The bytes of the new file.

    Frame times are kept, sound is dropped, and there are no B-frames: a wanted frame never waits for a later one.
    """
    codec = media.codec or "h264"
    width, height = scaled_size(*upright_size(facts), media.short_side, media.long_side, BLOCK)
    target = io.BytesIO()
    with open_video(data) as container:
        stream = best_stream(container)
        with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
            rate = stream.average_rate or Fraction(facts.fps).limit_denominator(1001)
            encoder: Any = output.add_stream(ENCODERS[codec], rate=rate)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            context = encoder.codec_context
            context.time_base = encoder.time_base = stream.time_base or Fraction(1, 90_000)
            kept = kept_colours(facts)
            context.colorspace, context.color_range = NUMBERS[kept.matrix], ColorRange.MPEG.value
            context.color_trc = TRANSFER_NUMBERS.get(kept.transfer, UNSPECIFIED)
            context.gop_size, context.max_b_frames, context.thread_count = media.gop, 0, 1
            context.flags |= av.codec.context.Flags.bitexact
            context.options = {
                "crf": str(media.quality or QUALITY[codec]),
                "preset": "fast",
                OPTION[codec]: PARAMETERS[codec].format(gop=media.gop),
            }
            last = -1
            for frame in _filtered(decode(container, stream), stream, facts, kept, width, height):
                # Times must rise for the encoder; a source with broken ones keeps its frames, one tick apart.
                last = frame.pts = max(last + 1, frame.pts if frame.pts is not None else 0)
                frame.time_base = stream.time_base
                frame.pict_type = av.video.frame.PictureType.NONE  # or the encoder repeats the source's choice
                output.mux(encoder.encode(frame))
            output.mux(encoder.encode(None))
    return target.getvalue()


def kept_colours(facts: Probe) -> Colours:
    """The colours that the encoded stream states.

    The matrix of the source, which a smaller picture would otherwise not be assumed to have; of RGB, that of its size.
    Limited range, which every reader takes for granted.
    """
    matrix = facts.matrix
    if matrix == RGB:
        matrix = "bt709" if facts.height >= HD_LINES else "bt601"
    return Colours(matrix, False, facts.transfer)


def _filtered(
    frames: Iterator[av.VideoFrame], stream: av.VideoStream, facts: Probe, kept: Colours, width: int, height: int
) -> Iterator[av.VideoFrame]:
    """Frames turned upright, scaled to width x height and converted to 4:2:0 of the colours `kept`.

    Interlaced ones stay as woven.
    """
    graph = None
    for frame in frames:
        if graph is None:
            steps = [
                f"setparams={facts.colours.parameters}",
                *TURNS.get(facts.rotation, []),
                f"scale={width}:{height}:flags=bicubic+accurate_rnd+bitexact+full_chroma_int"
                f":out_color_matrix={MATRICES[kept.matrix][0]}:out_range=limited",
                "format=yuv420p",
            ]
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
