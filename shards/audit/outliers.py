"""Clips that a person should look at: blank, frozen, too bright or dark, without a face, with several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shards.audit.look import NUM_FACES
from shards.audit.look_table import LookTable

BLANK = 6.0  # levels: no picture of the clip has a larger standard deviation
WHITE, BLACK = 0.5, 0.7  # share of pixels

MEANING: Mapping[str, str] = {
    "not decodable": "the decoder stops or crashes",
    "blank": f"no picture's levels deviate by more than {BLANK:g}",
    "frozen": "all frames looked at are equal",
    "over-exposed": f"more than {100 * WHITE:.0f} % of the pixels are white",
    "dark": f"more than {100 * BLACK:.0f} % of the pixels are black",
    "no face": f"the detector finds none in any of {NUM_FACES} frames",
    "several faces": f"the detector finds two or more in most of {NUM_FACES} frames",
}


def find(looks: LookTable) -> dict[str, list[int]]:
    """The rows of each kind of MEANING that has any, in that order; kinds of faces where those were looked for."""
    problems = looks.problems()
    seen = np.array([not problem for problem in problems])
    white, black, deviation = looks.numbers("extremes", 3).T
    faces = looks.numbers("num_faces", NUM_FACES)
    looked = ~np.isnan(faces).all(axis=1)
    blank = seen & (deviation < BLANK)
    found: dict[str, NDArray[np.bool_]] = {
        "not decodable": ~seen,
        "blank": blank,
        "frozen": seen & ~blank & np.array([_frozen(looks, row) for row in range(len(looks))], bool),
        "over-exposed": seen & ~blank & (white > WHITE),
        "dark": seen & ~blank & (black > BLACK),
        "no face": looked & (np.nan_to_num(faces).sum(axis=1) == 0) & ~blank,
        "several faces": looked & (2 * (faces >= 2).sum(axis=1) > (~np.isnan(faces)).sum(axis=1)),
    }
    return {kind: np.flatnonzero(found[kind]).tolist() for kind in MEANING if found[kind].any()}


def _frozen(looks: LookTable, row: int) -> bool:
    thumbnails = looks.thumbnails(row)
    steps = np.abs(thumbnails.astype(np.int16) - thumbnails[:1])
    return len(thumbnails) > 1 and int(steps.max()) <= 1  # what an encoder makes of equal frames
