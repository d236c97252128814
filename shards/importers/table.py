"""A CSV or Parquet file with a row a video; ROOT is the file.

--columns label=spoof video=path subject=user …   which column holds what (default: fname, liveness_score, and the
                                                  columns of label.csv by their names, where they are there)
--invert                                          the label is 1 for attacks: 1 - label is written
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from shards.importers.layout import Options, Row
from shards.text_tables import read_table

OPTIONS = ("columns", "invert")
USUAL = {"video": "fname", "label": "liveness_score"}
OPTIONAL = ("subject", "attack_type", "session", "device", "split", "domain")
WORDS = {"live": 1.0, "real": 1.0, "true": 1.0, "attack": 0.0, "spoof": 0.0, "fake": 0.0, "false": 0.0}


def rows(root: Path, options: Options) -> Iterator[Row]:
    names, records = read_table(root, "ROOT")
    columns = USUAL | {name: name for name in OPTIONAL if name in names} | options.columns
    unknown = sorted(set(options.columns) - {*USUAL, *OPTIONAL})
    if unknown:
        raise UserError(f"--columns {unknown[0]}=…: no such field; there are {', '.join((*USUAL, *OPTIONAL))}")
    for field, column in columns.items():
        if column not in names:
            raise UserError(f"{root}: no column {column!r} (it has: {', '.join(names)}); use --columns {field}=COLUMN")
    for line, cells in records:
        text = {field: cells[column] for field, column in columns.items()}
        label = _label(text.pop("label"), columns["label"], f"{root}, line {line}")
        yield Row(label=1 - label if options.invert else label, **text)


def _label(text: str, column: str, where: str) -> float:
    try:
        return WORDS[text.lower()] if text.lower() in WORDS else float(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, neither a number nor one of {', '.join(WORDS)}") from None
