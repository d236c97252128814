"""YUV to RGB on the CPU, to the pixels that NVDEC and DALI give on the GPU.

DALI 2.4 takes every stream for BT.601, limited range unless the stream says full, interpolates chroma bilinearly with
its samples in the middle of the luma they belong to, and takes 127.5 for grey chroma (measured on an H100: 96 % of the
values of this formula equal DALI's, none differs by more than 1). swscale's RGB is 1.6 levels from it on average and up
to 16: a model would see other colours when it is evaluated on a CPU than when it was trained on a GPU.

Integers with 5 bits behind the point: at most 1 level from the formula in float64, and 98 % of the values equal. The
price: 480p with all of its pixels at 0.77 of libavcodec's own rate, in place of 0.93 by swscale's fastest (`livetrain
bench decode --quick`, 2 cores). Bands of rows bound the memory; smaller ones lose more to Python's lock between threads
than they gain by the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

BITS = 5
ONE = 1 << BITS
BAND_ROWS = 256

# R, G, B from Y - offset, V - 127.5, U - 127.5.
LIMITED = {"y": 1.164, "offset": 0.0625 * 255, "rv": 1.596, "gv": -0.813, "gu": -0.392, "bu": 2.017}
FULL = {"y": 1.0, "offset": 0.0, "rv": 1.402, "gv": -0.714136, "gu": -0.344136, "bu": 1.772}

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class Planes:
    """A decoded frame. y: uint8 [height, width]. u, v: of the same size (4:4:4), or of half of it, rounded up (4:2:0).

    They are views of the decoder's memory: use them before the next frame is decoded.
    """

    y: Plane
    u: Plane
    v: Plane
    is_full_range: bool = False


def planes_of(frame: Any, size: tuple[int, int], converter: VideoReformatter) -> Planes:
    """The planes of an av.VideoFrame, scaled to `size` (height, width) where it has another.

    4:2:0 in 8 bits is taken as it is; every other format (10 bits, 4:2:2, alpha, RGB) becomes 4:4:4 in 8 bits by
    swscale, in the range that it has.
    """
    height, width = size
    is_full = is_full_range(frame)
    if frame.format.name not in ("yuv420p", "yuvj420p") or (frame.height, frame.width) != size:
        # The same colours and range on both sides, so that swscale leaves the values alone; RGB has no others.
        same = {} if frame.format.is_rgb else {"src_colorspace": Colorspace.ITU601}
        target = "yuvj444p" if is_full and not frame.format.is_rgb else "yuv444p"
        is_full = target == "yuvj444p"
        frame = converter.reformat(frame, width, height, target, dst_colorspace=Colorspace.ITU601, threads=1, **same)
    y, u, v = (_view(plane) for plane in frame.planes[:3])
    return Planes(y[:height, :width], u, v, is_full)


def is_full_range(frame: Any) -> bool:
    """Whether the samples of an av.VideoFrame use all of their range: as the stream, or its pixel format, says."""
    return bool(frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or frame.format.is_rgb)


def to_rgb(planes: Planes, box: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
    """RGB of the part of a frame in `box` (top, left, bottom, right; pixels), or of all of it.

    Returns uint8 [3, bottom - top, right - left], new memory. Chroma is interpolated across the box's edges, as if the
    whole frame had been converted and then cut.
    """
    top, left, bottom, right = box or (0, 0, *planes.y.shape)
    rgb = np.empty((3, bottom - top, right - left), np.uint8)
    factors = FULL if planes.is_full_range else LIMITED
    for start in range(top, bottom, BAND_ROWS):
        stop = min(start + BAND_ROWS, bottom)
        chroma = _chroma(planes, factors, start, left, stop, right)
        luma = _luma(planes.y[start:stop, left:right], factors)
        for out, part in zip(rgb[:, start - top : stop - top], chroma, strict=True):
            part += luma
            part >>= BITS
            np.clip(part, 0, 255, out=part)
            out[...] = part
    return rgb


def to_rgb_from_16_bits(
    y: NDArray[np.uint16], u: NDArray[np.uint16], v: NDArray[np.uint16], *, is_full_range: bool
) -> NDArray[np.uint8]:
    """RGB of three planes of one size with 8 bits behind the point, rounded once: uint8 [height, width, 3]."""
    factors = FULL if is_full_range else LIMITED
    luma = y * np.float32(factors["y"] / 256)
    luma += np.float32(0.5 - factors["y"] * factors["offset"])
    planes = {"u": u.astype(np.float32), "v": v.astype(np.float32)}
    rgb = np.empty((*y.shape, 3), np.uint8)
    for channel, names in enumerate((["rv"], ["gv", "gu"], ["bu"])):
        total = luma + np.float32(-127.5 * sum(factors[name] for name in names))
        for name in names:
            total += planes[name[1]] * np.float32(factors[name] / 256)
        np.clip(total, 0, 255, out=total)
        rgb[..., channel] = total
    return rgb


def _view(plane: Any) -> Plane:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _luma(y: Plane, factors: dict[str, float]) -> NDArray[np.int16]:
    """What luma adds to R, G and B, times 2^BITS, with the half that rounds: int16, new memory."""
    scaled = np.multiply(y, round(factors["y"] * 4 * ONE), dtype=np.uint16)  # two bits more, which is all that fits
    scaled >>= 2
    luma = scaled.view(np.int16)
    luma += np.int16(round(ONE / 2 - factors["y"] * factors["offset"] * ONE))
    return luma


def _chroma(
    planes: Planes, factors: dict[str, float], top: int, left: int, bottom: int, right: int
) -> list[NDArray[np.int16]]:
    """What chroma adds to R, G and B in a part of the frame: three int16 [bottom - top, right - left], new memory."""
    if planes.u.shape == planes.y.shape:
        u, v = planes.u[top:bottom, left:right], planes.v[top:bottom, left:right]
        return _contributions(u, v, factors)
    # One sample more on every side, where the frame has it: what is interpolated in between is then exact.
    first_row, first_column = max(0, top // 2 - 1), max(0, left // 2 - 1)
    part = (slice(first_row, (bottom + 1) // 2 + 1), slice(first_column, (right + 1) // 2 + 1))
    rows = slice(top - 2 * first_row, bottom - 2 * first_row)
    columns = slice(left - 2 * first_column, right - 2 * first_column)
    return [_doubled(_doubled(c, 0), 1)[rows, columns] for c in _contributions(planes.u[part], planes.v[part], factors)]


def _contributions(u: Plane, v: Plane, factors: dict[str, float]) -> list[NDArray[np.int16]]:
    return [_sum([(v, factors["rv"])]), _sum([(v, factors["gv"]), (u, factors["gu"])]), _sum([(u, factors["bu"])])]


def _sum(terms: list[tuple[Plane, float]]) -> NDArray[np.int16]:
    """The sum of factor * (plane - 127.5), times 2^BITS."""
    more = 10  # bits behind those, for rounding
    total = np.full(
        terms[0][0].shape, round(sum(-127.5 * f for _, f in terms) * (ONE << more)) + (1 << more - 1), np.int32
    )
    for plane, factor in terms:
        total += np.multiply(plane, round(factor * (ONE << more)), dtype=np.int32)
    total >>= more
    return total.astype(np.int16)


def _doubled(values: NDArray[np.int16], axis: int) -> NDArray[np.int16]:
    """Twice as long along an axis, linearly interpolated: samples lie at a quarter and three quarters of the old ones.

    a + (b - a) / 4, not (3 a + b) / 4, which would not fit 16 bits.
    """
    shape = list(values.shape)
    shape[axis] *= 2
    doubled = np.empty(shape, np.int16)
    old, new = (values, doubled) if axis == 0 else (values.T, doubled.T)
    quarter = old[1:] - old[:-1]
    quarter += 2
    quarter >>= 2
    new[0], new[-1] = old[0], old[-1]
    np.add(old[:-1], quarter, out=new[1:-1:2])
    np.subtract(old[1:], quarter, out=new[2:-1:2])
    return doubled
