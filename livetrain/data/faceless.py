"""What must be known of clips without a face before a figure of a face model is read."""

from __future__ import annotations

from collections.abc import Sequence

from livetrain.config import Config
from livetrain.data.dataset import Dataset


def face_notices(dataset: Dataset, config: Config, splits: Sequence[str]) -> list[str]:
    """A line for each split with clips without a face, with data.crop=face; none without."""
    if config.data.crop != "face":
        return []
    found = []
    for split in splits:
        rows = dataset.rows(split)
        num = int((~dataset.faces.known(rows)).sum())
        what = "they are left out" if config.data.face_missing == "skip" else "the whole frame is used"
        found += [f"{num:,} of {len(rows):,} clips of {split} have no face: {what}"] if num else []
    return found
