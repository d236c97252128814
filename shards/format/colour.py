"""Which colours a video's samples stand for, and their RGB on the CPU, by libswscale.

The standard formulas are the reference everywhere: chroma around 128, luma from 16 to 235 or from 0 to 255 as the
stream's range says, and the stream's matrix (ITU-T H.273, equations 25 to 37). Where nothing states a matrix it is
BT.709 for 720 lines or more, before rotation, and BT.601 below. Chroma of half the size lies in the middle of its luma.
BT.2020, PQ and HLG are converted by their matrix and not tone-mapped.

NVDEC through DALI 2.4 reads every stream by BT.601, whatever it states, with 127.5 for grey chroma; `correction` brings
its RGB to the same formulas. What it clipped on the way stays clipped: on pictures of faces read as BT.709 that is 0.24
levels on average, 99 % within 1, at most 15 (measured with DALI 2.4 on an H100).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # RGB [height, width, 3]
Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels

HD_LINES = 720
SHORTEST = 16  # pixels of a side whose chroma libswscale doubles right
RGB = "rgb"

# Matrix → (libswscale's name, Kr, Kb); the numbers of H.273, table 4, that name it.
MATRICES = {
    "bt601": ("smpte170m", 0.299, 0.114),
    "bt709": ("bt709", 0.2126, 0.0722),
    "bt2020": ("bt2020nc", 0.2627, 0.0593),
    "smpte240m": ("smpte240m", 0.212, 0.087),
    "fcc": ("fcc", 0.30, 0.11),
}
STATED = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
NUMBERS = {"bt601": 6, "bt709": 1, "bt2020": 9, "smpte240m": 7, "fcc": 4}
TRANSFERS = {16: "pq", 18: "hlg"}  # H.273, table 3
TRANSFER_NUMBERS = {name: number for number, name in TRANSFERS.items()}
UNSPECIFIED = 2
SDR = "sdr"

# bilinear: of chroma, when it is doubled. The rest: no short cuts, no dither.
FLAGS = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp:sws_dither=none"


@dataclass(frozen=True)
class Colours:
    """How samples become RGB.

    matrix: of MATRICES, or "rgb" where samples are RGB already. transfer: "sdr", "pq" or "hlg"; for information.
    """

    matrix: str
    is_full_range: bool
    transfer: str = SDR

    @staticmethod
    def of(frame: Any) -> Colours:
        """As an av.VideoFrame states: by its stream, the container, or its pixel format."""
        transfer = TRANSFERS.get(int(frame.color_trc), SDR)
        if frame.format.is_rgb:
            return Colours(RGB, True, transfer)
        unstated = "bt709" if frame.height >= HD_LINES else "bt601"
        is_full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return Colours(STATED.get(int(frame.colorspace), unstated), bool(is_full), transfer)

    @property
    def parameters(self) -> str:
        """As options of FFmpeg's filter `setparams`."""
        space = "gbr" if self.matrix == RGB else MATRICES[self.matrix][0]
        return f"range={'full' if self.is_full_range else 'limited'}:colorspace={space}"

    def equation(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A, o): RGB in [0, 255] is A @ (YUV - o), of samples of 8 bits; float64 [3, 3] and [3]."""
        if self.matrix == RGB:
            return np.eye(3), np.zeros(3)
        _, kr, kb = MATRICES[self.matrix]
        luma, chroma = (1.0, 1.0) if self.is_full_range else (255 / 219, 255 / 224)
        kg = 1 - kr - kb
        red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
        matrix = [[luma, 0, red], [luma, -blue * kb / kg, -red * kr / kg], [luma, blue, 0]]
        return np.array(matrix), np.array([0.0 if self.is_full_range else 16.0, 128.0, 128.0])


# DALI 2.4's own numbers, measured on an H100: R, G, B of Y, U, V.
_DALI = {
    False: (np.array([[1.164, 0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0]]), 0.0625 * 255),
    True: (np.array([[1.0, 0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0]]), 0.0),
}


def correction(colours: Colours) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(M, t), float32 [3, 3] and [3]: M @ rgb + t corrects the RGB of NVDEC through DALI.

    Of a stream that states the range `colours` has.
    """
    theirs, black = _DALI[colours.is_full_range]
    ours, offset = colours.equation()
    moved = ours @ (np.array([black, 127.5, 127.5]) - offset)
    return (ours @ np.linalg.inv(theirs)).astype(np.float32), moved.astype(np.float32)


class ToRgb:
    """Frames of one video as RGB: all of each, or the part in `box`, as it is or resized to `size` (height, width).

    Called with an av.VideoFrame and the (height, width) to take it for, to which one of another size is scaled; gives
    uint8 [height, width, 3], new memory. colours: of the video; None takes what its first frame states. Resized
    bilinearly, with the support widened where it shrinks (antialiased), and rounded once, at the end. Python's lock is
    let go for most of it. Raises OSError, ValueError for formats that libswscale does not read.
    """

    def __init__(
        self, colours: Colours | None = None, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self._colours, self._box, self._size = colours, box, size
        self._key: tuple[Any, ...] = ()
        self._filters: Any = None

    def __call__(self, frame: Any, shape: tuple[int, int]) -> Picture:
        self._colours = self._colours or Colours.of(frame)
        if shape == (frame.height, frame.width):
            frame = _padded(frame)
            area = (frame.height, frame.width)
        else:
            area = shape
        key = frame.format.name, frame.height, frame.width, shape
        if key != self._key:
            self._filters = _Filters(frame, self._steps(frame, area, self._box or (0, 0, *shape), self._colours))
            self._key = key
        green, blue, red = (_view(plane) for plane in self._filters.run(frame).planes)
        return np.stack([red, green, blue], axis=-1)  # in a fourth of the time that copying a transposed array takes

    def _steps(self, frame: Any, area: tuple[int, int], box: Box, colours: Colours) -> list[tuple[str, str]]:
        """Filters in order, each with its options. area: height and width of what `box` is cut from."""
        (height, width), (top, left, bottom, right) = area, box
        # Whatever the stream says of its colours is overruled: libswscale refuses what it does not know.
        steps = [("setparams", colours.parameters)]
        across, down = _subsampling(frame.format.name)
        if area == (frame.height, frame.width) and _has_planes(frame.format) and max(across, down) < 2:
            above, height = _around(top, bottom, height)
            before, width = _around(left, right, width)
            steps.append(_crop(height, width, above, before))
            top, left, bottom, right = top - above, left - before, bottom - above, right - before
        chroma = "".join(
            f":in_{axis}_chr_pos={(128 << shift) - 128}" for axis, shift in (("h", across), ("v", down)) if shift
        )
        steps.append(("scale", f"w={width}:h={height}:{FLAGS}:out_range=full{chroma}"))
        # 16 bits between: straight to 8, libswscale 9.5 wraps round what limited range cannot show (255 levels off).
        steps.append(("format", "pix_fmts=gbrp16le"))
        if (top, left, bottom, right) != (0, 0, height, width):
            steps.append(_crop(bottom - top, right - left, top, left))
        out = self._size or (bottom - top, right - left)
        return [*steps, ("scale", f"w={out[1]}:h={out[0]}:{FLAGS}"), ("format", "pix_fmts=gbrp")]


def _around(first: int, last: int, side: int) -> tuple[int, int]:
    """(start, length) of the part of a side that [first, last) is converted from.

    Two pixels more at both ends, where there are any (a sample of chroma, for what lies in between), even, and not too
    short for libswscale.
    """
    start = max(0, min(first - first % 2 - 2, side - SHORTEST))
    return start, min(side, max(last + last % 2 + 2, start + SHORTEST)) - start


def _padded(frame: Any) -> Any:
    """The frame with its last rows and columns repeated until libswscale takes it.

    Chroma is then half of luma exactly and no side too short: else libswscale 9.5 does not interpolate in the middle
    (up to 200 levels off).
    """
    across, down = _subsampling(frame.format.name)
    if not (across or down) or not _has_planes(frame.format):
        return frame
    height, width = (-(-max(side, SHORTEST) >> by) << by for side, by in ((frame.height, down), (frame.width, across)))
    if (height, width) == (frame.height, frame.width):
        return frame
    larger = av.VideoFrame(width, height, frame.format.name)
    for number, (plane, target) in enumerate(zip(frame.planes, larger.planes, strict=True)):
        parts = [part for part in frame.format.components if part.plane == number]
        size = sum(
            -(-part.bits // 8) for part in parts
        )  # bytes of one place: U and V of one plane are beside each other
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width * size]
        more = ((0, target.height - plane.height), (0, target.width - plane.width), (0, 0))
        filled = np.pad(rows.reshape(plane.height, plane.width, size), more, mode="edge")
        whole = np.zeros((target.height, target.line_size), np.uint8)
        whole[:, : target.width * size] = filled.reshape(target.height, -1)
        target.update(whole.tobytes())
    return larger


class _Filters:
    """A chain of FFmpeg's filters that takes frames like the one given, one after the other."""

    def __init__(self, frame: Any, steps: list[tuple[str, str]]) -> None:
        self._graph = Graph()  # kept: a source or a sink does not keep it alive
        self._graph.threads = 1
        size = f"video_size={frame.width}x{frame.height}"
        self._source = end = self._graph.add("buffer", f"{size}:pix_fmt={frame.format.name}:time_base=1/1000")
        for name, options in [*steps, ("buffersink", "")]:
            step = self._graph.add(name, options)
            end.link_to(step)
            end = step
        self._sink = end
        self._graph.configure()

    def run(self, frame: Any) -> Any:
        self._source.push(frame)
        return self._sink.pull()


def _crop(height: int, width: int, top: int, left: int) -> tuple[str, str]:
    return "crop", f"w={width}:h={height}:x={left}:y={top}:exact=1"


def _has_planes(pixel_format: Any) -> bool:
    """Whether a part can be cut out before the conversion: no palette, no packed samples."""
    return bool(pixel_format.is_planar and not pixel_format.has_palette)


@functools.lru_cache(maxsize=64)  # asked for every frame
def _subsampling(pixel_format: str) -> tuple[int, int]:
    """By how many halvings chroma is narrower and lower than luma; of FFmpeg's name of a format."""
    parts = av.VideoFormat(pixel_format, 64, 64).components
    if len(parts) < 3:
        return 0, 0
    return (64 // parts[1].width).bit_length() - 1, (64 // parts[1].height).bit_length() - 1


def _view(plane: Any) -> Picture:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
