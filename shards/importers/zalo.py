"""Zalo AI Challenge 2022, liveness detection.

    train/videos/<id>.mp4   train/label.csv (fname,liveness_score; 1 = live)   public_test/videos/ … without labels

Source: the challenge's description (challenge.zalo.ai, "Liveness Detection", 2022). It names neither people nor attack
types, and the same people are in train and test. Test folders have no labels: they are for `livetrain predict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from shards.importers import table
from shards.importers.layout import Options, Row

OPTIONS = ()


def rows(root: Path, options: Options) -> Iterator[Row]:
    files = [path for path in (root / "train" / "label.csv", root / "label.csv") if path.is_file()]
    if not files:
        raise UserError(f"ROOT {root}: has no train/label.csv")
    below = (files[0].parent / "videos").relative_to(root).as_posix()
    for row in table.rows(files[0], Options(columns={"video": "fname", "label": "liveness_score"})):
        yield Row(f"{below}/{row.video}", row.label)
