"""Looks at all clips, in files that are mapped into memory: a million clips take 35 GB of disk and little memory.

While an audit is under way `OUT.state/` holds parts of a few hundred clips each, so that a killed one continues. What
comes out does not depend on the number of processes.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from livetrain.core import worker_pool
from livetrain.core.engines import Engine
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write, write_text
from livetrain.core.progress import progress
from shards.audit import picture_cues
from shards.audit.alignment import SIDE, Thumbnails
from shards.audit.clips import Clips
from shards.audit.look import Look, LookTask, look_at
from shards.format.stored_clip import INDEX_COLUMNS, StoredClip

VERSION = 1  # of a look: what another version has kept is looked at again
PART = 256  # clips
TASKS = 20_000  # made at a time

_FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("problem", pa.string()),
        ("thumbnails", pa.binary()),
        ("seconds", _FLOATS),
        *((f"cue_{name}", _FLOATS) for name in picture_cues.NUMBERS),
        ("picture", pa.binary()),
        ("extremes", _FLOATS),
        ("num_faces", pa.list_(pa.int32())),
        ("face_height", pa.float32()),
        ("identity", _FLOATS),
    ]
)


class LookTable:
    """The looks at n clips, by the clips' rows."""

    def __init__(self, state: Path) -> None:
        """state: the folder of a finished `look_at_all`."""
        self.state = state
        self._table = pa.concat_tables([_read(path) for path in sorted(state.glob("part-*.arrow"))])
        self._places = np.argsort(self._table["row"].to_numpy())

    def __len__(self) -> int:
        return len(self._places)

    def thumbnails(self, row: int) -> NDArray[np.uint8]:
        """uint8 [t, SIDE, SIDE]; t is 0 for a clip that could not be decoded."""
        return np.frombuffer(self._cell("thumbnails", row).as_buffer(), np.uint8).reshape(-1, SIDE, SIDE)

    def aligned_by(self, row: int) -> Thumbnails:
        """What `shards.audit.alignment` takes."""
        seconds = np.asarray(self._cell("seconds", row).as_py(), np.float64)
        return Thumbnails(self.thumbnails(row).astype(np.float32), seconds)

    def picture(self, row: int) -> bytes:
        """A small JPEG of the clip, b"" where it could not be decoded."""
        return bytes(self._cell("picture", row).as_py())

    def problems(self) -> list[str]:
        """Why clips could not be decoded, "" for those that could."""
        return [self._table["problem"][int(place)].as_py() for place in self._places]

    def numbers(self, name: str, width: int) -> NDArray[np.float64]:
        """A column of lists as float64 [n, width], NaN where a list is shorter."""
        found = np.full((len(self), width), np.nan)
        values = self._table[name].take(pa.array(self._places)).to_pylist()
        for row, numbers in enumerate(values):
            some = (numbers if isinstance(numbers, list) else [numbers])[:width]
            found[row, : len(some)] = [np.nan if number is None else number for number in some]
        return found

    def _cell(self, name: str, row: int) -> Any:
        return self._table[name][int(self._places[row])]


def look_at_all(clips: Clips, state: Path, *, faces: bool, engine: Engine) -> LookTable:
    """Look at every clip once; continues what a stopped audit of the same clips has left in `state`.

    Raises UserError when `state` cannot be written, or another process is at it.
    """
    request = {
        "version": VERSION, "faces": faces, "cues": dict(picture_cues.NUMBERS),
        "builds": [content["files"] for content in clips.contents],
    }  # fmt: skip
    try:
        with _claimed(state, json.dumps(request, sort_keys=True)):
            done = _rows_done(state)
            missing = [row for row in range(len(clips)) if row not in done]
            number = len(list(state.glob("part-*.arrow")))
            with progress("clips", len(clips), "clips", start=len(done)) as advance:
                for first in range(0, len(missing), TASKS):
                    rows = missing[first : first + TASKS]
                    waiting: list[tuple[int, Look]] = []
                    for place, result in engine.unordered(
                        look_at, list(_tasks(clips, rows, faces)), ("shards.audit.look",)
                    ):
                        if isinstance(result, worker_pool.WorkerDied):
                            result = Look(problem="the decoder crashed on it")
                        waiting.append((rows[place], result))
                        advance()
                        if len(waiting) == PART:
                            _write(state / f"part-{number:06d}.arrow", waiting)
                            number, waiting = number + 1, []
                    if waiting:
                        _write(state / f"part-{number:06d}.arrow", waiting)
                        number += 1
    except OSError as error:
        raise UserError(f"cannot write {state}: {error.strerror or error}; free some space and run it again") from error
    return LookTable(state)


def _tasks(clips: Clips, rows: list[int], faces: bool) -> Iterator[LookTask]:
    table = clips.index.select([*INDEX_COLUMNS, "fps", "frame_seconds"]).take(pa.array(rows, pa.int64()))
    for row, values in zip(rows, table.to_pylist(), strict=True):
        number = int(clips.folder[row])
        clip = StoredClip.of(clips.folders[number], clips.contents[number], values)
        yield LookTask.of(clip, values, faces=faces)


@contextmanager
def _claimed(state: Path, request: str) -> Iterator[None]:
    """A folder for one audit alone; what another one has left in it is removed."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{state}: another audit is writing there; wait for it, or choose another --out") from None
        known = state / "request.json"
        if not known.exists() or known.read_text(encoding="utf-8") != request:
            for path in state.glob("part-*.arrow"):
                path.unlink()
            write_text(known, request)
        yield


def _rows_done(state: Path) -> set[int]:
    """The rows of all whole parts; a part that is not readable is removed."""
    done: set[int] = set()
    for path in sorted(state.glob("part-*.arrow")):
        try:
            done.update(_read(path)["row"].to_pylist())
        except (pa.ArrowInvalid, OSError):
            path.unlink()
    return done


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def _write(path: Path, looks: list[tuple[int, Look]]) -> None:
    table = pa.Table.from_pylist([_row(row, look) for row, look in looks], schema=SCHEMA)
    with atomic_write(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as out:
        out.write_table(table)


def _row(row: int, look: Look) -> Mapping[str, Any]:
    return {
        "row": row,
        "problem": look.problem,
        "thumbnails": look.thumbnails.tobytes(),
        "seconds": look.seconds.tolist(),
        **{f"cue_{name}": list(look.cues.get(name, ())) for name in picture_cues.NUMBERS},
        "picture": look.picture,
        "extremes": list(look.extremes),
        "num_faces": list(look.num_faces),
        "face_height": look.face_height,
        "identity": look.identity.tolist(),
    }
