"""Reading label.csv (or a Parquet file of the same columns) and matching it with the videos of a folder.

The file is the one of the Zalo AI Challenge (`fname,liveness_score`, 1 = live) with optional columns: attack_type,
subject (or group), session, device, domain (data set), split. Every complaint names the file and the line, and says
what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from livetrain.core.columns import Column, Lazy, Strings, Words, batches, rows_of, whole
from livetrain.core.errors import UserError
from livetrain.core.progress import watched
from shards.text_tables import Record, open_table
from shards.video_names import VideoNames

SUBJECT_COLUMNS = ("subject", "group")  # looked for in this order when no subject column is named
LIVE = "live"
UNKNOWN_ATTACK = "attack"
NUM_NAMES_SHOWN = 5
NUM_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """Which column holds what. None: use the usual one if it is there. An empty string: use none."""

    name: str = "fname"
    label: str = "liveness_score"
    attack: str | None = None
    subject: str | None = None
    split: str | None = None
    invert: bool = False  # the label is 1 for attacks


@dataclass(frozen=True)
class Label:
    """One labelled video: `video` is its POSIX path relative to the video folder; label in [0, 1], live = 1."""

    video: str
    label: float
    attack_type: str
    subject: str
    session: str
    device: str
    split: str
    domain: str = ""  # the data set it comes from; people of two domains are never the same

    @property
    def identity(self) -> tuple[str, str]:
        """What must not be in two splits: the same `subject` in two domains is two people."""
        return self.domain, self.subject

    @property
    def is_live(self) -> bool:
        return is_live(self.label)


def is_live(label: float) -> bool:
    """Whether a label is that of a live person: decided on the float32 that index.arrow has, as training decides."""
    return bool(np.float32(label) >= 0.5)


class LabelRows(Column[Label]):
    """Labels as an Arrow table: 60 bytes each and its name, instead of a kilobyte."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._videos, self._labels = Strings(whole(table["video"])), whole(table["label"]).to_numpy()
        self._words = {name: Words(whole(table[name])) for name in _WORDS}

    @staticmethod
    def of(rows: Iterable[Label]) -> LabelRows:
        tables = [pa.Table.from_pylist([vars(row) for row in batch], schema=_SCHEMA) for batch in batches(rows)]
        joined = pa.concat_tables([_SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks()
        return LabelRows(joined)

    def by_video(self) -> LabelRows:
        """The same, sorted."""
        return LabelRows(self._table.take(pc.sort_indices(self._table["video"])).combine_chunks())

    def __len__(self) -> int:
        return len(self._table)

    def item(self, place: int) -> Label:
        words = {name: column.item(place) for name, column in self._words.items()}
        return Label(self._videos.item(place), float(self._labels[place]), **words)

    def __iter__(self) -> Iterator[Label]:
        return (Label(**row) for row in rows_of(self._table))


_WORDS = ("attack_type", "subject", "session", "device", "split", "domain")
_SCHEMA = pa.schema(
    [
        ("video", pa.large_string()),
        ("label", pa.float64()),
        *((name, pa.dictionary(pa.int32(), pa.large_string())) for name in _WORDS),
    ]
)


@dataclass(frozen=True)
class Labels:
    """All labelled videos (as read: by path), which optional columns there are ("" = none), what one should know.

    contents: SHA-256 of each video, "" where it is not known; empty before any is.
    """

    rows: Sequence[Label]
    subject_column: str
    split_column: str
    notices: tuple[str, ...] = ()
    contents: Sequence[str] = ()

    def select(self, wanted: Sequence[bool]) -> Labels:
        """Those of the rows, without a split column."""
        places = [place for place, is_one in enumerate(wanted) if is_one]
        rows = Lazy(len(places), lambda i: self.rows[places[i]])
        contents = Lazy(len(places), lambda i: self.contents[places[i]]) if self.contents else ()
        return Labels(rows, self.subject_column, "", (), contents)


def read_labels(
    path: Path, videos: Sequence[str], columns: Columns | None = None, domain: str = "", skip_unlabelled: bool = False
) -> Labels:
    """Read the label file and match its rows with `videos` (as from `shards.videos.find`).

    A name in the file is a video's relative path, with or without its suffix. `domain`: of all rows, instead of the
    file's own column. `skip_unlabelled`: leave out videos that have no row. A row that repeats another, cell by cell,
    is noticed and left out. Raises UserError, with all faults of the rows in one message, for each way in which file
    and folder disagree, and for labels that are not numbers in [0, 1] or all of one class.
    """
    columns = columns or Columns()
    header, records = open_table(path)
    optional = {
        "subject": _optional_column(path, header, columns.subject, SUBJECT_COLUMNS, "subject"),
        "attack": _optional_column(path, header, columns.attack, ("attack_type",), "attack"),
        "split": _optional_column(path, header, columns.split, ("split",), "split"),
    }
    _require_column(path, header, columns.name, "name")
    _require_column(path, header, columns.label, "label")
    found = _Found(len(videos))
    records = watched(records, len(videos), "read labels", "rows")
    rows = LabelRows.of(_rows(path, records, VideoNames(videos), columns, optional, domain, found)).by_video()
    missing = "" if skip_unlabelled else _missing(path, videos, found.lines)
    if found.num_faults or missing:
        more = found.num_faults - NUM_FAULTS_SHOWN
        lines = [*found.faults, f"and {more} more" if more > 0 else "", missing]
        raise UserError("\n".join(line for line in lines if line))
    found.refuse_live_attacks(path)
    if 0 in found.num_of.values():
        only = "live (label >= 0.5)" if found.num_of[True] else "attacks (label < 0.5)"
        raise UserError(f"{path}: all {len(rows)} videos are {only}; a liveness model needs both classes")
    return Labels(rows, optional["subject"], optional["split"], tuple(found.notices))


class _Found:
    """What is known of the rows of a file so far."""

    def __init__(self, num_videos: int) -> None:
        self.lines = np.zeros(num_videos, np.int64)  # that a video is labelled in, 0: none yet
        self.digests = np.zeros(num_videos, np.int64)  # of the cells there
        self.notices: list[str] = []
        self.faults: list[str] = []  # the first of them
        self.num_faults = 0
        self.num_of = {True: 0, False: 0}  # live, attacks
        self.attacks: set[str] = set()  # their types
        self.live: dict[str, int] = {}  # attack type of a live row → the first line with it

    def fault(self, text: str) -> None:
        self.num_faults += 1
        if self.num_faults <= NUM_FAULTS_SHOWN:
            self.faults.append(text)

    def repeats(self, place: int, line: int, record: dict[str, str], name: str, where: str) -> bool:
        """Whether the video's row repeats an earlier one. Raises UserError where another one has labelled it."""
        digest, first = hash(tuple(record.items())), int(self.lines[place])
        if not first:
            self.lines[place], self.digests[place] = line, digest
            return False
        if digest != self.digests[place]:
            raise UserError(f"{where}: {name!r} is labelled already in line {first}; keep one of the two")
        self.notices.append(f"{where} repeats line {first}: {name!r}; it is counted once")
        return True

    def count(self, row: Label, line: int) -> Label:
        """The row, with the attack type "live" where it is live, whatever was written."""
        self.num_of[row.is_live] += 1
        if not row.is_live:
            self.attacks.add(row.attack_type)
            return row
        self.live.setdefault(row.attack_type, line)
        return replace(row, attack_type=LIVE)

    def refuse_live_attacks(self, path: Path) -> None:
        """Raises UserError where a live row has the name of an attack."""
        wrong = {line: kind for kind, line in self.live.items() if kind in self.attacks - {UNKNOWN_ATTACK}}
        if wrong:
            line = min(wrong)
            raise UserError(
                f"{path}, line {line}: labelled live, with attack type {wrong[line]!r}, which other rows use for "
                "attacks; correct one of them"
            )


def _rows(
    path: Path,
    records: Iterable[Record],
    names: VideoNames,
    columns: Columns,
    optional: dict[str, str],
    domain: str,
    found: _Found,
) -> Iterator[Label]:
    """The rows of a file that have no fault and repeat no other; what else there is goes into `found`."""
    for line, record in records:
        where = f"{path}, line {line}"
        try:
            place = _place(record, columns.name, names, where)
            if found.repeats(place, line, record, record[columns.name], where):
                continue
            row = _row(record, names.videos[place], columns, optional, domain, where)
        except UserError as fault:
            found.fault(str(fault))
        else:
            yield found.count(row, line)


def _place(record: dict[str, str], name_column: str, names: VideoNames, where: str) -> int:
    """Which video a row is about."""
    broken = [column for column, value in record.items() if any(sign in value for sign in "\r\n\0")]
    if broken:
        raise UserError(f"{where}: {broken[0]} holds a line break or a NUL; is a quote missing? Correct the row")
    return names.match(record[name_column], where)


def _row(
    record: dict[str, str], video: str, columns: Columns, optional: dict[str, str], domain: str, where: str
) -> Label:
    """A row of the file; `optional`: the columns of subject, attack and split, "" where there is none."""
    label = _label(record[columns.label], columns.label, where)
    label = 1 - label if columns.invert else label
    subject, split, attack_type = (record.get(optional[field], "") for field in ("subject", "split", "attack"))
    if optional["subject"] and not subject:
        raise UserError(
            f"{where}: {optional['subject']} is empty; name the person (a made-up name will do), or build without "
            "subjects: --columns subject="
        )
    if optional["split"] and not split:
        raise UserError(f"{where}: {optional['split']} is empty; fill it in, or have it split again: --columns split=")
    if not is_live(label) and attack_type.lower() == LIVE:
        raise UserError(f"{where}: {columns.label} says attack, {optional['attack']} says live; correct one of them")
    session, device = record.get("session", ""), record.get("device", "")
    where_from = domain or record.get("domain", "")
    return Label(video, label, attack_type or UNKNOWN_ATTACK, subject, session, device, split, where_from)


def _require_column(path: Path, header: list[str], column: str, field: str) -> None:
    if column not in header:
        raise UserError(
            f"{path}: no column {column!r} (it has: {', '.join(header)}); name yours with --columns {field}=COLUMN"
        )


def _optional_column(path: Path, header: list[str], named: str | None, usual: Iterable[str], field: str) -> str:
    """The column to use, "" for none. A column that the user named must exist."""
    if named is None:
        return next((column for column in usual if column in header), "")
    if named:
        _require_column(path, header, named, field)
    return named


def _label(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, not a number; write 1 for live, 0 for an attack") from None
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UserError(f"{where}: {column} is {text}, outside [0, 1]; write 1 for live, 0 for an attack")
    return value


def _missing(path: Path, videos: Sequence[str], lines: NDArray[np.int64]) -> str:
    """The videos without a row, in words; "" when all have one. lines: of each video, 0 for none."""
    missing = np.flatnonzero(lines == 0)
    if not len(missing):
        return ""
    shown = ", ".join(videos[int(place)] for place in missing[:NUM_NAMES_SHOWN])
    shown += ", ..." if len(missing) > NUM_NAMES_SHOWN else ""
    return (
        f"{path}: {len(missing)} of {len(videos)} videos have no label ({shown}); add rows, or leave them out with "
        "--skip-unlabelled"
    )
