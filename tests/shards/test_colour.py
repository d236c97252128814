"""Colours against the formula in float64, at full size: never more than one level away."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from shards.colour import BAND_ROWS, Planes, planes_of, to_rgb

LIMITED = [[1.164, 0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0]]  # R, G, B from Y, U, V
FULL = [[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]]


def doubled(plane: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Linear interpolation at (i + 0.5) / 2 - 0.5, clamped at the ends; `length` samples of it."""
    at = np.clip((np.arange(length) + 0.5) / 2 - 0.5, 0, plane.shape[axis] - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, plane.shape[axis] - 1)
    share = (at - below).reshape(-1, 1) if axis == 0 else at - below
    return np.take(plane, below, axis) * (1 - share) + np.take(plane, above, axis) * share


def formula(planes: Planes) -> np.ndarray:
    """float64 [3, height, width], not rounded."""
    height, width = planes.y.shape
    u, v = planes.u / 255 - 0.5, planes.v / 255 - 0.5
    if planes.u.shape != planes.y.shape:
        u, v = (doubled(doubled(plane, 0, height), 1, width) for plane in (u, v))
    y = planes.y / 255 - (0 if planes.is_full_range else 0.0625)
    matrix = np.array(FULL if planes.is_full_range else LIMITED)
    return np.clip(255 * np.einsum("cp,phw->chw", matrix, np.stack([y, u, v])), 0, 255)


def random_planes(height: int, width: int, *, sub: int = 2, full: bool = False, seed: int = 0) -> Planes:
    rng = np.random.default_rng(seed)
    small = (-(-height // sub), -(-width // sub))
    y, u, v = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), small, small))
    return Planes(y, u, v, full)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("sub", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (3 * BAND_ROWS + 7, 33), (1, 1), (2, 5), (BAND_ROWS, 2)])
def test_within_a_level_of_the_formula(height: int, width: int, sub: int, full: bool) -> None:
    planes = random_planes(height, width, sub=sub, full=full)
    rgb = to_rgb(planes)
    assert rgb.shape == (3, height, width) and rgb.dtype == np.uint8
    assert np.abs(rgb - formula(planes)).max() <= 1


@pytest.mark.parametrize("full", [False, True])
def test_every_level_of_grey_is_the_formulas(full: bool) -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    planes = Planes(levels, np.full((1, 128), 128, np.uint8), np.full((1, 128), 127, np.uint8), full)
    assert np.abs(to_rgb(planes) - np.rint(formula(planes))).mean() < 0.02


@pytest.mark.parametrize("sub", [1, 2])
@pytest.mark.parametrize(
    "box", [(0, 0, 150, 90), (1, 1, 2, 2), (63, 31, 130, 88), (64, 10, 65, 90), (149, 89, 150, 90)]
)
def test_a_part_is_cut_from_the_whole(box: tuple[int, int, int, int], sub: int) -> None:
    planes = random_planes(150, 90, sub=sub)
    top, left, bottom, right = box
    assert (to_rgb(planes, box) == to_rgb(planes)[:, top:bottom, left:right]).all()


def colours() -> np.ndarray:
    """Smooth, of many colours: uint8 [48, 64, 3]."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([40 + rows * 3, 60 + columns * 2, 200 - rows - columns], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuv420p10le", "yuva420p", "nv12", "gbrp", "rgb24"],
)
def test_every_format_shows_the_same_colours(name: str) -> None:
    """Full range too; in every format the picture's own RGB, but for rounding and the half level of grey chroma."""
    picture = colours()
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=name)
    rgb = to_rgb(planes_of(frame, (48, 64), VideoReformatter())).transpose(1, 2, 0)
    difference = np.abs(rgb.astype(int) - picture)
    assert difference.mean() < 1.5 and difference[1:-1, 1:-1].max() <= 5


def test_full_range_is_told_by_the_frame_alone() -> None:
    planes = [random_planes(16, 16)] * 2
    frames = []
    for color_range in (1, 2):
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([planes[0].y.ravel(), planes[0].u.ravel(), planes[0].v.ravel()]).reshape(24, 16), "yuv420p"
        )
        frame.color_range = color_range
        frames.append(planes_of(frame, (16, 16), VideoReformatter()))
    assert [frame.is_full_range for frame in frames] == [False, True]
    assert (to_rgb(frames[0]) != to_rgb(frames[1])).any()


@pytest.mark.parametrize("color_range", [1, 2])
def test_ten_bits_keep_their_range(color_range: int) -> None:
    """The same picture in 8 and 10 bits, whichever range it says it has."""
    eight = av.VideoFrame.from_ndarray(np.random.default_rng(0).integers(16, 236, (24, 16), np.uint8), "yuv420p")
    ten = av.VideoFrame(16, 16, "yuv420p10le")
    for source, target in zip(eight.planes, ten.planes, strict=True):
        values = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[:, : source.width].astype(np.uint16) * 4
        padded = np.zeros((target.height, target.line_size // 2), np.uint16)
        padded[:, : source.width] = values
        target.update(padded.tobytes())
    eight.color_range = ten.color_range = color_range
    converter = VideoReformatter()
    a, b = (planes_of(frame, (16, 16), converter) for frame in (eight, ten))
    assert a.is_full_range == b.is_full_range == (color_range == 2)
    assert np.abs(a.y.astype(int) - b.y).max() <= 1


def test_another_size_is_scaled(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(colours(), format="rgb24").reformat(format="yuv420p")
    assert to_rgb(planes_of(frame, (30, 20), VideoReformatter())).shape == (3, 30, 20)
