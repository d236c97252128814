"""rejected.csv: the videos that are in no shard of a folder, with the reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

FILE_NAME = "rejected.csv"
COLUMNS = ("video", "label", "attack_type", "subject", "domain", "split", "reason")


def text(rows: Iterable[Mapping[str, object]]) -> str:
    """The content of a rejected.csv with these rows; each has all of COLUMNS."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read(path: Path) -> list[dict[str, str]]:
    """Its rows, also of format 5, whose subjects are in a column `group`. Raises FileNotFoundError."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {"subject" if name == "group" else name: cell for name, cell in row.items()} for row in csv.DictReader(file)
        ]
