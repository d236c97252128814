"""`python -m shards faces DIR`: the face of each clip of a shard folder, into faces.arrow beside the index.

While it is under way the folder holds `.faces/` with a line for each clip that is done, so a killed run continues from
there. faces.arrow is written before dataset.json lists it: a folder never lists what it does not hold. What comes out
does not depend on the number of processes; on a GPU boxes differ by less than a hundredth of a pixel.
"""

from __future__ import annotations

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
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_text
from livetrain.core.progress import progress
from shards.faces.find import ClipTask, FaceOptions, Found, find_in_clip
from shards.format import face_table, index_table, manifest, rejected
from shards.format.face_table import Track
from shards.format.stored_clip import INDEX_COLUMNS, StoredClip

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
        found = _look(folder, index, content, options, about, machine)
        reasons = [item.reason for item in found]
        face_table.write(folder / face_table.FILE_NAME, [item.track for item in found], reasons, about)
        content = manifest.read(folder)  # others may have added to it meanwhile
        content["files"][face_table.FILE_NAME] = file_sha256(folder / face_table.FILE_NAME)
        manifest.write(folder, content)
        shutil.rmtree(folder / STATE_FOLDER)
    _write_missing(folder / MISSING, index, reasons)
    return table_text(index, np.array([bool(reason) for reason in reasons]))


def table_text(index: pa.Table, missing: NDArray[np.bool_]) -> str:
    """Clips with a face and without, by split and class. `missing`: bool [num_samples]."""
    live = index["label"].to_numpy() >= 0.5
    counts = Counter(zip(index["split"].to_pylist(), (~live).tolist(), missing.tolist(), strict=True))
    lines = [f"{'split':<8}{'class':<8}{'face':>9}{'no face':>9}"]
    for split, attack in sorted({key[:2] for key in counts}):
        numbers = (counts[split, attack, False], counts[split, attack, True])
        lines.append(f"{split:<8}{'attack' if attack else 'live':<8}" + "".join(f"{n:>9,}" for n in numbers))
    return "\n".join(lines)


def _finished(folder: Path, content: dict[str, Any], about: dict[str, Any]) -> list[str] | None:
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
    return table["reason"].to_pylist()


def _look(
    folder: Path,
    index: pa.Table,
    content: dict[str, Any],
    options: FaceOptions,
    about: dict[str, Any],
    machine: Machine,
) -> list[Found]:
    """The face of each clip; those that a stopped run has found are not looked for again."""
    state = folder / STATE_FOLDER
    log = state / "clips.jsonl"
    tasks = _tasks(folder, index, content, options)
    keys = index["key"].to_pylist()
    request = json.dumps(about, sort_keys=True)
    try:
        state.mkdir(exist_ok=True)
        with (state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process looks for faces there; wait for it") from None
            known = _read_log(log, request)
            if not known:
                log.write_text(request + "\n", encoding="utf-8")
            missing = [row for row, key in enumerate(keys) if key not in known]
            with log.open("a", encoding="utf-8") as file, progress("faces", len(missing), "clips") as advance:
                todo = [tasks[row] for row in missing]
                for position, result in machine.look(todo):
                    if isinstance(result, worker_pool.WorkerDied):
                        result = Found(None, "the detector crashed on it")
                    key = keys[missing[position]]
                    known[key] = result
                    file.write(_log_line(key, result) + "\n")
                    file.flush()
                    advance(1, key)
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror or error}; free some space and run it again") from error
    return [known[key] for key in keys]


def _tasks(folder: Path, index: pa.Table, content: dict[str, Any], options: FaceOptions) -> list[ClipTask]:
    rows = index.select(list(INDEX_COLUMNS)).to_pylist()
    return [ClipTask(StoredClip.of(folder, content, row), options) for row in rows]


def _log_line(key: str, found: Found) -> str:
    track = found.track
    values = None if track is None else [track.frames.tolist(), track.boxes.tolist(), track.scores.tolist()]
    return json.dumps([key, values, found.reason])


def _read_log(path: Path, request: str) -> dict[str, Found]:
    """What a stopped run has found, by key; nothing if it was of another request."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    if not lines or lines[0] != request:
        return {}
    known = {}
    for line in lines[1:]:
        try:
            key, values, reason = json.loads(line)
        except ValueError:
            continue  # the line that was being written
        track = None
        if values is not None:
            frames, boxes, scores = values
            track = Track(np.array(frames, np.int32), np.array(boxes, np.float32), np.array(scores, np.float32))
        known[key] = Found(track, reason)
    return known


def _write_missing(path: Path, index: pa.Table, reasons: Sequence[str]) -> None:
    rows = [row for row, reason in enumerate(reasons) if reason]
    if not rows:
        path.unlink(missing_ok=True)
        return
    values = index.select([name for name in rejected.COLUMNS if name != "reason"]).take(pa.array(rows, pa.int64()))
    of = zip(values.to_pylist(), rows, strict=True)
    write_text(path, rejected.text(item | {"label": f"{item['label']:g}", "reason": reasons[row]} for item, row in of))
