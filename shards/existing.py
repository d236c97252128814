"""The splits that videos and people had before, so that they keep them when data grow.

Read from a shard folder, its index (Arrow or Parquet), or a label file with a column split. A person keeps the split of
their videos; a video without a person is known by its content, or else by its name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from shards.format import index_table, rejected
from shards.labels import SUBJECT_COLUMNS, Labels
from shards.tables import read_table

UNUSED = "unused"  # the split of what a protocol leaves out
_COLUMNS = ("video", "domain", "subject", "split", "sha256")


@dataclass(frozen=True)
class Kept:
    """The splits of an existing shard folder.

    By video name, by content (SHA-256) and by person (domain, subject). source: where they are from. rows: all of it,
    one a video.
    """

    source: str
    videos: Mapping[str, str]
    contents: Mapping[str, str]
    people: Mapping[tuple[str, str], str]
    rows: Sequence[Mapping[str, str]]

    @staticmethod
    def of_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Kept:
        """Rows with `video` and `split`, and perhaps `domain`, `subject`, `sha256`."""
        videos, contents, people, kept = {}, {}, {}, []
        for given in rows:
            row = {name: str(given.get(name) or "") for name in _COLUMNS}
            kept.append(row)
            videos[row["video"]] = row["split"]
            if row["sha256"]:
                contents[row["sha256"]] = row["split"]
            if row["subject"] and row["split"] != UNUSED:
                people[row["domain"], row["subject"]] = row["split"]
        return Kept(source, videos, contents, people, kept)

    def of(self, labels: Labels) -> list[str | None]:
        """The split that each row had: the video's own, or else its person's; None where neither had any."""
        contents = labels.contents or ("",) * len(labels.rows)
        found = []
        for row, content in zip(labels.rows, contents, strict=True):
            split = self.contents.get(content) if content else None
            split = split or self.videos.get(row.video)
            if split is None and row.subject:
                split = self.people.get(row.identity)
            found.append(split)
        return found

    def text(self) -> str:
        """As a file that `read` takes; people and contents by their videos."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return buffer.getvalue()


def file_of(path: Path) -> Path:
    """The file that `read` takes the splits from."""
    return path / index_table.FILE_NAME if path.is_dir() else path


def read(path: Path) -> Kept:
    """The splits in a shard folder, an index.arrow or index.parquet, or a label file. Raises UserError."""
    if path.is_dir():
        rows = _index_rows(path / index_table.FILE_NAME)
        return Kept.of_rows([*rows, *_rejected(path / rejected.FILE_NAME)], str(path))
    if path.suffix in (".arrow", ".parquet", ".pq"):
        return Kept.of_rows(_index_rows(path), str(path))
    header, records = read_table(path)
    if "split" not in header:
        raise UserError(f"--keep {path}: has no column split; give a shard folder, its index.arrow, or such a file")
    name = next((column for column in ("fname", "video", "name") if column in header), header[0])
    subject = next((column for column in SUBJECT_COLUMNS if column in header), "")
    rows = [
        record | {"video": record[name], "subject": record.get(subject, "")} for _, record in records if record["split"]
    ]
    return Kept.of_rows(rows, str(path))


def _index_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.suffix == ".arrow":
            table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        else:
            table = pa.parquet.read_table(path)
        names = [index_table.RENAMED.get(name, name) for name in table.column_names]
        found: list[dict[str, Any]] = table.rename_columns(names).select(list(_COLUMNS)).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"--keep {path}: not a readable index ({error})") from None
    return found


def _rejected(path: Path) -> list[dict[str, str]]:
    return rejected.read(path) if path.exists() else []
