"""JPEG frames on the CPU: the pixels of other decoders, and of the graph that a GPU runs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from livetrain.data.crop import Cut, even_box
from livetrain.data.decode import DecodeError
from livetrain.data.jpegs import decode_jpegs
from tests.data.test_graph import FRAMES, NUM_FRAMES, SIZE, clip, jpegs, make_graph, params


def test_pixels_are_those_of_pillow() -> None:
    files = jpegs(clip(3, 96, 130))
    found = decode_jpegs(files)
    assert [picture.shape for picture in found] == [(96, 130, 3)] * NUM_FRAMES
    for picture, file in zip(found, files, strict=True):
        other = np.asarray(Image.open(io.BytesIO(file)))
        assert picture.dtype == np.uint8 and np.abs(picture.astype(int) - other).max() <= 1


def test_grey_files_become_rgb() -> None:
    buffer = io.BytesIO()
    Image.fromarray(clip(1, 40, 50)[0][..., 0]).save(buffer, format="JPEG")
    (picture,) = decode_jpegs([buffer.getvalue()])
    assert picture.shape == (40, 50, 3) and (picture[..., :1] == picture).all()


@pytest.mark.parametrize("window", [None, [-20, 10, 120, 90]])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.1, 0.75, 0.9)])
def test_cut_and_resized_they_are_those_of_the_graph(box: tuple[float, ...], window: list[int] | None) -> None:
    height, width = 240, 320
    pixels = even_box(np.array([box]), np.array([height]), np.array([width]))[0]
    box = tuple(pixels / [height, width, height, width])
    drawn = params(1, box=box)
    windows = None if window is None else np.array([window] * NUM_FRAMES, np.int32)
    if windows is not None:
        drawn["window"] = windows[None]
    files = jpegs(clip(3, height, width))
    in_graph = make_graph("image", example=drawn).run([files], FRAMES[:1], drawn)[0].numpy()
    here = Cut(np.array(box), SIZE, windows).of_pictures(decode_jpegs(files)).transpose(0, 3, 1, 2)
    difference = np.abs(in_graph - here)
    # Torch rounds between rows and columns.
    assert difference.max() <= 3 and (difference > 1).mean() < 0.02 and difference.mean() < 0.3


def test_a_damaged_file_is_an_error_of_its_clip() -> None:
    with pytest.raises(DecodeError, match="a JPEG that does not decode"):
        decode_jpegs([b"\xff\xd8\xff and no more"])
