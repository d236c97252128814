"""Perceptual hashes: 64 bits of a picture that a copy has too, or nearly.

The signs of the 8 x 8 lowest frequencies of a thumbnail's cosine transform (after C. Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010). The index holds NUM_INDEXED frames of each clip; a query asks
for NUM_QUERIED frames, mirrored and not, whole and as five crops, since a crop moves every frequency.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from shards.audit.alignment import SIDE, Window, warp
from shards.format.probe import evenly_spaced

FREQUENCIES = 8
NUM_BYTES = FREQUENCIES * FREQUENCIES // 8
NUM_INDEXED, NUM_QUERIED = 4, 2
CROP = 0.92  # of the sides, a little more than the crop to be found: it lies between that and the whole picture
CROPS = tuple(
    Window(CROP, CROP, y * (1 - CROP), x * (1 - CROP)) for y, x in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))
)
VARIANTS = 2 * (1 + len(CROPS))


def hashes(pictures: NDArray[Any]) -> NDArray[np.uint8]:
    """Of thumbnails [t, SIDE, SIDE]: uint8 [t, NUM_BYTES]."""
    waves = fft.dctn(pictures.astype(np.float32), axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
    bits = waves.reshape(len(pictures), -1) > 0
    bits[:, 0] = False  # the mean
    return np.packbits(bits, axis=1)


def indexed(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the index holds of a clip: uint8 [NUM_INDEXED or fewer, NUM_BYTES]."""
    return hashes(thumbnails[evenly_spaced(len(thumbnails), NUM_INDEXED)])


def queries(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a clip's copies may have in the index: uint8 [VARIANTS * (NUM_QUERIED or fewer), NUM_BYTES]."""
    some = thumbnails[evenly_spaced(len(thumbnails), NUM_QUERIED)].astype(np.float32)
    whole = [some, some[:, :, ::-1]]
    cropped = [warp(pictures, window)[0] for pictures in whole for window in CROPS]
    return np.concatenate([hashes(_full(pictures)) for pictures in (*whole, *cropped)])


def _full(pictures: NDArray[np.floating]) -> NDArray[np.floating]:
    assert pictures.shape[1:] == (SIDE, SIDE), "a crop within the picture has all rows and columns"
    return pictures
