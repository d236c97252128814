"""The index of several shard folders as one: the processes of a node map one file of it.

Small ones are joined in each process's memory; from FEW_ROWS on, whoever comes first writes the file into the shard
cache, named by what is in it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from livetrain.config import DataConfig
from livetrain.core.errors import UserError
from livetrain.data.cache import Cache, folder_of, key_of
from shards.format import index_table

FEW_ROWS = 100_000


def joined(tables: Sequence[pa.Table], digest: str, config: DataConfig) -> pa.Table:
    """Tables of index_table.SCHEMA one after the other. digest: SHA-256 of what they are made of."""
    if sum(map(len, tables)) < FEW_ROWS:
        return pa.concat_tables(tables).unify_dictionaries()
    try:
        cache = Cache(folder_of(config), int(config.cache_gb * 1e9))
    except UserError as error:
        print(f"{error}; until then each process holds the whole index", file=sys.stderr)
        return pa.concat_tables(tables).unify_dictionaries()
    key = key_of("", digest, index_table.FILE_NAME)
    with cache.locked(key):
        if not cache.touch(key):
            with tempfile.TemporaryDirectory(dir=cache.folder) as scratch:
                index_table.write_joined(cache.path(key), tables, Path(scratch))
        return index_table.read(cache.path(key))
