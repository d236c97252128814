"""index.arrow and index.parquet: the index of a shard folder, one row a sample in (shard, position) order.

The first is an Arrow IPC file, uncompressed, so that the processes of a node map one copy of ten million rows;
`livetrain.data` reads it through `read`. The second has the same rows for everybody else's tools (pandas, DuckDB,
Spark); livetrain only writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from livetrain.core.columns import Words
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write
from shards.format import one_batch

FILE_NAME = "index.arrow"
PARQUET_NAME = "index.parquet"
FORMAT = 6
RENAMED = {"group": "subject"}  # since format 5, in which nothing else was different


def _field(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


WORD = pa.dictionary(pa.int32(), pa.string())  # few different values: compared as numbers, ten million in no time


SCHEMA = pa.schema(
    [
        _field("key", pa.string()),  # the name of the sample's members in the tar
        _field("video", pa.string()),  # path of the original, relative to the video folder
        _field("label", pa.float32()),  # in [0, 1], live = 1, NaN = unlabelled
        _field("attack_type", WORD),  # "live", or the PAI species; "attack" when unknown
        _field("subject", WORD),  # the person, within the domain; "" when unknown
        _field("session", WORD),
        _field("device", WORD),
        _field("domain", WORD),  # the data set; "" when unknown
        _field("split", WORD),
        _field("shard", pa.int32()),
        _field("offset", pa.int64()),  # of the first payload byte of the first media member
        _field("size", pa.int64()),  # bytes to the end of the last media member's payload
        _field("frame_sizes", pa.list_(pa.field("item", pa.int32(), nullable=False))),  # of JPEGs; empty for videos
        _field("crc32", pa.list_(pa.field("item", pa.uint32(), nullable=False))),  # of each media member's payload
        _field("store", WORD),  # that was used: see shards.stores
        _field("num_frames", pa.int32()),  # that decoding yields, or JPEGs stored
        _field("fps", pa.float32()),  # average
        _field("duration_seconds", pa.float32()),
        _field("width", pa.int32()),  # before rotation
        _field("height", pa.int32()),
        _field("rotation", pa.int16()),  # clockwise degrees (0, 90, 180, 270) that make a frame upright
        _field("coded_width", pa.int32()),  # of a decoded frame; the picture is width x height of it, at its upper left
        _field("coded_height", pa.int32()),
        _field("sample_aspect_ratio", pa.float32()),  # a pixel's width over its height, before rotation
        _field("codec", WORD),
        _field("pixel_format", WORD),  # FFmpeg's name
        _field("is_interlaced", pa.int8()),  # 1 where any frame is; Arrow's own booleans are bits, no NumPy array
        _field("is_regular", pa.int8()),  # see shards.format.probe.Probe
        _field("matrix", WORD),  # of YUV to RGB: see shards.format.colour; "rgb" where there is none
        _field("is_full_range", pa.int8()),
        _field("transfer", WORD),  # "sdr", "pq" or "hlg"
        _field("is_range_coded", pa.int8()),  # see shards.format.probe.Probe
        _field("check", WORD),  # "decode", or "probe": all but its first frame known from the packets alone
        _field("frame_numbers", pa.list_(pa.field("item", pa.int32(), nullable=False))),  # of JPEGs, in the original
        # After its first frame: of JPEGs, and of videos whose frames are not evenly spaced (see Probe).
        _field("frame_seconds", pa.list_(pa.field("item", pa.float32(), nullable=False))),
        _field("sha256", pa.string()),  # of the original video file
    ],
    metadata={"livetrain_index": str(FORMAT)},
)
_OLD_NAMES = {new: old for old, new in RENAMED.items()}
_FORMAT_5 = pa.schema([column.with_name(_OLD_NAMES.get(column.name, column.name)) for column in SCHEMA]).with_metadata(
    {"livetrain_index": "5"}
)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows (mappings with the keys of SCHEMA) atomically; the same rows give the same bytes."""
    write_table(path, of_rows(rows))


def of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows (mappings with the keys of SCHEMA) as a table: a tenth of the memory that they take as objects."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table of SCHEMA atomically, as one record batch."""
    one_batch.write(path, table.cast(SCHEMA))


def write_joined(path: Path, tables: Iterable[pa.Table], scratch: Path) -> None:
    """Write the rows of tables of SCHEMA one after the other, in little memory; `scratch`: a folder for what waits."""
    one_batch.write_joined(path, tables, SCHEMA, scratch)


def words(texts: Iterable[str]) -> pa.Array:
    """A column of WORD."""
    found = Words.of(texts).array
    return pa.DictionaryArray.from_arrays(found.indices, found.dictionary.cast(pa.string()))


def write_parquet(path: Path, index: Path) -> None:
    """Write the rows of an index.arrow as Parquet, atomically; the same rows give the same bytes."""
    with atomic_write(path) as temporary:
        pa.parquet.write_table(read(index), temporary, compression="zstd", row_group_size=1 << 17)


def read(path: Path) -> pa.Table:
    """Map an index.arrow into memory as a table of SCHEMA.

    Columns of format 5 are renamed. Raises UserError when the file is missing, is no Arrow file or has other columns.
    """
    try:
        table = one_batch.mapped(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; build the shards first: python -m shards build") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable index ({error}); run python -m shards verify {path.parent}") from error
    if table.schema.equals(_FORMAT_5, check_metadata=True):
        return pa.Table.from_arrays(table.columns, schema=SCHEMA)
    if not table.schema.equals(SCHEMA, check_metadata=True):
        raise UserError(
            f"{path}: has other columns than this version writes; build the shards again: python -m shards build"
        )
    return table
