"""A crop of a picture, resized to the model's square, on the CPU.

DALI's CPU resize takes a third of the time that decoding a 480p clip takes. So frames decoded on the CPU are made small
before they enter the graph, while they are in the processor's cache, and those decoded on the GPU inside it. The
filters are the same: a triangle as wide as the scale.

Two ways. Where a frame is 4:2:0 in 8 bits, its planes are resized to 16 bits by swscale, chroma to the size of luma
before that, and what is small is converted: a third of the time of the other way, and nothing is rounded before the
end. All other frames are converted at full size, rounded, and resized. Against both steps in float64, frames of NUAA
come out 0.03 (480p to 224 pixels) and 0.05 levels off (to 128) on average by the first way, 0.15 and 0.12 by the other
one; highlights that the conversion clips differ most, since the first way clips what is small. Without clipping no
pixel differs by more than 2, but for the outermost ones: swscale repeats the border, torch leaves out what is beyond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from av.filter import Graph
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from livetrain.data.decode import Picture
from shards.colour import planes_of, to_rgb, to_rgb_from_16_bits

# Pixels, and pixels for one: outside, swscale's filters are not what they are to be (measured: 6 and 90 are wrong).
MIN_SIDE, MOST_SHRUNK = 8, 32


def even_box(box: NDArray[np.floating], height: NDArray[np.integer], width: NDArray[np.integer]) -> NDArray[np.int64]:
    """Boxes on the nearest borders of pixels with an even number, or the picture's edge; never empty.

    box: float [n, 4] (top, left, bottom, right in [0, 1]). height, width: int [n]. Returns int64 [n, 4]. Whole pixels
    are what the CPU's and the GPU's resize understand alike, and even ones do not cut through a sample of chroma.
    """
    sides = np.stack([height, width], axis=1)
    first = np.clip(2 * np.rint(box[:, :2] * sides / 2).astype(np.int64), 0, (sides - 1) // 2 * 2)
    last = 2 * np.rint(box[:, 2:] * sides / 2).astype(np.int64)
    last = np.where(box[:, 2:] * sides > sides - 0.5, sides, np.minimum(last, sides))
    return np.concatenate([first, np.maximum(last, np.minimum(first + 2, sides))], axis=1)


def pixel_box(box: NDArray[np.floating], height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in pixels of a box of shares, float [4], which lies on whole pixels."""
    top, left, bottom, right = np.rint(box * np.array([height, width, height, width], np.float64)).astype(int).tolist()
    return top, left, bottom, right


class CropAndResize:
    """`box` (float [4], on whole pixels: top, left, bottom, right in [0, 1]) of each frame of a video, resized.

    Called with an av.VideoFrame and the size (height, width) to take it for, gives uint8 RGB [size, size, 3].
    """

    def __init__(self, box: NDArray[np.floating], size: int) -> None:
        self._box, self._size = box, size
        self._converter = VideoReformatter()
        self._planes: _Planes | None = None

    def __call__(self, frame: Any, shape: tuple[int, int]) -> Picture:
        height, width = shape
        top, left, bottom, right = pixel_box(self._box, height, width)
        is_plain = frame.format.name in ("yuv420p", "yuvj420p") and (frame.height, frame.width) == shape
        sides = (bottom - top, right - left)
        if is_plain and all(side % 2 == 0 and MIN_SIDE <= side <= MOST_SHRUNK * self._size for side in sides):
            about = (frame.format.name, frame.color_range == ColorRange.JPEG or frame.format.name == "yuvj420p")
            if self._planes is None or self._planes.about != about:
                self._planes = _Planes(about, shape, (top, left, bottom, right), self._size)
            return self._planes(frame)
        return resize(to_rgb(planes_of(frame, shape, self._converter), (top, left, bottom, right)), self._size)


class _Planes:
    """Planes cut and resized by a graph of swscale's, then converted; Python's lock is let go for most of it."""

    def __init__(
        self, about: tuple[str, bool], shape: tuple[int, int], box: tuple[int, int, int, int], size: int
    ) -> None:
        """about: pixel format, and whether values are of full range. shape: height and width of the frames."""
        self.about = about
        pixel_format, self._is_full = about
        height, width = shape
        top, left, bottom, right = box
        # Two pixels more on every side, where the frame has them: a sample of chroma, for what lies in between.
        above, before = min(2, top), min(2, left)
        around = (min(bottom + 2, height) - top + above, min(right + 2, width) - left + before)
        graph = Graph()
        graph.threads = 1
        source = graph.add("buffer", f"video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1000")
        # Whatever the stream says of its colours is no matter here, and swscale refuses what it does not know.
        plain = graph.add("setparams", f"range={'full' if self._is_full else 'limited'}:colorspace=smpte170m")
        cut = graph.add("crop", f"w={around[1]}:h={around[0]}:x={left - before}:y={top - above}:exact=1")
        planes = graph.add("extractplanes", "planes=y+u+v")
        source.link_to(plain)
        plain.link_to(cut)
        cut.link_to(planes)
        self._sinks = []
        for number in range(3):
            # Chroma first to the size of luma, as it is when it is converted at full size: its fine patterns (a
            # screen's moiré) would come out otherwise.
            steps = [_scale(around), SIXTEEN_BITS] if number else []
            steps += [("crop", f"w={right - left}:h={bottom - top}:x={before}:y={above}:exact=1")]
            steps += [_scale((size, size)), SIXTEEN_BITS, ("buffersink", "")]
            end, output = planes, number
            for name, options in steps:
                step = graph.add(name, options)
                end.link_to(step, output, 0)
                end, output = step, 0
            self._sinks.append(end)
        graph.configure()
        self._graph, self._source = graph, source  # a sink does not keep its graph alive

    def __call__(self, frame: Any) -> Picture:
        self._source.push(frame)
        y, u, v = (_plane16(sink.pull()) for sink in self._sinks)
        return to_rgb_from_16_bits(y, u, v, is_full_range=self._is_full)


SIXTEEN_BITS = ("format", "pix_fmts=gray16le")


def _scale(shape: tuple[int, int]) -> tuple[str, str]:
    """To (height, width), with the same range on both sides: swscale leaves the values alone."""
    return "scale", f"w={shape[1]}:h={shape[0]}:flags=bilinear:in_range=full:out_range=full"


def _plane16(frame: Any) -> NDArray[np.uint16]:
    """The one plane of a frame; a view of its memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
    return rows[: plane.height, : plane.width]


def resize(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture, uint8 [3, height, width], writable (torch insists), as uint8 [size, size, 3].

    Bilinear, with the support widened by the scale where it shrinks (antialiased).
    """
    # Bytes go through torch's vectorised kernel in the calling thread; floats would start threads of their own.
    small = interpolate(torch.from_numpy(picture)[None], (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
