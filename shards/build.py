"""Building a shard folder: read labels, split, probe all videos, plan the shards, write them, then the index.

    videos + label.csv ── labels ▶ split ▶ probe ▶ plan ▶ write (one worker a shard) ▶ index.arrow, dataset.json

While a build is under way the folder holds `.build/`: the request (to refuse other options), a line for each probed
video, a record for each finished shard. A killed build therefore continues where it stopped; `dataset.json` is written
last and `.build/` then removed. Probing comes first and decodes every video, which costs a second read of each source,
and buys that bad videos are known, and the shards planned, before anything large is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from livetrain.core import worker_pool
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from livetrain.core.progress import progress
from shards.bucket import Bucket, sizes_at_start
from shards.build_plan import Plan, Tasks
from shards.build_request import KEPT, Options, Request
from shards.existing import Kept
from shards.format import index_table, manifest
from shards.format.tar import shard_name
from shards.labels import Labels
from shards.probing import PRELOAD, probe_all
from shards.shard_writer import BUILD_FOLDER, ShardTask, record_path, rows_path, write_shard
from shards.videos import Folder

REQUEST = "request.json"  # in the build folder
OUR_FILES = (
    "dataset.json", "shard-*.tar", "shard-*.idx", "index.arrow", "index.parquet", "rejected.csv", "faces.arrow",
    "faces_missing.csv", ".*.tmp",
)  # fmt: skip


def build(
    videos: Folder,
    labels_file: Path,
    out: Path,
    options: Options,
    *,
    engine: Engine = ONE_PROCESS,
    overwrite: bool = False,
    bucket: Bucket | None = None,
) -> dict[str, Any]:
    """Build the shard folder `out`, or finish a build that was killed; returns the content of dataset.json.

    With `bucket` the shard folder is there, and `out` is local and gone at the end.

    Raises UserError for bad input, for an `out` that holds another build (unless `overwrite`), cannot be written or is
    full; finished shards stay, so that the same command resumes.
    """
    request = Request.read(videos, labels_file, out, options, overwrite=overwrite, bucket=bucket)
    if bucket:
        sizes_at_start.cache_clear()
        (out / manifest.FILE_NAME).unlink(missing_ok=True)  # of a build that was killed before all was there
    there = None if overwrite or not bucket else bucket.finished()
    if bucket and there and same_content(there, request.about(), bucket.url):
        print(f"{bucket.url} is built already, from the same videos, labels and options", file=sys.stderr)
        return there
    with _claimed(out, request.about(), overwrite, request.before) as finished:
        if finished is not None:
            print(f"{out} is built already, from the same videos, labels and options; nothing to do", file=sys.stderr)
            if "resplit" in finished:
                print(f"its splits are those of `shards split` ({finished['resplit']})", file=sys.stderr)
            return finished
        if bucket:
            bucket.withdraw()  # now that the splits to keep are noted
        engine = engine.sharing(out / BUILD_FOLDER / REQUEST)
        probed = probe_all(videos, request.labels.rows, request.sizes, out, engine, quick=request.is_quick)
        plan = Plan.of(request, probed)
        if request.before is not None:
            _tell_kept(request.before, plan.labels, request.options.keep)
        plan.report(out)
        return finish(request, plan, write_all(plan.tasks, engine))


def finish(request: Request, plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the index and dataset.json of shards that are all there; returns the content of the latter."""
    out = request.out
    tables = (index_table.read(rows_path(out, number)) for number in range(len(records)))
    index_table.write_joined(out / index_table.FILE_NAME, tables, out / BUILD_FOLDER)
    index_table.write_parquet(out / index_table.PARQUET_NAME, out / index_table.FILE_NAME)
    rows = index_table.read(out / index_table.FILE_NAME)
    content = manifest.describe(out, records, rows, len(plan.rejected), plan.labels.subject_column, request.about())
    manifest.write(out, content)
    plan.probed.close()
    if request.bucket:
        request.bucket.publish(out, content)
        _remove_files(out)  # the records last: without them the folder would be somebody else's
        shutil.rmtree(out, ignore_errors=True)
    else:
        remove_state(out / BUILD_FOLDER)
    return content


def _tell_kept(before: Kept, labels: Labels, asked: Path | None) -> None:
    """Say how many keep their split. Raises UserError when the user asked for it and nobody does."""
    num_kept = sum(name is not None for name in before.of(labels))
    if asked and not num_kept:
        raise UserError(
            f"--keep {asked}: none of its {len(before.rows):,} videos, and none of their people, is among these "
            f"{len(labels.rows):,}; give the file of the same names, subjects and --domain, or leave --keep out"
        )
    if num_kept:
        print(f"{num_kept:,} of {len(labels.rows):,} videos keep the split of {before.source}", file=sys.stderr)


@contextlib.contextmanager
def _claimed(
    out: Path, request: dict[str, Any], overwrite: bool, before: Kept | None
) -> Iterator[dict[str, Any] | None]:
    """Hold `out` for this build alone.

    Yields the manifest when the very same build is finished, else None. `before` outlasts what is replaced.
    """
    state = out / BUILD_FOLDER
    known = state / REQUEST
    try:
        if out.is_dir() and any(out.iterdir()) and not (state.exists() or (out / manifest.FILE_NAME).exists()):
            raise UserError(f"--out {out}: holds other files; choose a new or empty folder")
        finished = None if overwrite else same_build(out / manifest.FILE_NAME, request, out)
        if finished is not None:
            shutil.rmtree(state, ignore_errors=True)
            yield finished
            return
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there: {error.strerror or error}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--out {out}: another build is writing there; wait for it or go elsewhere") from error
        if overwrite:
            if before is not None:
                before.write(state / KEPT)
            _clear(out)
        same_build(known, request, out)
        for leftover in out.glob(".*.tmp"):  # of workers that were killed in the middle of a shard
            leftover.unlink()
        write_json(known, request)
        yield None
    with contextlib.suppress(OSError):  # what `remove_state` had to leave, now that the lock is not held
        state.rmdir()


def same_build(path: Path, request: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """The JSON at `path` if it is there and of the same request; UserError when it is of another."""
    if not path.exists():
        return None
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged; build again with --overwrite") from error
    return content if same_content(content, request, out) else None


def same_content(content: Mapping[str, Any], request: Mapping[str, Any], out: Path | str) -> bool:
    """True: what is in `out` is of the same request. Raises UserError where it is of another."""
    try:
        options, digest = content["options"], content["request"]
    except KeyError as error:
        raise UserError(f"{out}: its dataset.json is damaged; build again with --overwrite") from error
    if digest == request["request"]:
        return True
    changed = [name for name, value in request["options"].items() if options.get(name) != value]
    what = f"other options ({', '.join(changed)})" if changed else "other videos or labels"
    raise UserError(f"--out {out}: holds a build of {what}; give --overwrite to replace it, or choose another folder")


def _clear(out: Path) -> None:
    """Remove what a build leaves in `out`, and nothing else. The lock stays, and the splits that are kept."""
    _remove_files(out)
    for path in (out / BUILD_FOLDER).iterdir():
        if path.name not in ("lock", KEPT):
            path.unlink()


def remove_state(folder: Path) -> None:
    """Remove a build folder, but for the lock that is still held: on NFS an open file keeps its folder."""
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_files(out: Path) -> None:
    for pattern in OUR_FILES:
        for path in out.glob(pattern):
            path.unlink()


def write_all(tasks: Tasks, engine: Engine) -> list[dict[str, Any]]:
    """Write the shards that are not finished yet; the records of all, in order."""
    records = finished_records(tasks)
    todo = tasks.only([number for number in tasks.numbers if number not in records])
    if records:
        print(f"continuing a stopped build: {len(records)} of {len(tasks)} shards are done", file=sys.stderr)
    with progress("write", todo.num_samples(), "samples") as advance:
        for position, result in engine.unordered(write_shard, todo, PRELOAD):
            number = todo.numbers[position]
            if isinstance(result, worker_pool.WorkerDied):
                raise UserError(
                    f"the process that wrote {shard_name(number)} was killed, also on its own (is memory short?); "
                    "run the same command again with fewer --workers"
                )
            records[number] = result
            advance(result["num_samples"], shard_name(number))
    return [records[number] for number in tasks.numbers]


def finished_records(tasks: Tasks) -> dict[int, dict[str, Any]]:
    """The records of shards that a stopped build finished, of the same request and sources, by the shard's number."""
    found = {}
    for position, number in enumerate(tasks.numbers):
        if record_path(tasks.out, number).exists() and (record := _finished_record(tasks[position])) is not None:
            found[number] = record
    return found


def _finished_record(task: ShardTask) -> dict[str, Any] | None:
    tar = task.out / f"{shard_name(task.number)}.tar"
    try:
        record: dict[str, Any] = json.loads(record_path(task.out, task.number).read_text(encoding="utf-8"))
        size = sizes_at_start(task.bucket).get(tar.name) if task.bucket else tar.stat().st_size
        if record["request"] != task.request or size != record["bytes"]:
            return None
        rows = index_table.read(rows_path(task.out, task.number))
        written = [tuple(row.values()) for row in rows.select(["key", "split", "sha256"]).to_pylist()]
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    wanted = [(sample.key, sample.split, sample.sha256) for sample in task.samples]
    return record if written == wanted and tar.with_suffix(".idx").exists() else None
