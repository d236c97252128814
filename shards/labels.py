"""Reading label.csv (or a Parquet file of the same columns) and matching it with the videos of a folder.

The file is the one of the Zalo AI Challenge (`fname,liveness_score`, 1 = live) with optional columns: attack_type,
subject (or group), session, device, domain (data set), split. Every complaint names the file and the line, and says
what to do.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.errors import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".mpg", ".mpeg", ".wmv",
    ".flv", ".ogv",
)  # fmt: skip
SUBJECT_COLUMNS = ("subject", "group")  # looked for in this order when no subject column is named
LIVE = "live"
UNKNOWN_ATTACK = "attack"
NUM_NAMES_SHOWN = 5
PARQUET = (".parquet", ".pq")
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
        return self.label >= 0.5


@dataclass(frozen=True)
class Labels:
    """All labelled videos sorted by path, which optional columns the file had ("" = none), what one should know.

    contents: SHA-256 of each video, "" where it is not known; empty before any is.
    """

    rows: tuple[Label, ...]
    subject_column: str
    split_column: str
    notices: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()

    def select(self, wanted: Sequence[bool]) -> Labels:
        """Those of the rows, without a split column."""
        contents = tuple(itertools.compress(self.contents, wanted))
        return Labels(tuple(itertools.compress(self.rows, wanted)), self.subject_column, "", (), contents)


def find_videos(folder: Path, option: str = "--videos") -> list[str]:
    """POSIX paths, relative to `folder`, of all video files below it, sorted; hidden files are left out.

    `option`: what complaints call the folder.

    Raises UserError when the folder is missing, unreadable or holds no video.
    """
    return list(walk_videos(folder, option))


def walk_videos(folder: Path, option: str = "--videos") -> Iterator[str]:
    """`find_videos`, one at a time: a folder of its tree is in memory at once, not all of it."""
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: no such folder")
    found = _walk(folder, "", option)
    first = next(found, None)
    if first is None:
        raise UserError(f"{option} {folder}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    yield first
    yield from found


def _walk(root: Path, below: str, option: str) -> Iterator[str]:
    try:
        with os.scandir(root / below) as entries:
            found = [
                (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry.is_dir())
                for entry in entries
                if not entry.name.startswith(".")
            ]
    except OSError as error:
        raise UserError(f"{option} {root / below}: cannot list it: {error.strerror or error}") from error
    for name, is_folder in sorted(found):  # with the slash, so that whole paths are sorted
        if name.endswith("/"):
            yield from _walk(root, below + name, option)
        elif not is_folder and Path(name).suffix.lower() in VIDEO_SUFFIXES:
            yield _readable(root, below + name, option)


def _readable(root: Path, name: str, option: str) -> str:
    """`name`, which tables of text can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{option} {root}: the name {os.fsencode(name)!r} is no UTF-8; rename that file") from None
    return name


def read_labels(
    path: Path, videos: Sequence[str], columns: Columns | None = None, domain: str = "", skip_unlabelled: bool = False
) -> Labels:
    """Read the label file and match its rows with `videos` (as from `find_videos`).

    A name in the file is a video's relative path, with or without its suffix. `domain`: of all rows, instead of the
    file's own column. `skip_unlabelled`: leave out videos that have no row. A row that repeats another, cell by cell,
    is noticed and left out. Raises UserError, with all faults of the rows in one message, for each way in which file
    and folder disagree, and for labels that are not numbers in [0, 1] or all of one class.
    """
    columns = columns or Columns()
    header, records = read_table(path)
    subject_column = _optional_column(path, header, columns.subject, SUBJECT_COLUMNS, "subject")
    attack_column = _optional_column(path, header, columns.attack, ("attack_type",), "attack")
    split_column = _optional_column(path, header, columns.split, ("split",), "split")
    _require_column(path, header, columns.name, "name")
    _require_column(path, header, columns.label, "label")

    names = _NameIndex(videos)
    record_of: dict[str, tuple[int, dict[str, str]]] = {}
    rows, faults, notices = [], [], []
    for line, record in records:
        where = f"{path}, line {line}"
        try:
            video = _video(record, columns.name, names, where)
            if video in record_of:
                first, same = record_of[video]
                if record == same:
                    notices.append(f"{where} repeats line {first}: {record[columns.name]!r}; it is counted once")
                    continue
                raise UserError(
                    f"{where}: {record[columns.name]!r} is labelled already in line {first}; keep one of the two"
                )
            record_of[video] = line, record
            optional = {"subject": subject_column, "attack": attack_column, "split": split_column}
            rows.append(_row(record, video, columns, optional, domain, where))
        except UserError as fault:
            faults.append(str(fault))
    line_of = {video: line for video, (line, _) in record_of.items()}
    missing = "" if skip_unlabelled else _missing(path, videos, line_of)
    if faults or missing:
        more = len(faults) - NUM_FAULTS_SHOWN
        lines = [*faults[:NUM_FAULTS_SHOWN], f"and {more} more" if more > 0 else "", missing]
        raise UserError("\n".join(line for line in lines if line))
    rows = _name_live_rows(path, rows, line_of)
    if len({row.is_live for row in rows}) < 2:
        only = "live (label >= 0.5)" if rows[0].is_live else "attacks (label < 0.5)"
        raise UserError(f"{path}: all {len(rows)} videos are {only}; a liveness model needs both classes")
    return Labels(tuple(sorted(rows, key=lambda row: row.video)), subject_column, split_column, tuple(notices))


def _video(record: dict[str, str], name_column: str, names: _NameIndex, where: str) -> str:
    """The video that a row is about."""
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
    if label < 0.5 and attack_type.lower() == LIVE:
        raise UserError(f"{where}: {columns.label} says attack, {optional['attack']} says live; correct one of them")
    session, device = record.get("session", ""), record.get("device", "")
    where_from = domain or record.get("domain", "")
    return Label(video, label, attack_type or UNKNOWN_ATTACK, subject, session, device, split, where_from)


Records = list[tuple[int, dict[str, str]]]


def read_table(path: Path, option: str = "--labels") -> tuple[list[str], Records]:
    """Header and (line number, cells by column) of a CSV or Parquet file; a Parquet file's first row is line 1.

    Cells are stripped, and in Unicode's form NFC: a name that macOS or zip took apart is the same name. Blank lines are
    left out, as are nested columns of Parquet. option: what complaints call the file. Raises UserError.
    """
    if path.suffix.lower() not in PARQUET:
        return _read_csv(path, option)
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        flat = [item.name for item in schema if not pa.types.is_nested(item.type)]
        table = parquet.read_table(path, columns=flat)
        cells = {name: pc.cast(table[name], pa.string()).to_pylist() for name in flat}
    except FileNotFoundError as error:
        raise UserError(f"{option} {path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{option} {path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
    _refuse_repeated(path, schema.names)
    rows = zip(*cells.values(), strict=True)
    return list(cells), [
        (number + 1, {name: clean(cell or "") for name, cell in zip(cells, row, strict=True)})
        for number, row in enumerate(rows)
    ]


def clean(text: str) -> str:
    """Without blanks around it, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text.strip())


def _read_csv(path: Path, option: str) -> tuple[list[str], Records]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            header = [clean(cell) for cell in next(reader, [])]
            if header and header[0].startswith("sep="):
                raise UserError(f"{option} {path}: its first line, {','.join(header)!r}, is for Excel alone; remove it")
            if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
                sign = "semicolons" if ";" in header[0] else "tabs"
                raise UserError(f"{option} {path}: its columns are separated by {sign}; save it with commas")
            records = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}; "
                        "put quotes around cells that hold a comma"
                    )
                records.append((reader.line_num, {k: clean(c) for k, c in zip(header, cells, strict=True)}))
    except FileNotFoundError as error:
        raise UserError(f"{option} {path}: no such file") from error
    except OSError as error:
        raise UserError(f"{option} {path}: cannot read it: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {path}: not UTF-8 text (see byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{option} {path}: not a CSV file: {error}") from error
    _refuse_repeated(path, header)
    if not records:
        raise UserError(f"{path}: holds no row; expected a header such as fname,liveness_score and a row a video")
    return header, records


def _refuse_repeated(path: Path, header: Sequence[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!r} appears twice in the header; rename one")


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


class _NameIndex:
    """Finds the video that a label row names, with or without its suffix, however its letters are composed."""

    def __init__(self, videos: Sequence[str]) -> None:
        self.by_name: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        self.by_file: dict[str, list[str]] = {}
        for video in videos:
            name = unicodedata.normalize("NFC", video)
            self.by_name.setdefault(name, []).append(video)
            self.by_stem.setdefault(str(Path(name).with_suffix("").as_posix()), []).append(video)
            self.by_file.setdefault(Path(name).name, []).append(video)

    def match(self, name: str, where: str) -> str:
        if not name:
            raise UserError(f"{where}: the name of the video is empty")
        plain = name.removeprefix("./")
        found = self.by_name.get(plain) or self.by_stem.get(plain, [])
        if len(found) > 1:
            several = " or ".join(map(repr, found))
            raise UserError(f"{where}: {name!r} could be {several}; write the suffix, or rename one")
        if not found:
            raise UserError(
                f"{where}: the video {name!r} is not in the video folder{self._hint(plain)}; add the file or remove "
                "the row"
            )
        return found[0]

    def _hint(self, plain: str) -> str:
        if Path(plain).suffix.lower() not in (*VIDEO_SUFFIXES, ""):
            return "; its suffix is not one of a video"
        other = self.by_file.get(Path(plain).name, [])
        if len(other) == 1:
            return f", but {other[0]!r} is: write names as paths below that folder"
        return ""


def _label(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, not a number; write 1 for live, 0 for an attack") from None
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UserError(f"{where}: {column} is {text}, outside [0, 1]; write 1 for live, 0 for an attack")
    return value


def _missing(path: Path, videos: Sequence[str], labelled: dict[str, int]) -> str:
    """The videos without a row, in words; "" when all have one."""
    missing = [video for video in videos if video not in labelled]
    if not missing:
        return ""
    shown = ", ".join(missing[:NUM_NAMES_SHOWN]) + (", ..." if len(missing) > NUM_NAMES_SHOWN else "")
    return (
        f"{path}: {len(missing)} of {len(videos)} videos have no label ({shown}); add rows, or leave them out with "
        "--skip-unlabelled"
    )


def _name_live_rows(path: Path, rows: list[Label], line_of: dict[str, int]) -> list[Label]:
    """Live rows get the attack type "live", whatever was written, unless it is the name of an attack."""
    attacks = {row.attack_type for row in rows if not row.is_live} - {UNKNOWN_ATTACK}
    named = []
    for row in rows:
        if row.is_live and row.attack_type in attacks:
            raise UserError(
                f"{path}, line {line_of[row.video]}: labelled live, with attack type {row.attack_type!r}, which other "
                "rows use for attacks; correct one of them"
            )
        named.append(Label(**{**vars(row), "attack_type": LIVE}) if row.is_live else row)
    return named
