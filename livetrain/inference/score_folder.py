"""Scores of a folder of videos: by this process, those of `accelerate launch`, or tasks of a Ray cluster.

The list of files, what is scored and the tables are read and written a part at a time (score_parts.py).
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from livetrain.core.columns import Lazy
from livetrain.core.engines import RayEngine
from livetrain.core.errors import MachineFault, UserError
from livetrain.core.files import atomic_write
from livetrain.core.progress import progress
from livetrain.core.worker_pool import WorkerDied
from livetrain.inference.score_parts import SCORE, TIMES, Parts, Row
from livetrain.inference.video_scorer import Prediction, VideoScorer
from shards.videos import walk_videos

PART, NUM_PARTS = 256, 64  # files of a part at most; parts of a folder at least, where there are so many files
GROUP = 64  # parts that one loader reads
MAX_REPORTED = 20  # failures that are reported one by one
PATIENCE = timedelta(days=7)  # a process may wait so long for the others at the end


@dataclass(frozen=True)
class Asked:
    """What to score and where to write it.

    model: see scorer_of. out: a CSV file, or a Parquet file (`.parquet`) with all that is known of each video. names:
    what stands in the column fname, `name` or `path`. overrides: `key=value` of the model's configuration.
    """

    model: Path
    videos: Path
    out: Path
    json: Path | None
    names: str
    fresh: bool
    overrides: tuple[str, ...]


def by_processes(asked: Asked) -> None:
    """Score the folder by the processes that were launched. Every process calls it. Raises UserError."""
    import torch
    from accelerate import PartialState

    from livetrain.core.world import World

    on_cpu = os.environ.get("ACCELERATE_USE_CPU") == "1" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    model = scorer_of(asked.model, asked.overrides, state.device)
    parts = Parts(asked.out)
    if state.is_main_process:
        _begin(parts, asked, model)
    state.wait_for_everyone()
    mine = parts.todo()[state.process_index :: state.num_processes]
    _score(model, asked.videos, parts, mine, World.of(state).local_size, is_shown=state.is_main_process)
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(parts, asked, model)


def by_this_process(asked: Asked) -> None:
    """Score the folder here alone, without torch where the model needs none. Raises UserError."""
    model = scorer_of(asked.model, asked.overrides)
    parts = Parts(asked.out)
    _begin(parts, asked, model)
    _score(model, asked.videos, parts, parts.todo(), 1)
    _finish(parts, asked, model)


def by_ray(asked: Asked, engine: RayEngine) -> None:
    """Score the folder by tasks of a Ray cluster, a part each; this process alone writes. Raises UserError."""
    model = scorer_of(asked.model, asked.overrides, "cpu")
    parts = Parts(asked.out)
    _begin(parts, asked, model)
    todo = parts.todo()
    model_path, videos = asked.model.absolute(), asked.videos.absolute()
    # A task a part, read when it is due.
    tasks = Lazy(len(todo), lambda i: Task(model_path, asked.overrides, videos, parts.unscored(todo[i][0])))
    first = asked.videos / next(walk_videos(asked.videos))
    with progress("predicting", sum(num for _, num in todo), "videos") as advance:
        for index, found in engine.sharing(first).unordered(score_files, tasks):
            if isinstance(found, WorkerDied):
                raise MachineFault(f"a task of `livetrain predict` {found.reason}; the same command goes on")
            parts.add(todo[index][0], found)
            advance(len(found))
    _finish(parts, asked, model)


@dataclass(frozen=True)
class Task:
    """Files to score on a node of the cluster."""

    model: Path
    overrides: tuple[str, ...]
    videos: Path
    names: list[str]


def score_files(task: Task) -> list[Prediction]:
    """A task's predictions, in the order of its names. The model stays loaded for the next task."""
    model = _loaded(task.model, task.overrides)
    device = getattr(model, "device", None)
    here = os.cpu_count() or 1
    if device is not None and device.type == "cuda":
        import torch

        here = torch.cuda.device_count()
    return list(_predictions(model, task.videos, task.names, here, lambda num: None))


@functools.lru_cache(maxsize=1)
def _loaded(model: Path, overrides: tuple[str, ...]) -> VideoScorer:
    return scorer_of(model, overrides)


def scorer_of(model: Path, overrides: Sequence[str], device: Any = None) -> VideoScorer:
    """What scores videos: of an exported file by its suffix, else of all that livetrain.load_model takes."""
    if model.suffix == ".onnx":
        from livetrain.inference.onnx_scorer import OnnxScorer

        return OnnxScorer(model, overrides)
    from livetrain.inference.predictor import load_model

    return load_model(model, *overrides, device=device)


# --- one process ------------------------------------------------------------------------------------------------------


def _score(
    model: VideoScorer,
    videos: Path,
    parts: Parts,
    todo: Sequence[tuple[int, int]],
    local_size: int,
    *,
    is_shown: bool = True,
) -> None:
    """Add the rows of parts (see Parts.todo)."""
    with progress("predicting", sum(num for _, num in todo), "videos", enabled=is_shown) as advance:
        for start in range(0, len(todo), GROUP):
            group = [(number, parts.unscored(number)) for number, _ in todo[start : start + GROUP]]
            names = [name for _, some in group for name in some]
            found = _predictions(model, videos, names, local_size, advance)
            for number, some in group:
                parts.add(number, list(islice(found, len(some))))
            one_more = next(found, None)
            assert one_more is None


def _predictions(
    model: VideoScorer, videos: Path, names: list[str], local_size: int, advance: Callable[[int], None]
) -> Iterator[Prediction]:
    if not names:
        return
    files = model.files([videos / name for name in names], local_size)
    for batch in model.score(files, np.arange(len(names)), batch_size=model.batch_size, local_size=local_size):
        advance(len(batch))
        yield from batch


# --- begin and end ----------------------------------------------------------------------------------------------------


def _begin(parts: Parts, asked: Asked, model: VideoScorer) -> None:
    num_files = _survey(asked.videos, asked.names)
    size = min(PART, max(1, num_files // NUM_PARTS))
    request = {
        "videos": str(asked.videos.resolve()),
        "models": hashlib.sha256(model.identity().encode()).hexdigest(),
        "overrides": list(asked.overrides),
    }
    names = walk_videos(asked.videos)
    num_files, num_known, differing = parts.begin(asked.videos, names, request, size, fresh=asked.fresh)
    if differing:
        print(f"{parts.folder} is of other {' and '.join(differing)}: it is made again", file=sys.stderr)
    elif num_known:
        print(f"continuing: {num_known} of {num_files} videos are scored", file=sys.stderr)


def _survey(videos: Path, kind: str) -> int:
    """How many videos there are. Raises UserError for two of one name, where names stand in the table."""
    if kind == "path":
        return sum(1 for _ in walk_videos(videos))
    # Eight bytes a file; names are compared where these are equal.
    hashes = np.fromiter((hash(_short(name)) for name in walk_videos(videos)), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    twice = set(values[counts > 1].tolist())
    seen = Counter(short for name in walk_videos(videos) if twice and hash(short := _short(name)) in twice)
    for name, count in seen.items():
        if count > 1:
            raise UserError(f"two videos are called {name}, in different folders; --names path writes their paths")
    return len(hashes)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _finish(parts: Parts, asked: Asked, model: VideoScorer) -> None:
    """The tables, and what is reported."""
    num, failed, reasons = 0, 0, Counter[str]()
    with contextlib.ExitStack() as stack:
        writers = [(_parquet if asked.out.suffix == ".parquet" else _csv)(stack, asked)]
        if asked.json:
            writers.append(_json(stack, asked.json))
        for part in parts.rows():
            rows = [_shown(row, asked, model) for row in part]
            for write in writers:
                write(rows)
            num += len(rows)
            for row in rows:
                if row["status"] == "ok":
                    continue
                failed += 1
                reasons[row["reason"]] += 1
                if failed <= MAX_REPORTED:
                    print(f"warning: {row['fname']} got {model.failed_score:g}: {row['reason']}", file=sys.stderr)
    if failed > MAX_REPORTED:
        ((reason, count),) = reasons.most_common(1)
        print(f"warning: and {failed - MAX_REPORTED} more; most often ({count} times): {reason}", file=sys.stderr)
    parts.remove()
    print(f"{asked.out}: {num} videos, {failed} of them got no score", flush=True)


def _shown(row: Row, asked: Asked, model: VideoScorer) -> Row:
    """A row as it is written."""
    score = model.failed_score if row["p_live"] is None else row["p_live"]
    fname = row["name"] if asked.names == "path" else _short(row["name"])
    video = str(asked.videos / row["name"])
    return {"fname": fname, "liveness_score": score, "video": video} | {name: row[name] for name in SCORE}


Writer = Callable[[list[Row]], None]


def _csv(stack: contextlib.ExitStack, asked: Asked) -> Writer:
    def table(path: Path, column: str) -> Any:
        file = stack.enter_context(atomic_write(path))
        writer = csv.writer(_opened(stack, file), lineterminator="\n")
        writer.writerow(["fname", column])
        return writer

    scores, times = table(asked.out, "liveness_score"), table(asked.out.with_name(TIMES), "time")

    def write(rows: list[Row]) -> None:
        scores.writerows((row["fname"], f"{row['liveness_score']:.9g}") for row in rows)
        times.writerows((row["fname"], f"{1000 * row['seconds']:.3f}") for row in rows)

    return write


def _parquet(stack: contextlib.ExitStack, asked: Asked) -> Writer:
    columns = {"fname": pa.string(), "liveness_score": pa.float64(), "video": pa.string()}
    schema = pa.schema(columns | SCORE)
    writer = stack.enter_context(pq.ParquetWriter(stack.enter_context(atomic_write(asked.out)), schema))
    return lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))


def _json(stack: contextlib.ExitStack, path: Path) -> Writer:
    file = _opened(stack, stack.enter_context(atomic_write(path)))
    before = "[\n"

    def write(rows: list[Row]) -> None:
        nonlocal before
        for row in rows:
            kept = {name: value for name, value in row.items() if name != "fname" and (name != "reason" or value)}
            file.write(before + json.dumps(kept, indent=2, sort_keys=True, allow_nan=False))
            before = ",\n"

    stack.callback(lambda: file.write("\n]\n"))
    return write


def _opened(stack: contextlib.ExitStack, path: Path) -> TextIO:
    return stack.enter_context(path.open("w", encoding="utf-8", newline=""))
