"""`python -m shards faces DIR`: the face of each clip of a shard folder, into faces.arrow beside the index.

While it is under way the folder holds `.faces/` with a line for each clip that is done, so a killed run continues from
there. faces.arrow is written before dataset.json lists it: a folder never lists what it does not hold. What comes out
does not depend on the number of processes; on a GPU boxes differ by less than a hundredth of a pixel.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from livetrain.core import worker_pool
from livetrain.core.columns import Lazy, Places, Strings, Words, rows_of, whole
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_text
from livetrain.core.progress import progress
from livetrain.core.tables import aligned
from shards.faces.find import ClipTask, FaceOptions, Found, find_in_clip
from shards.format import face_table, index_table, manifest, rejected
from shards.format.face_table import Track
from shards.format.stored_clip import INDEX_COLUMNS, StoredClip
from shards.line_log import LineLog

STATE_FOLDER = ".faces"  # in the shard folder while faces are looked for
MISSING = "faces_missing.csv"


@dataclass(frozen=True)
class Machine:
    """What looks for faces: an engine, and a GPU for the network (`cuda`, with a LocalEngine) or none (`cpu`)."""

    engine: Engine = ONE_PROCESS
    device: str = "cpu"

    def look(self, tasks: Sequence[ClipTask]) -> Iterator[tuple[int, Found | worker_pool.WorkerDied]]:
        """Yield (index of the task, what was found) as clips are done."""
        if self.device == "cpu":
            return self.engine.unordered(find_in_clip, tasks, ("shards.faces.find",))
        from shards.faces.batched import find_in_clips

        return find_in_clips(tasks, self.engine, self.device)


def find_faces(folder: Path, options: FaceOptions, machine: Machine = Machine(), *, overwrite: bool = False) -> str:
    """Write faces.arrow, faces_missing.csv and the new dataset.json of a shard folder; returns the table of counts.

    Continues a stopped run. Raises UserError when the folder is not a finished build, has faces of other options
    (unless `overwrite`), or cannot be written; when the extra is missing.
    """
    try:
        content = manifest.read(folder)
    except ValueError as error:
        raise UserError(f"{folder / manifest.FILE_NAME}: damaged ({error}); build the shards again") from None
    index = index_table.read(folder / index_table.FILE_NAME)
    about = {
        "build": content["request"],
        **options.about(),
    }
    reasons = None if overwrite else _finished(folder, content, about)
    if reasons is None:
        machine = replace(machine, engine=machine.engine.sharing(folder / manifest.FILE_NAME))
        with contextlib.closing(_look(folder, index, content, options, about, machine)) as log:
            found = (_found(log.value(row)) for row in range(len(log)))
            tracks = ((item.track, item.reason) for item in found)
            face_table.write(folder / face_table.FILE_NAME, tracks, about, folder / STATE_FOLDER)
        reasons = _reasons(face_table.read(folder / face_table.FILE_NAME)[0])
        content = manifest.read(folder)  # others may have added to it meanwhile
        content["files"][face_table.FILE_NAME] = file_sha256(folder / face_table.FILE_NAME)
        manifest.write(folder, content)
        shutil.rmtree(folder / STATE_FOLDER)
    _write_missing(folder / MISSING, index, reasons)
    return table_text(index, np.fromiter(map(bool, reasons), bool, len(reasons)))


def table_text(index: pa.Table, missing: NDArray[np.bool_]) -> str:
    """Clips with a face and without, by split and class. `missing`: bool [num_samples]."""
    live = index["label"].to_numpy() >= 0.5
    splits = Words(whole(index["split"].unify_dictionaries()))
    counts = Counter(zip(splits, ~live, missing, strict=True))
    rows = [
        (split, "attack" if attack else "live", counts[split, attack, False], counts[split, attack, True])
        for split, attack in sorted({key[:2] for key in counts})
    ]
    return aligned(("split", "class", "face", "no face"), rows, num_names=2)


def _reasons(table: pa.Table) -> Words:
    return Words.of(row["reason"] for row in rows_of(table.select(["reason"])))


def _finished(folder: Path, content: dict[str, Any], about: dict[str, Any]) -> Words | None:
    """The reasons for missing faces when the folder has faces already; UserError if they were found in another way."""
    if face_table.FILE_NAME not in content["files"]:
        return None
    try:
        table, known = face_table.read(folder / face_table.FILE_NAME)
    except (FileNotFoundError, UserError):
        return None  # damaged: made again
    if known["build"] != about["build"]:
        return None
    changed = [name for name, value in about.items() if known.get(name) != value]
    if changed:
        message = ", ".join(f"{name}: {known.get(name)}" for name in changed)
        raise UserError(f"{folder}: has faces found in another way ({message}); give --overwrite to replace them")
    return _reasons(table)


def _look(
    folder: Path,
    index: pa.Table,
    content: dict[str, Any],
    options: FaceOptions,
    about: dict[str, Any],
    machine: Machine,
) -> LineLog:
    """The face of each clip, as `_line`; those that a stopped run has found are not looked for again."""
    state = folder / STATE_FOLDER
    path = state / "clips.jsonl"
    request = json.dumps(about, sort_keys=True)
    try:
        state.mkdir(exist_ok=True)
        with (state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process looks for faces there; wait for it") from None
            log = _log(path, request, index)
            missing = log.missing()
            todo = Lazy(len(missing), lambda number: _task(folder, index, content, options, int(missing[number])))
            with log.appending(path) as write, progress("faces", len(missing), "clips") as advance:
                for position, result in machine.look(todo):
                    if isinstance(result, worker_pool.WorkerDied):
                        result = Found(None, "the detector crashed on it")
                    row = int(missing[position])
                    write(row, _line(key := index["key"][row].as_py(), result))
                    advance(1, key)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; free some space and run it again") from error
    return log


def _task(folder: Path, index: pa.Table, content: dict[str, Any], options: FaceOptions, row: int) -> ClipTask:
    (values,) = index.select(list(INDEX_COLUMNS)).slice(row, 1).to_pylist()
    return ClipTask(StoredClip.of(folder, content, values), options)


def _log(path: Path, request: str, index: pa.Table) -> LineLog:
    """What a stopped run has found, after a line with its request; nothing if it was another one."""
    log = LineLog(len(index))
    first = f"{request}\n".encode()
    with path.open("ab+") as file:
        file.seek(0)
        if file.read(len(first)) != first:
            file.truncate(0)
            file.write(first)
    keys = Strings(whole(index["key"]))
    places = Places(keys)
    log.load(path, lambda line: places.exact(line[0], keys), start=len(first))
    return log


def _line(key: str, found: Found) -> list[Any]:
    track = found.track
    values = None if track is None else [track.frames.tolist(), track.boxes.tolist(), track.scores.tolist()]
    return [key, values, found.reason]


def _found(line: list[Any]) -> Found:
    """What `_line` was made of."""
    _, values, reason = line
    if values is None:
        return Found(None, reason)
    frames, boxes, scores = values
    return Found(Track(np.array(frames, np.int32), np.array(boxes, np.float32), np.array(scores, np.float32)), reason)


def _write_missing(path: Path, index: pa.Table, reasons: Sequence[str]) -> None:
    rows = [row for row, reason in enumerate(reasons) if reason]
    if not rows:
        path.unlink(missing_ok=True)
        return
    values = index.select([name for name in rejected.COLUMNS if name != "reason"]).take(pa.array(rows, pa.int64()))
    of = zip(values.to_pylist(), rows, strict=True)
    write_text(path, rejected.text(item | {"label": f"{item['label']:g}", "reason": reasons[row]} for item, row in of))
