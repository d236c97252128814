"""Boxes on whole pixels, and the CPU's resize against Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from livetrain.data.crop import crop_and_resize, pixel_box, resize
from shards.colour import Planes, to_rgb


def test_boxes_lie_on_whole_pixels_and_hold_at_least_one() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((500, 2, 2)), axis=1)
    box = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    box[:50, 2:] = box[:50, :2]  # nothing inside
    height, width = rng.integers(1, 500, 500), rng.integers(1, 500, 500)
    top, left, bottom, right = pixel_box(box, height, width).T
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= height).all() and (right <= width).all()
    assert (bottom > top).all() and (right > left).all()
    assert np.abs(top - box[:, 0] * height).max() <= 1 and np.abs(right - box[:, 3] * width).max() <= 1.5


def test_a_box_that_was_rounded_once_stays() -> None:
    """The plan rounds and hands on float32 shares of the side; who cuts rounds again."""
    side = np.arange(1, 8000)
    whole = np.stack([side // 3, side // 4, side, side - side // 5], axis=1)
    shares = (whole / side[:, None]).astype(np.float32)
    assert (pixel_box(shares, side, side) == whole).all()


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.125, 0.75, 0.875), (0.5, 0.5, 0.6, 0.7)])
@pytest.mark.parametrize("size", [16, 57, 224])
def test_as_pillow_resizes(box: tuple[float, ...], size: int) -> None:
    rng = np.random.default_rng(1)
    y, u, v = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((120, 160), (60, 80), (60, 80)))
    planes = Planes(y, u, v)
    got = crop_and_resize(planes, np.array(box), size)
    top, left, bottom, right = np.round(np.array(box) * [120, 160, 120, 160]).astype(int)
    picture = to_rgb(planes).transpose(1, 2, 0)[top:bottom, left:right]
    assert (got == resize(picture.transpose(2, 0, 1).copy(), size)).all()
    want = Image.fromarray(picture.copy()).resize((size, size), Image.Resampling.BILINEAR)
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - np.asarray(want)).max() <= 1
