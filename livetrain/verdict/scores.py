"""Scores of a split: one row a video, in memory as columns and on disk as CSV.

    video,key,p_live,label,subject,attack_type,num_frames,seconds,status

`status` is ok, or failed_to_acquire or no_face with an empty p_live: the video gave no score, and is counted, not
dropped.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.files import write_text

COLUMNS = ("video", "key", "p_live", "label", "subject", "attack_type", "num_frames", "seconds", "status")
RENAMED = {"group": "subject"}  # in files that 0.1 has written
OK, FAILED, NO_FACE = "ok", "failed_to_acquire", "no_face"
STATUSES = (OK, FAILED, NO_FACE)
LIVE_THRESHOLD = 0.5  # labels from here on are live


@dataclass(frozen=True)
class Scores:
    """Scores of videos, as columns of length n.

    Strings are object arrays; p_live float64 (NaN where failed), label float64 in [0, 1], num_frames int64, seconds
    float64.
    """

    video: NDArray[Any]
    key: NDArray[Any]
    p_live: NDArray[np.float64]
    label: NDArray[np.float64]
    subject: NDArray[Any]
    attack_type: NDArray[Any]
    num_frames: NDArray[np.int64]
    seconds: NDArray[np.float64]
    status: NDArray[Any]

    @staticmethod
    def from_rows(rows: Iterable[Mapping[str, Any]]) -> Scores:
        """Columns from rows with the keys of COLUMNS; a missing p_live is None."""
        rows = list(rows)

        def words(name: str) -> NDArray[Any]:
            return np.array([str(row[name]) for row in rows], dtype=object)

        p = [math.nan if row["p_live"] is None else float(row["p_live"]) for row in rows]
        return Scores(
            words("video"),
            words("key"),
            np.array(p, dtype=np.float64),
            np.array([float(row["label"]) for row in rows], dtype=np.float64),
            words("subject"),
            words("attack_type"),
            np.array([int(row["num_frames"]) for row in rows], dtype=np.int64),
            np.array([float(row["seconds"]) for row in rows], dtype=np.float64),
            words("status"),
        )

    def __len__(self) -> int:
        return len(self.key)

    def row(self, index: int) -> dict[str, Any]:
        """Row `index` as plain Python values; p_live None where failed."""
        values = {name: getattr(self, name)[index] for name in COLUMNS}
        values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        return values | {"p_live": None if math.isnan(values["p_live"]) else values["p_live"]}

    def select(self, rows: NDArray[Any]) -> Scores:
        """The rows that a mask (bool [n]) or numbers (int [m], in that order) name."""
        return Scores(*(getattr(self, name)[rows] for name in COLUMNS))

    def followed_by(self, other: Scores) -> Scores:
        """The rows of both."""
        return Scores(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS))

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Rows that have a score."""
        return self.status == OK

    @property
    def live(self) -> NDArray[np.bool_]:
        """Rows of live people (bona fide presentations)."""
        return self.label >= LIVE_THRESHOLD


def write(path: Path, scores: Scores) -> None:
    """Write the CSV atomically; `read` gives back the same values to the bit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index in range(len(scores)):
        row = scores.row(index)
        row["p_live"] = "" if row["p_live"] is None else row["p_live"]  # floats are written by repr, which is exact
        writer.writerow([row[name] for name in COLUMNS])
    write_text(path, out.getvalue())


def read(path: Path) -> Scores:
    """Read a scores CSV. Raises UserError naming file, row and column."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            reader.fieldnames = [name if RENAMED.get(name) in names else RENAMED.get(name, name) for name in names]
            missing = [name for name in COLUMNS if name not in reader.fieldnames]
            if missing:
                raise UserError(
                    f"{path}: column {', '.join(missing)} is missing; a scores file has {','.join(COLUMNS)}"
                )
            rows = [_parse(path, number, row) for number, row in enumerate(reader, start=2)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `livetrain evaluate RUN` writes it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if row["key"] in seen:
            raise UserError(f"{path}: row {number}: key {row['key']} is in row {seen[row['key']]} already")
        seen[row["key"]] = number
    return Scores.from_rows(rows)


def _parse(path: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    def fail(column: str, wanted: str) -> UserError:
        return UserError(f"{path}: row {number}: {column}={row[column]!r} must be {wanted}")

    def numeric(column: str, low: float, high: float, wanted: str) -> float:
        try:
            value = float(row[column])
        except (TypeError, ValueError):
            raise fail(column, wanted) from None
        if not low <= value <= high:
            raise fail(column, wanted)
        return value

    if row["status"] not in STATUSES:
        raise fail("status", f"one of {', '.join(STATUSES)}")
    failed = row["status"] != OK
    return {
        **row,
        "p_live": None if failed else numeric("p_live", 0, 1, "a number from 0 to 1"),
        "label": numeric("label", 0, 1, "a number from 0 to 1"),
        "num_frames": numeric("num_frames", 0, math.inf, "a count"),
        "seconds": numeric("seconds", 0, math.inf, "seconds"),
    }
