"""Boxes on even pixels; both ways of the CPU's resize against Pillow and against the formula in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image

from livetrain.data.crop import CropAndResize, even_box, pixel_box, resize
from shards.format.colour import Colours, ToRgb
from tests.shards.format import test_colour


def test_boxes_lie_on_even_pixels_and_are_not_empty() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((500, 2, 2)), axis=1)
    box = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    box[:50, 2:] = box[:50, :2]  # nothing inside
    height, width = rng.integers(1, 500, 500), rng.integers(1, 500, 500)
    top, left, bottom, right = even_box(box, height, width).T
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= height).all() and (right <= width).all()
    assert (bottom > top).all() and (right > left).all()
    assert (top % 2 == left % 2).all() and (left % 2 == 0).all()
    assert ((bottom % 2 == 0) | (bottom == height)).all() and ((right % 2 == 0) | (right == width)).all()
    assert np.abs(top - box[:, 0] * height).max() <= 2 and np.abs(right - box[:, 3] * width)[50:].max() <= 3


def test_a_box_that_was_rounded_once_stays() -> None:
    """The plan rounds and hands on float32 shares of the side; who cuts rounds again."""
    side = np.arange(1, 8000)
    whole = np.stack([side // 6 * 2, side // 8 * 2, side, side - side // 5], axis=1)
    whole[:, 3] = np.where(whole[:, 3] == side, side, np.minimum(whole[:, 3] // 2 * 2 + 2, side))
    shares = (whole / side[:, None]).astype(np.float32)
    assert (even_box(shares, side, side) == whole).all()
    assert all(pixel_box(shares[n], n + 1, n + 1) == tuple(whole[n]) for n in range(0, len(side), 13))
    coded = side + 16 - side % 16  # a stream whose cropping was taken out
    again = (whole / coded[:, None]).astype(np.float32)
    assert all(pixel_box(again[n], coded[n], coded[n]) == tuple(whole[n]) for n in range(len(side)))


def make_frame(height: int, width: int, pixel_format: str, *, smooth: int = 0, seed: int = 1) -> Any:
    """A frame of noise, of blocks of `smooth` pixels where given."""
    rng = np.random.default_rng(seed)
    small = rng.integers(16, 236, (-(-height // smooth), -(-width // smooth), 3), dtype=np.uint8) if smooth else None
    if small is not None:
        picture = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    else:
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pixel_format)


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.125, 0.75, 0.875), (0.5, 0.5, 0.6, 0.7)])
@pytest.mark.parametrize("size", [16, 57, 224])
@pytest.mark.parametrize(("pixel_format", "width"), [("yuv444p", 160), ("yuv422p", 160), ("yuv420p", 161)])
def test_as_pillow_resizes(box: tuple[float, ...], size: int, pixel_format: str, width: int) -> None:
    frame = make_frame(120, width, pixel_format)
    got = CropAndResize(np.array(box), size)(frame, (120, width))
    top, left, bottom, right = pixel_box(np.array(box), 120, width)
    picture = ToRgb()(frame, (120, width))[top:bottom, left:right]
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    want = resize(picture.copy(), size).astype(int)
    pillow = Image.fromarray(picture.copy()).resize((size, size), Image.Resampling.BILINEAR)
    assert np.abs(want - np.asarray(pillow)).max() <= 1
    # Of noise, what the two round twice and in other places; its means are within a level of each other.
    assert np.abs(got - want)[1:-1, 1:-1].max() <= 2 and np.abs((got - want).mean()) < 1


def triangle(side: int, size: int) -> np.ndarray:
    """[size, side]: what each pixel takes of a line of `side` when it is resized to `size`, antialiased."""
    scale = side / size
    middle = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(side) - middle[:, None]) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def exactly(frame: Any, box: np.ndarray, size: int) -> np.ndarray:
    """Converted at full size and resized, in float64, rounded once."""
    shape = (frame.height, frame.width)
    top, left, bottom, right = pixel_box(box, *shape)
    colours = Colours.of(frame)
    picture = test_colour.exactly(frame, colours.matrix, full=colours.is_full_range)[top:bottom, left:right]
    rows, columns = triangle(bottom - top, size), triangle(right - left, size)
    return np.rint(np.stack([rows @ picture[..., channel] @ columns.T for channel in range(3)], axis=-1))


# Of 144 x 192.
BOXES = [(0.0, 0.0, 1.0, 1.0), (0.125, 0.1875, 116 / 144, 0.90625), (58 / 144, 58 / 192, 100 / 144, 116 / 192)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", [64, 96, 224])
def test_planes_made_small_give_the_exact_pictures(box: tuple[float, ...], size: int, full: bool) -> None:
    """4:2:0: shrunk and enlarged, in either range; patterns of one pixel too (a screen's moiré)."""
    crop = CropAndResize(np.array(box), size)
    for smooth in (5, 0):
        frame = make_frame(144, 192, "yuvj420p" if full else "yuv420p", smooth=smooth)
        difference = np.abs(crop(frame, (144, 192)) - exactly(frame, np.array(box), size))
        # Mostly in the outermost pixels, where swscale repeats what torch leaves out. Noise is clipped a lot, too.
        assert difference.mean() < (0.1 if smooth else 0.2), smooth
        assert difference[2:-2, 2:-2].mean() < (0.03 if smooth else 0.1), smooth
        if smooth:
            assert (difference <= 1).mean() > 0.97


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 2), 24), ((4, 4), 112), ((6, 8), 24), ((8, 8), 24), ((1080, 1920), 224), ((2160, 3840), 24)],
)
def test_very_small_and_very_large_pictures(shape: tuple[int, int], size: int) -> None:
    frame, box = make_frame(*shape, "yuv420p", smooth=3), np.array([0.0, 0.0, 1.0, 1.0])
    difference = np.abs(CropAndResize(box, size)(frame, shape) - exactly(frame, box, size))
    assert difference.mean() < 0.5 and difference[1:-1, 1:-1].max() <= 2


def test_a_frame_that_says_it_is_of_full_range_is_taken_so() -> None:
    frame = make_frame(64, 64, "yuv420p", smooth=4)
    limited = CropAndResize(np.array([0, 0, 1, 1]), 32)(frame, (64, 64)).astype(int)
    frame.color_range = ColorRange.JPEG
    crop = CropAndResize(np.array([0, 0, 1, 1]), 32)
    full = crop(frame, (64, 64)).astype(int)
    assert np.abs(full - exactly(frame, np.array([0, 0, 1, 1]), 32)).mean() < 0.15
    assert np.abs(full - limited).mean() > 2


NUAA = Path(__file__).parents[3] / "shared" / "data" / "nuaa" / "videos"


@pytest.mark.skipif(not NUAA.is_dir(), reason="needs ../shared/data/nuaa")
@pytest.mark.parametrize("size", [224, 128])
def test_real_frames_come_out_exact(size: int) -> None:
    rng = np.random.default_rng(0)
    means = []
    for path in sorted(NUAA.glob("*.mp4"))[::150]:
        with av.open(path) as container:
            frame = next(container.decode(video=0))
        low = rng.random(2) * 0.3
        shape = (frame.height, frame.width)
        whole = even_box(np.concatenate([low, low + 0.7])[None], *(np.array([side]) for side in shape))[0]
        box = whole / np.array([*shape, *shape])
        got = CropAndResize(box, size)(frame, shape)
        means.append(np.abs(got - exactly(frame, box, size)).mean())
    print(f"{len(means)} frames to {size}: mean {np.mean(means):.3f}, at most {max(means):.3f}")
    assert np.mean(means) < 0.1 and max(means) < 0.15
