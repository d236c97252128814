"""The faces of a data set: what `shards faces` found, row for row beside the index."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.data.shard_set import ShardSet
from shards.format import face_table
from shards.format.face_table import Track

KEYS = ("detector", "num_frames", "upsample")  # how faces were found


@dataclass(frozen=True)
class Faces:
    """The main face of each sample, of one shard folder or several.

    Of each folder: its table, its first row, and how its faces were found (detector, num_frames, upsample, sha256).
    """

    tables: Sequence[pa.Table]
    first_rows: Sequence[int]
    found_by: Sequence[dict[str, Any]]

    @property
    def about(self) -> dict[str, Any]:
        """How they were found, alike in all folders."""
        return {name: self.found_by[0][name] for name in KEYS}

    def track(self, row: int) -> Track | None:
        """The face of a sample; None where none was found."""
        number = bisect.bisect_right(self.first_rows, row) - 1
        place = row - self.first_rows[number]
        ends, frames, boxes, scores = self._columns[number]
        first, last = int(ends[place]), int(ends[place + 1])
        return Track(frames[first:last], boxes[first:last], scores[first:last]) if last > first else None

    @functools.cached_property
    def _columns(self) -> list[tuple[NDArray[Any], ...]]:
        """Of each table, as views of the mapped file: where each row's entries begin, frames, boxes [n, 4], scores."""
        found: list[tuple[NDArray[Any], ...]] = []
        for table in self.tables:
            frames, boxes, scores = (table[name].chunk(0) for name in ("frames", "boxes", "scores"))
            values = boxes.values.to_numpy().reshape(-1, 4)
            found.append((frames.offsets.to_numpy(), frames.values.to_numpy(), values, scores.values.to_numpy()))
        return found

    def known(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of the samples `rows` have a face: bool [n]."""
        lengths = [pc.list_value_length(table["frames"]).to_numpy() for table in self.tables]
        return (np.concatenate(lengths) > 0)[rows]

    def usable(self, rows: NDArray[np.integer], split: str, missing: str) -> NDArray[np.integer]:
        """Those of `rows` that data.face_missing lets through: all for whole, those with a face for skip.

        Raises UserError for fail where one has none, and for skip where none has one.
        """
        if missing == "whole":
            return rows
        known = self.known(rows)
        if missing == "fail" and not known.all():
            raise UserError(
                f"{int((~known).sum()):,} of {len(rows):,} clips of {split} have no face (faces_missing.csv in the "
                "shard folder names them); set data.face_missing=whole or skip, or take them out"
            )
        if not known.any():
            raise UserError(f"no clip of {split} has a face; set data.face_missing=whole or data.crop=whole")
        return rows[known]


def describe(about: Mapping[str, Any]) -> str:
    """How faces were found, in words."""
    return f"{about['detector']}, {about['num_frames']} frames a clip, upsample {about['upsample']}"


def find(shard_sets: Sequence[ShardSet]) -> Faces | None:
    """The faces of the folders; None where one has none. Raises UserError for damaged ones."""
    tables, found_by = [], []
    for item in shard_sets:
        sha256 = item.manifest.get("files", {}).get(face_table.FILE_NAME)
        if sha256 is None:
            return None
        with item.reader.file(face_table.FILE_NAME) as path:
            table, about = face_table.read(path)
        if table.num_rows != item.manifest["num_samples"]:
            raise UserError(
                f"{item.root}: {face_table.FILE_NAME} is of another build; run `livetrain shards faces` again"
            )
        tables.append(table.combine_chunks())
        found_by.append({**{name: about[name] for name in KEYS}, "sha256": sha256})
    return Faces(tables, [item.first_row for item in shard_sets], found_by)


def alike(faces: Faces, shard_sets: Sequence[ShardSet]) -> Faces:
    """The faces, if all folders have them found in the same way; else raises UserError."""
    for item, other in zip(shard_sets, faces.found_by, strict=True):
        check_same(faces.about, other, f"the faces of {shard_sets[0].root}", str(item.root))
    return faces


def check_same(one: Mapping[str, Any], other: Mapping[str, Any], whose: str, where: str) -> None:
    """Raises UserError where faces in `where` (found as `other` says) are not found as `whose` were (`one`)."""
    if any(one[name] != other[name] for name in KEYS):
        raise UserError(
            f"{whose} were found by {describe(one)}; {where} has {describe(other)}: run `livetrain shards faces DIR "
            "--overwrite` with the same detector and options"
        )
