"""Probing videos before they are sharded: each is read, hashed and decoded once, in worker processes with limits.

What was found is in `.build/probes*.jsonl` of the shard folder, a line a video, until the build is finished: a killed
build, and the parts of one (`shards.build_parts`), take it from there. In memory is where each line is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livetrain.core import worker_pool
from livetrain.core.columns import Column, Lazy, Places
from livetrain.core.engines import Engine
from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.format.probe import MAX_SECONDS, Probe, RejectedVideo, probe
from shards.labels import Label
from shards.line_log import LineLog
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


class Probes(Column[Probed]):
    """What is known of videos, in log files; not to be asked of `missing` ones."""

    def __init__(self, log: LineLog) -> None:
        self._log = log

    def missing(self) -> NDArray[np.int64]:
        """Places of the videos that nothing is known of."""
        return self._log.missing()

    def close(self) -> None:
        """Close the log files; nothing is known any more."""
        self._log.close()

    def __len__(self) -> int:
        return len(self._log)

    def item(self, place: int) -> Probed:
        _, values = self._log.value(place)
        facts = values["facts"]
        return Probed(values["sha256"], None if facts is None else Probe(**facts), values["reason"])


def known_probes(videos: Folder, rows: Sequence[Label], out: Path) -> Probes:
    """What a killed build, or any part of one, found of the videos that did not change since."""
    return Probes(_known(videos, rows, out))


def _known(videos: Folder, rows: Sequence[Label], out: Path) -> LineLog:
    log = LineLog(len(rows))
    paths = [path for path in sorted((out / BUILD_FOLDER).glob("probes*.jsonl")) if path.stat().st_size]
    if paths:
        places = Places(Video(videos, row.video).stamp() for row in rows)
    for path in paths:
        # Another stamp with the same hash would be found out when the video is written: its bytes are hashed again.
        log.load(path, lambda line: places.find(line[0]))
    return log


class _Stamped(Column[Video]):
    """Videos to probe. Stamped when a worker gets one: what is written while it is read is another version."""

    def __init__(self, videos: Folder, rows: Sequence[Label], places: NDArray[np.int64]) -> None:
        self._videos = Lazy(len(places), lambda i: Video(videos, rows[int(places[i])].video))
        self._stamps: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._videos)

    def item(self, place: int) -> Video:
        video = self._videos[place]
        self._stamps[place] = video.stamp()
        return video

    def stamp(self, place: int) -> str:
        """Of one that has been probed; it is forgotten."""
        return self._stamps.pop(place)


def probe_all(
    videos: Folder,
    rows: Sequence[Label],
    sizes: NDArray[np.int64],
    out: Path,
    engine: Engine,
    quick: bool,
    log_name: str = LOG,
) -> Probes:
    """Probe every video, but for those that are known already (`known_probes`); into the log of that name.

    sizes: of the videos, in bytes.
    """
    path = out / BUILD_FOLDER / log_name
    log = _known(videos, rows, out)
    missing = log.missing()
    tasks = _Stamped(videos, rows, missing)
    task = functools.partial(probe_file, quick=True) if quick else probe_file
    # What libav itself does not get out of (a loop, a header that states terabytes) ends with its process.
    limits = worker_pool.Limits(MAX_SECONDS + 60, MEMORY_BYTES + 2 * int(sizes.max(initial=0)))
    try:
        with log.appending(path) as write, progress("probe", len(missing), "videos") as advance:
            for position, result in engine.unordered(task, tasks, PRELOAD, limits):
                if isinstance(result, worker_pool.WorkerDied):
                    result = Probed("", None, f"the decoder {result.reason}")
                place = int(missing[position])
                facts = None if result.facts is None else vars(result.facts)
                write(place, [tasks.stamp(position), vars(result) | {"facts": facts}])
                advance(1, rows[place].video)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; free some space and run it again") from error
    return Probes(log)


class Contents(Column[str]):
    """SHA-256 of videos in hexadecimal, "" where it is not known: 32 bytes each."""

    def __init__(self, sha256: Iterable[str], count: int) -> None:
        self._bytes = np.zeros((count, 32), np.uint8)
        self._known = np.zeros(count, bool)
        for place, text in enumerate(sha256):
            if text:
                self._bytes[place], self._known[place] = np.frombuffer(bytes.fromhex(text), np.uint8), True

    def __len__(self) -> int:
        return len(self._known)

    def item(self, place: int) -> str:
        return self._bytes[place].tobytes().hex() if self._known[place] else ""


def contents(probed: Sequence[Probed]) -> Contents:
    """What is known to be the same file: of good videos alone, for empty files are alike and no leak."""
    return Contents((result.sha256 if result.facts else "" for result in probed), len(probed))
