"""A crop of a picture, resized to the model's square, on the CPU.

DALI's CPU resize takes a third of the time that decoding a 480p clip takes; torch's, on one picture that the decoder
has just left in the cache, a fiftieth. So frames decoded on the CPU are made small before they
enter the graph, and those decoded on the GPU inside it. The filters are the same: a triangle as wide as the scale.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from shards.colour import Planes, to_rgb


def pixel_box(box: NDArray[np.floating], height: NDArray[np.integer], width: NDArray[np.integer]) -> NDArray[np.int64]:
    """Boxes on the nearest borders of pixels, at least one pixel a side.

    box: float [n, 4] (top, left, bottom, right in [0, 1]). height, width: int [n]. Returns int64 [n, 4]. Whole pixels
    are what the CPU's and the GPU's resize understand alike.
    """
    sides = np.stack([height, width], axis=1)
    first = np.clip(np.rint(box[:, :2] * sides).astype(np.int64), 0, sides - 1)
    last = np.clip(np.rint(box[:, 2:] * sides).astype(np.int64), first + 1, sides)
    return np.concatenate([first, last], axis=1)


def crop_and_resize(planes: Planes, box: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """`box` (float [4]: top, left, bottom, right in [0, 1]) of a decoded frame, resized: RGB, uint8 [size, size, 3]."""
    height, width = planes.y.shape
    top, left, bottom, right = pixel_box(box[None], np.array([height]), np.array([width]))[0].tolist()
    return resize(to_rgb(planes, (top, left, bottom, right)), size)


def resize(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture, uint8 [3, height, width], writable (torch insists), as uint8 [size, size, 3].

    Bilinear, with the support widened by the scale where it shrinks (antialiased).
    """
    # Bytes go through torch's vectorised kernel in the calling thread; floats would start threads of their own.
    small = interpolate(torch.from_numpy(picture)[None], (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
