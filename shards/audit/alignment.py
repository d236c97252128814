"""Whether two clips show the same recording: one is laid over the other in space and time, and what is left compared.

    is_copy(align(first, second))

Clips of one session show the same person in the same place, and their pictures are alike. What is a recording's own is
how its pictures change: the residual between two copies, once aligned, is small beside the change within either clip,
and between two takes it is larger. So no threshold depends on how alike a data set's clips are. Copies are found when
re-encoded, resized, cropped by up to a fifth, mirrored, and trimmed to a part of at least MIN_OVERLAP.

A still clip (a photograph on a tripod) changes so little that its own copy, cropped, looks like another take: such
copies are found as long as they are not cropped.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE = 32  # pixels of a thumbnail's sides
MAX_RESIDUAL = 0.6  # of copies, as a share of the change; other takes of one session have 0.73 and more (NUAA, demo)
MIN_OVERLAP = 0.6  # of the shorter clip
MIN_FRAMES = 4  # in the overlap, where both clips have as many
MIN_SIDE = 20  # pixels of the overlap
MIN_CONTRAST = 2.0  # levels: below, a thumbnail is one colour
FAR = 10.0  # residuals of so many times the change, and above ROUGH, is not refined: a copy has less
ROUGH = 0.2
ALIKE = 0.8  # correlation of the mean pictures, roughly aligned; of copies it is 0.93 and more
ROUNDS = 2
STEPS = 5
MAX_ZOOM = 1.3
_OFFSETS = (0.0, 0.05, 0.1)  # of the upper left corner of a crop to nine tenths


@dataclass(frozen=True)
class Thumbnails:
    """A clip in small. pixels: float32 [t, SIDE, SIDE], grey levels. seconds: float [t], ascending, from 0 on."""

    pixels: Floats
    seconds: NDArray[np.floating]


@dataclass(frozen=True)
class Window:
    """Where a picture lies in another, in shares of the side: x there is scale * x + shift."""

    scale_y: float = 1.0
    scale_x: float = 1.0
    shift_y: float = 0.0
    shift_x: float = 0.0


@dataclass(frozen=True)
class Alignment:
    """The best way to lay one clip over another.

    residual: mean squared difference of the aligned pictures, each brought to mean 0 and deviation 1. change: mean
    squared difference of a clip's pictures from their mean, in the clip that changes less. offset: seconds that the
    second clip's times are ahead of the first's.
    """

    residual: float
    change: float
    mirrored: bool
    window: Window
    offset: float

    @property
    def ratio(self) -> float:
        """The residual as a share of the change; infinite for two clips that do not change at all, unless equal."""
        return self.residual / self.change if self.change > 0 else (0.0 if self.residual == 0 else np.inf)


def is_copy(found: Alignment | None) -> bool:
    """Whether aligned clips are one recording."""
    return found is not None and found.ratio < MAX_RESIDUAL


def align(first: Thumbnails, second: Thumbnails) -> Alignment | None:
    """The alignment with the least residual; None where no overlap is long enough."""
    best: Alignment | None = None
    for mirrored in (False, True):
        pixels = first.pixels[:, :, ::-1] if mirrored else first.pixels
        turned = Thumbnails(pixels, first.seconds)
        for window in _starts(pixels.mean(0), second.pixels.mean(0)):
            found = _refined(turned, second, window, mirrored)
            if found and (best is None or found.residual < best.residual):
                best = found
    return best


_CROPS = [(0.9, y, x) for y, x in itertools.product(_OFFSETS, repeat=2)]
STARTS = (
    Window(),
    *(Window(zoom, zoom, y, x) for zoom, y, x in _CROPS),
    *(Window(1 / zoom, 1 / zoom, -y / zoom, -x / zoom) for zoom, y, x in _CROPS),
)


def _starts(first: Floats, second: Floats) -> list[Window]:
    """Those of STARTS under which the clips' mean pictures are most alike, two at most, each ALIKE at least.

    That one is a crop of the other is as the other being a crop of the one, so all are compared at full size.
    """
    down, across = _crop_sampling()
    one, other = ((normalised(down @ mean @ across.transpose(0, 2, 1))) for mean in (first, second))
    alike = np.concatenate([one @ other[0], other[1:] @ one[0]]) / first.size
    return [STARTS[number] for number in np.argsort(alike)[::-1][:2] if alike[number] >= ALIKE]


@functools.cache
def _crop_sampling() -> tuple[Floats, Floats]:
    """The sampling of rows and columns, [1 + crops, SIDE, SIDE] each, of the whole picture and all crops."""
    windows = STARTS[: 1 + len(_CROPS)]
    return (
        np.stack([_sampling(window.scale_y, window.shift_y)[0] for window in windows]),
        np.stack([_sampling(window.scale_x, window.shift_x)[0] for window in windows]),
    )


def _refined(first: Thumbnails, second: Thumbnails, window: Window, mirrored: bool) -> Alignment | None:
    """Time and window in turn, from a start."""
    for number in range(ROUNDS + 1):
        warped, rows, columns = warp(first.pixels, window)
        if min(warped.shape[1:]) < MIN_SIDE:
            return None
        part = second.pixels[:, rows][:, :, columns]
        one, other = normalised(warped), normalised(part)
        match = _in_time(one, first.seconds, other, second.seconds)
        if match is None:
            return None
        change = min(_change(one, match.earlier), _change(other, match.frames))
        if number == ROUNDS or match.residual > max(FAR * change, ROUGH):
            return Alignment(match.residual, change, mirrored, window, match.offset)
        weights = match.weights[:, None, None]
        between = first.pixels[match.earlier] * (1 - weights) + first.pixels[match.later] * weights
        better = _register(between.astype(np.float32), second.pixels[match.frames], window)
        if better is None:
            return None
        window = better
    raise AssertionError


def _change(pixels: Floats, frames: NDArray[Any]) -> float:
    some = pixels[np.unique(frames)]
    return float(np.median(((some - some.mean(0)) ** 2).mean(1)))


@dataclass(frozen=True)
class _Match:
    """Frames of the second clip, and the two of the first between which each lies in time."""

    residual: float
    offset: float
    frames: NDArray[Any]
    earlier: NDArray[Any]
    later: NDArray[Any]
    weights: NDArray[Any]


def _in_time(first: Floats, at: NDArray[Any], second: Floats, to: NDArray[Any]) -> _Match | None:
    """The offset in time with the least residual. Pictures between two frames of the first clip are interpolated.

    first, second: [t, pixels], normalised. All from the products of frames, so an offset costs no look at a pixel.
    """
    products = first @ second.T
    own = np.einsum("ij,ij->i", first, first)
    following = np.einsum("ij,ij->i", first[1:], first[:-1]) if len(first) > 1 else np.zeros(0, np.float32)
    others = np.einsum("ij,ij->i", second, second)
    step = min((np.diff(times).mean() for times in (at, to) if len(times) > 1), default=0.25) / 2
    needed = MIN_OVERLAP * min(at[-1], to[-1])
    few = min(MIN_FRAMES, len(at), len(to))
    best: _Match | None = None
    for offset in np.arange(-round(float(at[-1]) / step), round(float(to[-1]) / step) + 1) * step:
        times = to - offset
        frames = np.flatnonzero((times >= -1e-3) & (times <= at[-1] + 1e-3))
        if len(frames) < few or times[frames[-1]] - times[frames[0]] < needed - 2 * step:
            continue
        times = np.clip(times[frames], 0, at[-1])
        earlier = np.clip(np.searchsorted(at, times, side="right") - 1, 0, max(0, len(at) - 2))
        later = np.minimum(earlier + 1, len(at) - 1)
        spans = at[later] - at[earlier]
        weights = np.where(spans > 0, (times - at[earlier]) / np.where(spans > 0, spans, 1), 0)
        mixed = following[earlier] if len(following) else own[earlier]
        norm = (1 - weights) ** 2 * own[earlier] + weights**2 * own[later] + 2 * weights * (1 - weights) * mixed
        inner = (1 - weights) * products[earlier, frames] + weights * products[later, frames]
        residual = float(np.median(norm + others[frames] - 2 * inner)) / first.shape[1]
        if best is None or residual < best.residual:
            best = _Match(max(residual, 0.0), float(offset), frames, earlier, later, weights)
    return best


def _register(first: Floats, second: Floats, window: Window) -> Window | None:
    """The window that lays pictures over others of equal number, by Gauss-Newton steps; None where it runs away."""
    values = np.array([window.scale_y, window.scale_x, window.shift_y, window.shift_x])
    for _ in range(STEPS):
        warped, rows, columns = warp(first, Window(*values))
        if min(warped.shape[1:]) < MIN_SIDE:
            return None
        one = normalised(warped).reshape(warped.shape)
        other = normalised(second[:, rows][:, :, columns]).reshape(warped.shape)
        down, across = (np.gradient(one, axis=axis) * SIDE / values[axis - 1] for axis in (1, 2))
        y, x = (((np.arange(SIDE)[inside] + 0.5) / SIDE).astype(np.float32) for inside in (rows, columns))
        slopes = np.stack([down * y[:, None], across * x, down, across], axis=-1).reshape(-1, 4)
        left = (other - one).reshape(-1)
        step = np.linalg.solve(slopes.T @ slopes + 0.01 * len(left) * np.eye(4), slopes.T @ left)
        values = values + np.clip(step, -0.05, 0.05)
        if not (1 / MAX_ZOOM < values[0] < MAX_ZOOM and 1 / MAX_ZOOM < values[1] < MAX_ZOOM):
            return None
        if np.abs(step).max() < 1e-3:
            break
    return Window(*(float(value) for value in values))


def warp(pixels: Floats, window: Window) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Pictures [t, SIDE, SIDE] as seen through a window, bilinear: those rows and columns that lie inside.

    Returns float32 [t, rows, columns], and which rows and columns of SIDE these are, bool [SIDE] each.
    """
    down, rows = _sampling(window.scale_y, window.shift_y)
    across, columns = _sampling(window.scale_x, window.shift_x)
    return np.asarray(down @ pixels @ across.T, np.float32), rows, columns


@functools.lru_cache(maxsize=256)
def _sampling(scale: float, shift: float) -> tuple[Floats, NDArray[np.bool_]]:
    at = (np.arange(SIDE) + 0.5) * scale + shift * SIDE - 0.5
    inside = (at > -0.51) & (at < SIDE - 0.49)
    at = np.clip(at, 0, SIDE - 1)
    before = np.minimum(at.astype(int), SIDE - 2)
    weights = np.zeros((SIDE, SIDE), np.float32)
    weights[np.arange(SIDE), before] = 1 - (at - before)
    weights[np.arange(SIDE), before + 1] += at - before
    return np.ascontiguousarray(weights[inside]), inside


def normalised(pixels: NDArray[np.floating]) -> Floats:
    """Pictures [t, h, w] smoothed (a crop samples other points) and each of mean 0 and deviation 1: [t, h * w]."""
    smooth = _smoothing(pixels.shape[1]) @ pixels @ _smoothing(pixels.shape[2])
    flat = smooth.reshape(len(pixels), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(flat.std(1, keepdims=True), MIN_CONTRAST), np.float32)


@functools.cache
def _smoothing(side: int) -> Floats:
    """A quarter of either neighbour and half of the pixel itself, symmetric: float32 [side, side]."""
    weights = (np.eye(side) * 2 + np.eye(side, k=1) + np.eye(side, k=-1)) / 4
    weights[0, 0] = weights[-1, -1] = 0.75
    return weights.astype(np.float32)
