"""One shard folder of a data set: its name there, where it is, and what it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from livetrain.config import DataConfig
from livetrain.core.errors import UserError
from livetrain.core.remote import Folder
from livetrain.data.shard_reader import ShardReader, open_reader
from shards.format import index_table, rejected
from shards.format import manifest as manifest_


@dataclass(frozen=True)
class ShardSet:
    """One shard folder of a data set: its name there, where it is, what it holds, and the row that is its first."""

    name: str
    root: Folder
    manifest: dict[str, Any]
    reader: ShardReader = field(repr=False)
    first_row: int = 0


def open_shard_set(where: str | Path, config: DataConfig) -> ShardSet:
    """Open the shard folder `where`, a path or a URL. Raises UserError when it is not a finished one of this format."""
    reader = open_reader(where, config)
    root = reader.root
    try:
        manifest = json.loads(reader.manifest_text())
    except FileNotFoundError:
        raise UserError(
            f"{root} holds no finished shards (no dataset.json): build them with "
            f"`python -m shards build --videos DIR --labels label.csv --out {root}`, or set data.shards"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{root / 'dataset.json'} cannot be read ({error}); build the shards again") from None
    return ShardSet("", root, manifest_.upgraded(manifest, root / manifest_.FILE_NAME), reader)


def shard_name(shard_set: ShardSet, shard: int) -> str:
    return str(shard_set.manifest["shards"][shard]["name"])


def read_rejected(shard_set: ShardSet) -> list[dict[str, str]]:
    """The rows of rejected.csv. Raises UserError without it."""
    try:
        with shard_set.reader.file(rejected.FILE_NAME) as path:
            return rejected.read(path)
    except FileNotFoundError:
        raise UserError(
            f"{shard_set.root / rejected.FILE_NAME} is missing: without it failures to acquire cannot be counted; "
            "build the shards again"
        ) from None


def with_domain(table: pa.Table, name: str) -> pa.Table:
    """The index of a folder, with `name` instead of an empty domain."""
    column = table["domain"].chunk(0)
    words = [word or name for word in column.dictionary.to_pylist()]
    if len(set(words)) < len(words):
        raise UserError(
            f"data.sources: {name} has clips of the domain {name!r} and clips without; build it with --domain"
        )
    changed = pa.DictionaryArray.from_arrays(column.indices, pa.array(words, pa.string()))
    return table.set_column(table.schema.get_field_index("domain"), index_table.SCHEMA.field("domain"), changed)
