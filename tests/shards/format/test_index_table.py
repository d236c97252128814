"""index.arrow: rows of many shards joined in little memory are the same file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shards.format import index_table, one_batch


@pytest.mark.parametrize("cuts", [[], [17], [1, 1, 40], [0]])
def test_rows_that_are_joined_are_the_file_of_all(demo_shards: Path, tmp_path: Path, cuts: list[int]) -> None:
    whole = index_table.read(demo_shards / "index.arrow")
    rows, tables = whole.to_pylist(), []
    for cut in cuts:
        tables.append(index_table.of_rows(rows[:cut]))
        rows = rows[cut:]
    tables.append(index_table.of_rows(rows))
    index_table.write_joined(tmp_path / "joined.arrow", iter(tables), tmp_path)
    index_table.write(tmp_path / "at-once.arrow", whole.to_pylist())
    assert (tmp_path / "joined.arrow").read_bytes() == (tmp_path / "at-once.arrow").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"joined.arrow", "at-once.arrow"}, "what waited is removed"
    assert all(column.num_chunks == 1 for column in index_table.read(tmp_path / "joined.arrow").columns)


def test_of_no_rows_too(tmp_path: Path) -> None:
    index_table.write_joined(tmp_path / "index.arrow", [], tmp_path)
    assert index_table.read(tmp_path / "index.arrow").num_rows == 0


def test_what_waits_is_removed_after_a_failure(demo_shards: Path, tmp_path: Path) -> None:
    def tables() -> object:
        yield index_table.read(demo_shards / "index.arrow")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        index_table.write_joined(tmp_path / "index.arrow", tables(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_words_are_those_of_arrow() -> None:
    assert index_table.words(["b", "a", "b"]).equals(pa.array(["b", "a", "b"], index_table.WORD))


def test_joining_tables_of_other_people_each_takes_the_memory_of_one_column(tmp_path: Path) -> None:
    schema = pa.schema([("person", pa.dictionary(pa.int32(), pa.string()))])
    count, rows = 100, 1000

    def table(number: int) -> pa.Table:
        return pa.table({"person": pa.array(f"person {number * rows + row}" for row in range(rows))}).cast(schema)

    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        one_batch.write_joined(tmp_path / "joined.arrow", map(table, range(count)), schema, tmp_path)
    finally:
        pa.set_memory_pool(usual)
    found = one_batch.mapped(tmp_path / "joined.arrow")["person"]
    assert found.num_chunks == 1 and len(found.chunk(0).dictionary) == len(found) == count * rows
    assert pool.max_memory() < 250 * len(found), "bytes; 550 with a dictionary for each table, and more with more"
