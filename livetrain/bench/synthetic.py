"""Shard folders of any number of samples that cost next to no disk but the index: every shard is a link to a real one.

A sample of the large folder is one of the real folder under another key, so its bytes are real and its CRC-32 holds.
Its SHA-256 is made up: no two samples are copies of each other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from livetrain.core.files import file_sha256
from livetrain.data import Dataset
from shards.format import index_table, manifest, rejected
from shards.format.tar import shard_name


def make_folder(real: Path, out: Path, num_samples: int, num_shards: int) -> Path:
    """A shard folder `out` of `num_samples` samples in `num_shards` shards, all of them the first shard of `real`."""
    if (out / manifest.FILE_NAME).exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    source = Dataset.open(real)
    first = np.flatnonzero(source.column("shard") == 0)
    numbers = np.arange(num_samples, dtype=np.int64)
    columns = {name: _repeated(source.columns[name].take(first), num_samples) for name in index_table.SCHEMA.names}
    columns["shard"] = pa.array((numbers * num_shards // num_samples).astype(np.int32))
    columns["key"] = pa.array(numbers).cast(pa.string())
    columns["video"] = columns["key"]
    columns["sha256"] = pc.utf8_lpad(columns["key"].cast(pa.large_string()), 64, "0").cast(pa.string())
    columns["subject"] = pa.array(numbers // 100).cast(pa.string())
    index_table.write_table(out / index_table.FILE_NAME, pa.Table.from_pydict(columns, schema=index_table.SCHEMA))
    content = manifest.read(real)
    shard = content["shards"][0]
    for number in range(num_shards):
        target = out / f"{shard_name(number)}.tar"
        target.unlink(missing_ok=True)
        os.link(real / shard["name"], target)
    content["shards"] = [shard | {"name": f"{shard_name(number)}.tar"} for number in range(num_shards)]
    content["num_samples"] = num_samples
    shutil.copyfile(real / rejected.FILE_NAME, out / rejected.FILE_NAME)
    content["files"] = {name: file_sha256(out / name) for name in (index_table.FILE_NAME, rejected.FILE_NAME)}
    manifest.write(out, content)
    return out


def _repeated(column: pa.ChunkedArray, count: int) -> pa.ChunkedArray:
    return column.take(np.arange(count, dtype=np.int64) % len(column))
