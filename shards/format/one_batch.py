"""Arrow files of one record batch, so that a column is one piece of the mapped file, written in little memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from livetrain.core.columns import whole
from livetrain.core.files import atomic_write


def write(path: Path, table: pa.Table) -> None:
    """Write a table atomically."""
    with atomic_write(path) as temporary:
        _write_file(temporary, [table.combine_chunks()], table.schema)


def write_joined(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, scratch: Path) -> None:
    """Write the rows of tables one after the other: the bytes that `write` of all of them has.

    In memory is one column at a time; the rest waits in files of the folder `scratch`, which are removed.
    """
    # A file of several batches has a dictionary once, so words wait as texts.
    plain = pa.schema([column.with_type(_plain(column.type)) for column in schema])
    names = [scratch / f"column-{number}.arrow" for number in range(len(schema))]
    rows = scratch / "rows.arrow"
    try:
        _write_file(rows, (table.cast(plain) for table in tables), plain)
        for column, name in zip(schema, names, strict=True):
            _write_column(rows, column, name)
        columns = [mapped(name).column(0) for name in names]
        write(path, pa.Table.from_arrays(columns, schema=schema))
    finally:
        for name in (rows, *names):
            name.unlink(missing_ok=True)


def mapped(path: Path) -> pa.Table:
    """Map a file into memory. Raises FileNotFoundError, pa.ArrowInvalid, OSError."""
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _write_column(rows: Path, column: pa.Field, path: Path) -> None:
    """A column of the rows as a file of its own, in one piece."""
    values = whole(mapped(rows)[column.name])
    if pa.types.is_dictionary(column.type):
        values = values.dictionary_encode()  # in pieces each would have the words of all before it
    schema = pa.schema([column])
    _write_file(path, [pa.Table.from_arrays([values], schema=schema)], schema)


def _write_file(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
