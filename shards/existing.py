"""The splits that videos and people had before, so that they keep them when data grow.

Read from a shard folder, its index (Arrow or Parquet), or a label file with a column split. A person keeps the split of
their videos; a video without a person is known by its content, or else by its name.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from livetrain.core.columns import Lazy, Places, Strings, Words, batches, rows_of, whole
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write
from shards.format import index_table, rejected
from shards.labels import SUBJECT_COLUMNS, Labels
from shards.text_tables import open_table
from shards.video_names import spellings

UNUSED = "unused"  # the split of what a protocol leaves out


class Kept:
    """The splits of an existing shard folder, a row a video. source: where they are from, in words.

    rows: of Arrow, columns video, domain, subject, split and sha256 ("" where it is not known).
    """

    def __init__(self, rows: pa.Table, source: str) -> None:
        self.rows, self.source = rows, source
        self._videos, self._sha256 = Strings(whole(rows["video"])), Strings(whole(rows["sha256"]))
        self._splits = Words(whole(rows["split"]))
        self._by_video, self._by_content = Places(self._videos), Places(self._sha256)
        self.people: dict[tuple[str, str], str] = {}
        for row in rows_of(rows.select(["domain", "subject", "split"])):
            if row["subject"] and row["split"] != UNUSED:
                self.people[row["domain"], row["subject"]] = row["split"]

    @staticmethod
    def of_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Kept:
        """Rows with `video` and `split`, and perhaps `domain`, `subject`, `sha256`."""
        made = ({name: str(row.get(name) or "") for name in _SCHEMA.names} for row in rows)
        tables = [pa.Table.from_pylist(batch, schema=_SCHEMA) for batch in batches(made)]
        return Kept(pa.concat_tables([_SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks(), source)

    def of(self, labels: Labels) -> list[str | None]:
        """The split that each row had: the video's own, or else its person's; None where neither had any.

        A video is known by its content, or by a name as label files have it, with or without its suffix.
        """
        contents = labels.contents or Lazy(len(labels.rows), lambda _: "")
        found = []
        for row, content in zip(labels.rows, contents, strict=True):
            split = self._of(content, self._by_content, self._sha256) if content else None
            for name in () if split else spellings(row.video):
                split = split or self._of(name, self._by_video, self._videos)
            if split is None and row.subject:
                split = self.people.get(row.identity)
            found.append(split)
        return found

    def _of(self, text: str, places: Places, column: Strings) -> str | None:
        """The split of the last row of that text."""
        found = places.exact(text, column)
        return self._splits.item(found[-1]) if found else None

    def write(self, path: Path) -> None:
        """As a file that `read` takes; people and contents by their videos."""
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, _SCHEMA.names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows_of(self.rows))


_WORD = pa.dictionary(pa.int32(), pa.large_string())
_SCHEMA = pa.schema(
    [
        ("video", pa.large_string()),
        ("domain", _WORD),
        ("subject", _WORD),
        ("split", _WORD),
        ("sha256", pa.large_string()),
    ]
)


def file_of(path: Path) -> Path:
    """The file that `read` takes the splits from."""
    return path / index_table.FILE_NAME if path.is_dir() else path


def read(path: Path, source: str = "") -> Kept:
    """The splits in a shard folder, an index.arrow or index.parquet, or a label file. Raises UserError.

    source: what complaints call it instead of its path.
    """
    source = source or str(path)
    if path.is_dir():
        rows = _index_rows(path / index_table.FILE_NAME)
        return Kept.of_rows(itertools.chain(rows, _rejected(path / rejected.FILE_NAME)), source)
    if path.suffix in (".arrow", ".parquet", ".pq"):
        return Kept.of_rows(_index_rows(path), source)
    header, records = open_table(path)
    if "split" not in header:
        raise UserError(f"--keep {path}: has no column split; give a shard folder, its index.arrow, or such a file")
    name = next((column for column in ("fname", "video", "name") if column in header), header[0])
    subject = next((column for column in SUBJECT_COLUMNS if column in header), "")
    rows = (
        record | {"video": record[name].removeprefix("./"), "subject": record.get(subject, "")}
        for _, record in records
        if record["split"]
    )
    return Kept.of_rows(rows, source)


def _index_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".arrow":
            table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        else:
            has = pa.parquet.read_schema(path).names
            table = pa.parquet.read_table(
                path, columns=[name for name in has if index_table.RENAMED.get(name, name) in _SCHEMA.names]
            )
        names = [index_table.RENAMED.get(name, name) for name in table.column_names]
        table = table.rename_columns(names).select(_SCHEMA.names)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"--keep {path}: not a readable index ({error})") from None
    return rows_of(table)


def _rejected(path: Path) -> list[dict[str, str]]:
    return rejected.read(path) if path.exists() else []
