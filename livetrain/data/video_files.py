"""Raw video files instead of shards.

They are probed when needed, then planned, decoded and transformed as evaluation does with the same videos in a shard.
Nobody vouches for them, so what touches them is in processes of its own.

    files = VideoFiles(paths, workers)
    for plan in files.plans(config, rows, 8): …     # plan.step = k: rows[8 * k : 8 * (k + 1)]
    files.reasons                                   # row → why it has no score

A video whose packets tell its frames (H.264, HEVC in MP4) is not decoded to be probed; others are, once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.files import patiently
from livetrain.core.worker_pool import WorkerDied
from livetrain.data.clip_facts import Facts
from livetrain.data.clip_plan import ClipPlan, plan_views
from livetrain.data.crop import Cut
from livetrain.data.dataset import FetchError
from livetrain.data.decode import DecodeError
from livetrain.data.decoders import colours_of
from livetrain.data.isolated_decode import DecodeTask, Workers
from shards.faces.find import NO_FACE, FaceOptions
from shards.format.face_table import Track
from shards.format.probe import Probe, RejectedVideo

# Types as in the index of a shard folder: rounding must plan the same frames.
COLUMNS = {
    "num_frames": np.int32,
    "fps": np.float32,
    "duration_seconds": np.float32,
    "height": np.int32,
    "width": np.int32,
    "rotation": np.int16,
    "coded_height": np.int32,
    "coded_width": np.int32,
    "sample_aspect_ratio": np.float32,
    "is_interlaced": np.int8,
    "is_regular": np.int8,
    "is_full_range": np.int8,
    "is_range_coded": np.int8,
}
WORDS = ("codec", "pixel_format", "matrix", "transfer")


class VideoFiles:
    """Video files as a loader sees a data set: a row each, in the order given.

    Facts are there once a row is probed; `reasons` says why a row could not be. Threads may share it. faces: how faces
    are found, in the same go; None: they are not. needs_face: a file without a face gets NO_FACE as its reason.
    """

    is_remote = False

    def __init__(
        self, paths: Sequence[Path], workers: Workers, faces: FaceOptions | None = None, *, needs_face: bool = False
    ) -> None:
        self.paths, self._workers = list(paths), workers
        self._faces, self._needs_face = faces, needs_face
        self._tracks: dict[int, Track] = {}
        self.reasons: dict[int, str] = {}
        self._columns = {name: np.ones(len(paths), kind) for name, kind in COLUMNS.items()}
        self._columns["rotation"][:] = 0
        self._columns["label"] = np.full(len(paths), math.nan, np.float32)
        self._texts = [{"store": "original", "key": str(path)} for path in paths]
        self._seconds: dict[int, NDArray[np.float32]] = {}
        self._probed: dict[int, Future[tuple[Probe, Track | None] | WorkerDied]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.paths)

    def column(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def text(self, name: str, row: int) -> str:
        return self._texts[row].get(name, "")

    def shard_name(self, row: int) -> str:
        return str(self.paths[row].parent)

    def shard_path(self, row: int) -> Path:
        return self.paths[row].parent

    def root_of(self, row: int) -> Path:
        return self.paths[row].parent

    def video_bytes(self, row: int) -> bytes:
        """The file's bytes. Raises FetchError."""
        try:
            return patiently(self.paths[row].read_bytes, self.paths[row])
        except OSError as error:
            raise FetchError(f"cannot read it: {error.strerror or error}") from error

    def jpeg_bytes(self, row: int, frames: NDArray[np.integer]) -> list[bytes]:
        raise AssertionError("a file is a video")

    def prefetch(self, rows: NDArray[np.int64], share: float = 1.0) -> None:
        """Nothing: the kernel reads ahead."""

    def cache_reads(self) -> tuple[int, int]:
        return 0, 0

    def plan(self, config: Config, rows: NDArray[np.int64], step: int, batch_size: int) -> ClipPlan:
        """Of batch `step` of the files `rows`, padded; files with a reason are padding, too."""
        here = rows[step * batch_size : (step + 1) * batch_size]
        inside = np.zeros(batch_size, np.bool_)
        inside[: len(here)] = [row not in self.reasons for row in here.tolist()]
        padded = np.concatenate([here, np.repeat(here[:1], batch_size - len(here))])
        facts = Facts.of(padded, self._columns, self.frame_seconds, self._tracks.get)
        return plan_views(facts, inside, config, step)

    def plans(self, config: Config, rows: NDArray[np.int64], batch_size: int) -> Iterator[ClipPlan]:
        """Of all batches, in order, each when its files are probed; probing runs ahead by data.prefetch batches."""
        announced = 0
        for step in range(math.ceil(len(rows) / batch_size)):
            while announced <= step + config.data.prefetch and announced * batch_size < len(rows):
                for row in rows[announced * batch_size : (announced + 1) * batch_size].tolist():
                    self.announce(row)
                announced += 1
            for row in rows[step * batch_size : (step + 1) * batch_size].tolist():
                self.await_facts(row)
            yield self.plan(config, rows, step, batch_size)

    def frame_seconds(self, row: int) -> NDArray[np.float32]:
        """See `Dataset`."""
        return self._seconds.get(row, np.empty(0, np.float32))

    def announce(self, row: int) -> None:
        """Have a row probed, once."""
        with self._lock:
            if row not in self._probed:
                self._probed[row] = self._workers.probe(self.paths[row], self._faces)

    def await_facts(self, row: int) -> None:
        """Returns when the facts of an announced row, or its reason, are there. Raises UserError."""
        try:
            found = self._probed[row].result()
        except RejectedVideo as error:
            self.reasons[row] = str(error)
        except OSError as error:
            self.reasons[row] = f"cannot read it: {error.strerror or error}"
        else:
            if isinstance(found, WorkerDied):
                self.reasons[row] = f"the decoder {found.reason}"
            else:
                self.describe(row, *found)

    def decode(self, row: int, frames: NDArray[np.int64], cut: Cut) -> NDArray[np.uint8]:
        """See `Dataset`; by a worker, which reads the file itself."""
        facts = (int(self.column(name)[row]) for name in ("num_frames", "is_regular"))
        num_frames, is_regular = facts
        task = DecodeTask(self.paths[row], frames, num_frames, bool(is_regular), cut, colours_of(self, row))
        try:
            return self._workers.decode(task)
        except OSError as error:
            raise DecodeError(f"cannot read it: {error.strerror or error}") from error

    def describe(self, row: int, found: Probe, face: Track | None = None) -> None:
        """Set the facts of a row."""
        if face is not None:
            self._tracks[row] = face
        elif self._needs_face:
            self.reasons[row] = NO_FACE
        stored = found.stored()
        for name in COLUMNS:
            self._columns[name][row] = stored[name]
        if found.frame_seconds:
            self._seconds[row] = np.array(stored["frame_seconds"], np.float32)
        self._texts[row] |= {name: stored[name] for name in WORDS}
