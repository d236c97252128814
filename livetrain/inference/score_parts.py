"""The folder OUT.partial/ of a prediction: files and their rows in parts, so that millions take no more memory.

    parts = Parts(out)
    parts.begin(videos, request, size, fresh=False)     # one process lists the folder; rows of the same files are kept
    for number in parts.todo():
        parts.add(number, [… for name in parts.unscored(number)])
    for rows in parts.rows(): …                         # of all files, a part at a time, sorted by name

A part is a Parquet file of up to `size` files; it is replaced, atomically, when they are scored. A kill costs the parts
that were under way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from livetrain.core.errors import MachineFault
from livetrain.core.files import atomic_write, write_json

if TYPE_CHECKING:
    from livetrain.inference.video_scorer import Prediction

TIMES = "time_submission.csv"
WHAT = {"videos": "videos", "models": "weights or settings of the model", "overrides": "options key=value"}
FILE = {"name": pa.string(), "num_bytes": pa.int64(), "mtime_ns": pa.int64()}  # -1: it is missing
SCORE = {
    "p_live": pa.float64(),
    "live": pa.bool_(),
    "threshold": pa.float64(),
    "num_frames": pa.int32(),
    "seconds": pa.float64(),
    "status": pa.string(),  # null: not scored yet
    "reason": pa.string(),
}
SCHEMA = pa.schema(FILE | SCORE)
UNSCORED: dict[str, Any] = dict.fromkeys(SCORE)

Row = dict[str, Any]


class Parts:
    """The parts of the prediction that goes to `out`."""

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.name}.partial")
        self._next = out.with_name(f"{out.name}.partial.next")

    def begin(
        self, videos: Path, names: Iterable[str], request: Mapping[str, Any], size: int, *, fresh: bool
    ) -> tuple[int, int, list[str]]:
        """List `names` (sorted, below `videos`) in parts of `size`, with the rows of the same files that are known.

        Rows are kept if they answer the same `request` and it is not to begin `fresh`. Returns how many files there
        are, how many of them have a row, and in what the request differs from the one before.
        """
        if not self.folder.exists() and (self._next / "request.json").exists():
            self._next.rename(self.folder)  # killed between the two
        before = self._content().get("request")
        differing = [WHAT[key] for key in request if before and before.get(key) != request[key]]
        known = self._known() if before == request and not fresh else iter(())
        shutil.rmtree(self._next, ignore_errors=True)
        rows = _joined(videos, names, known)
        left: list[tuple[int, int]] = []
        while part := list(islice(rows, size)):
            _write(self._next / _name(len(left)), part)
            left.append((len(part), sum(row["status"] is None for row in part)))
        write_json(self._next / "request.json", {"request": request, "left": left})
        shutil.rmtree(self.folder, ignore_errors=True)
        self._next.rename(self.folder)
        num_files = sum(num for num, _ in left)
        return num_files, num_files - sum(num for _, num in left), [] if fresh else differing

    def todo(self) -> list[tuple[int, int]]:
        """(number, how many files have no row) of parts that had such files when the prediction began."""
        return [(number, num) for number, (_, num) in enumerate(self._content()["left"]) if num]

    def unscored(self, number: int) -> list[str]:
        """Names of a part's files that have no row."""
        return [row["name"] for row in self._read(number) if row["status"] is None]

    def add(self, number: int, found: Sequence[Prediction]) -> None:
        """Rows of the files `unscored`, in that order. Raises UserError where they cannot be written."""
        news = iter(found)
        rows = [row | _of(next(news)) if row["status"] is None else row for row in self._read(number)]
        _write(self.folder / _name(number), rows)

    def rows(self) -> Iterator[list[Row]]:
        """All rows, a part at a time. Raises MachineFault where one is missing."""
        for number in range(len(self._content()["left"])):
            rows = self._read(number)
            missing = [row["name"] for row in rows if row["status"] is None]
            if missing:
                raise MachineFault(
                    f"{self.folder / _name(number)} has no row of {missing[0]}, which a process wrote: this machine "
                    "does not see it yet, or the file was changed; the same command goes on"
                )
            yield rows

    def remove(self) -> None:
        for folder in (self.folder, self._next):
            shutil.rmtree(folder, ignore_errors=True)

    def _content(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "request.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def _known(self) -> Iterator[Row]:
        """Rows as they are, sorted by name; a part that cannot be read has none."""
        for number in range(len(self._content()["left"])):
            try:
                rows = self._read(number)
            except (OSError, pa.ArrowInvalid):
                continue
            yield from rows

    def _read(self, number: int) -> list[Row]:
        found: list[Row] = pq.read_table(self.folder / _name(number), memory_map=False).to_pylist()
        return found


def _name(number: int) -> str:
    return f"{number:06d}.parquet"


def _write(path: Path, rows: Sequence[Row]) -> None:
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary)


def _joined(videos: Path, names: Iterable[str], known: Iterator[Row]) -> Iterator[Row]:
    """A row for each name: the known one of the same version of the file, or one without a score."""
    other = next(known, None)
    for name in names:
        while other is not None and other["name"] < name:
            other = next(known, None)
        file = {"name": name} | _version(videos / name)
        is_same = other is not None and all(other[key] == value for key, value in file.items())
        yield other if is_same and other is not None else file | UNSCORED


def _version(path: Path) -> dict[str, int]:
    """What identifies a version of a file without reading it."""
    try:
        status = path.stat()
    except OSError:
        return {"num_bytes": -1, "mtime_ns": -1}
    return {"num_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _of(prediction: Prediction) -> Row:
    values = asdict(prediction)
    return {name: values[name] for name in SCORE}
