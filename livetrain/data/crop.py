"""A crop of a picture, resized to the model's square, on the CPU.

DALI's CPU resize takes a third of the time that decoding a 480p clip takes. So frames decoded on the CPU are made small
before they enter the graph, while they are in the processor's cache, and those decoded on the GPU inside it. The
filters are the same: a triangle as wide as the scale. libswscale converts the crop to RGB of 16 bits, clipped as the
GPU clips it, and resizes that; nothing is rounded before the end. Where the scale is beyond what its filters are good
for, torch resizes RGB of 8 bits. No pixel is more than 2 levels from both steps in float64, but for the outermost ones:
libswscale repeats the border, torch leaves out what is beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.format.colour import Colours, Picture, ToRgb

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


@dataclass(frozen=True)
class Cut:
    """What is cut out of a clip's decoded frames, and resized to `size` pixels a side.

    box: float [4], on whole pixels: top, left, bottom, right in [0, 1]. window: int [F, 4] of what `box` cuts out, for
    each frame (see livetrain.data.region); None: all of it.
    """

    box: NDArray[np.floating]
    size: int
    window: NDArray[np.integer] | None = None

    def shape(self, colours: Colours | None) -> CropAndResize:
        """For decode_video: each frame cut to `box`, and resized unless windows are cut from it."""
        return CropAndResize(self.box, self.size if self.window is None else 0, colours)

    def of_pictures(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        """Whole pictures [H, W, 3], one a frame, as [F, size, size, 3]."""
        boxes = [pixel_box(self.box, *picture.shape[:2]) for picture in pictures]
        parts = [
            picture[top:bottom, left:right] for picture, (top, left, bottom, right) in zip(pictures, boxes, strict=True)
        ]
        if self.window is None:
            return np.stack([resize(part, self.size) for part in parts])
        return self.windows(parts)

    def windows(self, pictures: NDArray[np.uint8] | Sequence[Picture]) -> NDArray[np.uint8]:
        """Frames as `shape` made them, F of [H, W, 3], as [F, size, size, 3]."""
        if self.window is None:
            return np.asarray(pictures)
        return np.stack([resize(cut(*pair), self.size) for pair in zip(pictures, self.window, strict=True)])


def cut(picture: Picture, window: NDArray[np.integer]) -> Picture:
    """The part `window` (top, left, height, width) of a picture [H, W, 3], black beyond it; new memory."""
    top, left, height, width = (int(value) for value in window)
    out = np.zeros((height, width, 3), np.uint8)
    rows = slice(max(0, top), max(0, min(picture.shape[0], top + height)))
    columns = slice(max(0, left), max(0, min(picture.shape[1], left + width)))
    part = picture[rows, columns]
    out[rows.start - top :, columns.start - left :][: part.shape[0], : part.shape[1]] = part
    return out


class CropAndResize:
    """`box` (float [4], on whole pixels: top, left, bottom, right in [0, 1]) of each frame of a video, resized.

    Called with an av.VideoFrame and the size (height, width) to take it for, gives uint8 RGB [size, size, 3]; of size 0
    as large as the box. colours: of the video; None takes what its first frame states.
    """

    def __init__(self, box: NDArray[np.floating], size: int, colours: Colours | None = None) -> None:
        self._box, self._size, self._colours = box, size, colours
        self._shape: tuple[int, int] | None = None

    def __call__(self, frame: Any, shape: tuple[int, int]) -> Picture:
        if shape != self._shape:
            top, left, bottom, right = box = pixel_box(self._box, *shape)
            sides = (bottom - top, right - left)
            self._is_within = all(MIN_SIDE <= side <= MOST_SHRUNK * self._size for side in sides)
            size = (self._size, self._size) if self._size and self._is_within else None
            self._to_rgb, self._shape = ToRgb(self._colours, box=box, size=size), shape
        picture = self._to_rgb(frame, shape)
        return picture if self._is_within or not self._size else resize(picture, self._size)


def resize(picture: Picture, size: int) -> Picture:
    """A picture, uint8 [height, width, 3], writable (torch insists), as uint8 [size, size, 3].

    Bilinear, with the support widened by the scale where it shrinks (antialiased).
    """
    try:
        import torch  # seconds to import, and few crops need it
        from torch.nn.functional import interpolate
    except ImportError:  # prediction with an exported model needs none: the same filter, at most one level apart
        from PIL import Image

        return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))

    # Bytes go through torch's vectorised kernel in the calling thread; floats would start threads of their own.
    # Channels stay last, as they lie in memory: planar, it takes three times as long for the same bytes.
    channels_last = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    small = interpolate(channels_last[None], (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
