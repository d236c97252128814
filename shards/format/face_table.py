"""faces.arrow: the main face's track of each clip, row for row beside index.arrow.

An Arrow IPC file that readers map into memory. Its metadata names the build it belongs to and how it was made. It is
listed with its SHA-256 in dataset.json; index.arrow knows nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from livetrain.core.columns import batches
from livetrain.core.errors import UserError
from shards.format import one_batch

FILE_NAME = "faces.arrow"
FORMAT = 1
_KEY = b"livetrain_faces"


@dataclass(frozen=True)
class Track:
    """A face at k frames.

    frames: int32 [k], ascending. boxes: float32 [k, 4], top, left, bottom, right in [0, 1] of the upright frame,
    smoothed. scores: float32 [k], of the detection; 0 where there was none and the box is filled in.
    """

    frames: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))


SCHEMA = pa.schema(
    [  # as Track; lists of no entry: no face
        pa.field("frames", _list(pa.int32()), nullable=False),
        pa.field("boxes", _list(pa.float32()), nullable=False),  # four numbers a frame, one box after the other
        pa.field("scores", _list(pa.float32()), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # why there is no face; "" where there is one
    ]
)


def write(path: Path, found: Iterable[tuple[Track | None, str]], about: Mapping[str, Any], scratch: Path) -> None:
    """Write tracks, and reasons where there is none, atomically and in little memory.

    `about` (JSON) is the metadata; the same content gives the same bytes. scratch: a folder for what waits.
    """
    text = json.dumps({"format": FORMAT, **about}, sort_keys=True)
    schema = SCHEMA.with_metadata({_KEY: text.encode()})
    one_batch.write_joined(path, map(_table, batches(found)), schema, scratch)


def _table(found: Sequence[tuple[Track | None, str]]) -> pa.Table:
    tracks, reasons = [track for track, _ in found], [reason for _, reason in found]
    columns = [
        pa.array([[] if t is None else t.frames for t in tracks], SCHEMA.field("frames").type),
        pa.array([[] if t is None else t.boxes.reshape(-1) for t in tracks], SCHEMA.field("boxes").type),
        pa.array([[] if t is None else t.scores for t in tracks], SCHEMA.field("scores").type),
        pa.array(reasons, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Map a faces.arrow into memory: a table of SCHEMA, and what `write` recorded about it.

    Raises FileNotFoundError; UserError when it is no such file.
    """
    try:
        table = one_batch.mapped(path)
        about = json.loads((table.schema.metadata or {})[_KEY])
        known = about["format"] == FORMAT and table.schema.equals(SCHEMA)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path}: not a file of faces that this version reads; run python -m shards faces again")
    return table, about
