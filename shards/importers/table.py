"""A CSV or Parquet file with a row a video; ROOT is the file.

--columns label=spoof video=path subject=user …   which column holds what (default: fname, liveness_score, and the
                                                  columns of label.csv by their names, where they are there)
--invert                                          the label is 1 for attacks: 1 - label is written
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from livetrain.errors import UserError
from shards.importers.layout import Options, Row

OPTIONS = ("columns", "invert")
USUAL = {"video": "fname", "label": "liveness_score"}
OPTIONAL = ("subject", "attack_type", "session", "device", "split", "domain")
WORDS = {"live": 1.0, "real": 1.0, "true": 1.0, "attack": 0.0, "spoof": 0.0, "fake": 0.0, "false": 0.0}


def rows(root: Path, options: Options) -> Iterator[Row]:
    names, cells = _read(root)
    columns = USUAL | {name: name for name in OPTIONAL if name in names} | options.columns
    unknown = sorted(set(options.columns) - {*USUAL, *OPTIONAL})
    if unknown:
        raise UserError(f"--columns {unknown[0]}=…: no such field; there are {', '.join((*USUAL, *OPTIONAL))}")
    for field, column in columns.items():
        if column not in names:
            raise UserError(f"{root}: no column {column!r} (it has: {', '.join(names)}); use --columns {field}=COLUMN")
    for number in range(len(cells[columns["video"]])):
        text = {field: cells[column][number] for field, column in columns.items()}
        label = _label(text.pop("label"), columns["label"], f"{root}, row {number + 1}")
        yield Row(label=1 - label if options.invert else label, **text)


def _read(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The columns' names, and their cells as text; a null is empty."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            read = parquet.read_table(path)
        else:
            # As text: a subject 007 is not the number 7.
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline().rstrip("\r\n").split(",")
            types = {name.strip().strip('"'): pa.string() for name in header}
            read = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
    except FileNotFoundError:
        raise UserError(f"ROOT {path}: no such file; a table is a CSV or Parquet file") from None
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise UserError(f"ROOT {path}: cannot be read as a table: {' '.join(str(error).split())}") from None
    return read.column_names, {
        name: ["" if cell is None else cell.strip() for cell in pc.cast(column, pa.string()).to_pylist()]
        for name, column in zip(read.column_names, read.columns, strict=True)
    }


def _label(text: str, column: str, where: str) -> float:
    try:
        return WORDS[text.lower()] if text.lower() in WORDS else float(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, neither a number nor one of {', '.join(WORDS)}") from None
