"""Probing videos before they are sharded: each is read, hashed and decoded once, in worker processes with limits.

What was found is in `.build/probes*.jsonl` of the shard folder, a line a video, until the build is finished: a killed
build, and the parts of one (`shards.build_parts`), take it from there.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from livetrain.core import worker_pool
from livetrain.core.engines import Engine
from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.format.probe import MAX_SECONDS, Probe, RejectedVideo, probe
from shards.labels import Label
from shards.shard_writer import BUILD_FOLDER
from shards.videos import Folder, Video

PRELOAD = ("shards.build", "webdataset")  # for both stages: the first one starts the server of processes
MEMORY_BYTES = 4 * 10**9  # for decoding one video: ten times what 8K needs
LOG = "probes.jsonl"


@dataclass(frozen=True)
class Probed:
    """A video's SHA-256 and either its facts or the reason why it is rejected."""

    sha256: str
    facts: Probe | None
    reason: str


def probe_file(video: Video, quick: bool = False) -> Probed:
    """Read, hash and probe one video: the task of a worker process."""
    try:
        data = video.read()
    except OSError as error:
        return Probed("", None, f"cannot read it: {error.strerror or error}")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return Probed(sha256, probe(data, quick=quick), "")
    except RejectedVideo as rejection:
        return Probed(sha256, None, str(rejection))
    except MemoryError:
        return Probed(sha256, None, f"decoding takes more than {MEMORY_BYTES / 1e9:g} GB of memory")


def known_probes(videos: Folder, rows: Sequence[Label], out: Path) -> dict[int, Probed]:
    """What a killed build, or any part of one, found of the videos that did not change since, by position in `rows`."""
    known: dict[str, Probed] = {}
    for log in sorted((out / BUILD_FOLDER).glob("probes*.jsonl")):
        known |= _read_log(log)
    stamps = [Video(videos, row.video).stamp() for row in rows]
    return {place: known[stamp] for place, stamp in enumerate(stamps) if stamp in known}


def probe_all(
    videos: Folder, rows: Sequence[Label], out: Path, engine: Engine, quick: bool, log_name: str = LOG
) -> list[Probed]:
    """Probe every video, but for those that are known already (`known_probes`); into the log of that name."""
    log = out / BUILD_FOLDER / log_name
    found = known_probes(videos, rows, out)
    missing = [place for place in range(len(rows)) if place not in found]
    try:
        with log.open("a", encoding="utf-8") as file, progress("probe", len(missing), "videos") as advance:
            files = [Video(videos, rows[place].video) for place in missing]
            stamps = [video.stamp() for video in files]  # before: what is written while it is read is another version
            task = functools.partial(probe_file, quick=True) if quick else probe_file
            # What libav itself does not get out of (a loop, a header that states terabytes) ends with its process.
            largest = max((video.size() for video in files), default=0)
            limits = worker_pool.Limits(MAX_SECONDS + 60, MEMORY_BYTES + 2 * largest)
            for position, result in engine.unordered(task, files, PRELOAD, limits):
                if isinstance(result, worker_pool.WorkerDied):
                    result = Probed("", None, f"the decoder {result.reason}")
                place = missing[position]
                found[place] = result
                facts = None if result.facts is None else vars(result.facts)
                file.write(json.dumps([stamps[position], vars(result) | {"facts": facts}]) + "\n")
                file.flush()
                advance(1, rows[place].video)
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror or error}; free some space and run it again") from error
    return [found[place] for place in range(len(rows))]


def _read_log(path: Path) -> dict[str, Probed]:
    known: dict[str, Probed] = {}
    if not path.exists():
        return known
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            stamp, values = json.loads(line)
        except ValueError:
            continue  # the line that the killed build was writing
        facts = values["facts"]
        known[stamp] = Probed(values["sha256"], None if facts is None else Probe(**facts), values["reason"])
    return known


def contents(probed: Sequence[Probed]) -> tuple[str, ...]:
    """What is known to be the same file: of good videos alone, for empty files are alike and no leak."""
    return tuple(result.sha256 if result.facts else "" for result in probed)
