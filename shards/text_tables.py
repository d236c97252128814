"""CSV and Parquet files that people write, as rows of text; complaints name the file and the line."""

from __future__ import annotations

import csv
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from livetrain.core.errors import UserError

PARQUET = (".parquet", ".pq")

Record = tuple[int, dict[str, str]]  # line number, cells by column


def read_table(path: Path, option: str = "--labels") -> tuple[list[str], list[Record]]:
    """As `open_table`, all rows at once."""
    header, records = open_table(path, option)
    return header, list(records)


def open_table(path: Path, option: str = "--labels") -> tuple[list[str], Iterator[Record]]:
    """Header and rows of a CSV or Parquet file, whose first row is line 1; a batch of them is in memory at once.

    Cells are stripped, and in Unicode's form NFC: a name that macOS or zip took apart is the same name. Blank lines are
    left out, as are nested columns of Parquet. option: what complaints call the file. Raises UserError, also while rows
    are taken.
    """
    rows = (_parquet if path.suffix.lower() in PARQUET else _csv)(path, option)
    header = next(rows)[1]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!r} appears twice in the header; rename one")
    records = _records(path, header, rows)
    return header, itertools.chain([next(records)], records)


def clean(text: str) -> str:
    """Without blanks around it, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text.strip())


def _records(path: Path, header: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    line = 0
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells, the header has {len(header)}; put quotes around cells that "
                "hold a comma"
            )
        yield line, {name: clean(cell) for name, cell in zip(header, cells, strict=True)}
    if not line:
        raise UserError(f"{path}: holds no row; expected a header such as fname,liveness_score and a row a video")


def _parquet(path: Path, option: str) -> Iterator[tuple[int, list[str]]]:
    """The header as line 0, then the rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            flat = [item.name for item in file.schema_arrow if not pa.types.is_nested(item.type)]
            yield 0, flat
            first = 1
            for batch in file.iter_batches(columns=flat):
                columns = [pc.cast(batch[name], pa.string()).to_pylist() for name in flat]
                for line, cells in enumerate(zip(*columns, strict=True), first):
                    yield line, [cell or "" for cell in cells]
                first += len(batch)
    except FileNotFoundError as error:
        raise UserError(f"{option} {path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{option} {path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error


def _csv(path: Path, option: str) -> Iterator[tuple[int, list[str]]]:
    """The header as line 0, then the rows that are not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            header = [clean(cell) for cell in next(reader, [])]
            if header and header[0].startswith("sep="):
                raise UserError(f"{option} {path}: its first line, {','.join(header)!r}, is for Excel alone; remove it")
            if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
                sign = "semicolons" if ";" in header[0] else "tabs"
                raise UserError(f"{option} {path}: its columns are separated by {sign}; save it with commas")
            yield 0, header
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except FileNotFoundError as error:
        raise UserError(f"{option} {path}: no such file") from error
    except OSError as error:
        raise UserError(f"{option} {path}: cannot read it: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {path}: not UTF-8 text (see byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{option} {path}: not a CSV file: {error}") from error
