"""Untrusted videos, probed and decoded in worker processes.

A video that crashes libavcodec, or makes it swell or hang, ends its worker, and is reported by name.

The worker imports neither torch nor DALI, so that it is there in a second.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core import worker_pool
from livetrain.core.files import patiently
from livetrain.core.worker_pool import Limits, Pool, WorkerDied
from livetrain.data.crop import Cut
from livetrain.data.decode import DecodeError, decode_video
from shards.faces.find import FaceOptions, find_in_video
from shards.format.colour import Colours
from shards.format.face_table import Track
from shards.format.probe import MAX_SECONDS, Probe, RejectedVideo, probe
from shards.format.stored_clip import Shown

PRELOAD = ("livetrain.data.isolated_decode",)
LIMIT_SECONDS = 2 * MAX_SECONDS + 60  # of a task, which decodes a file at most twice; each ends by itself, if it can
MEMORY_BYTES = 6 * 10**9  # of a worker, beside what it has at its start: ten times what 8K needs, and a file of 2 GB


@dataclass(frozen=True)
class ProbeTask:
    """A file to describe. faces: how its face is found; None: it is not looked for."""

    path: Path
    faces: FaceOptions | None = None


@dataclass(frozen=True)
class DecodeTask:
    """Frames of a file, cut and resized: see decode_video and Cut."""

    path: Path
    frames: NDArray[np.int64]
    num_frames: int
    is_regular: bool
    cut: Cut
    colours: Colours


def work(task: ProbeTask | DecodeTask) -> Any:
    """What a worker does. Raises RejectedVideo, DecodeError; FileNotFoundError and the like; UserError."""
    is_probe = isinstance(task, ProbeTask)
    try:
        data = patiently(task.path.read_bytes, task.path)
        if isinstance(task, ProbeTask):
            facts = probe(data, quick=True)
            if task.faces is None:
                return facts, None
            return facts, find_in_video(data, facts.num_frames, Shown.of(facts), task.faces)
        shape = task.cut.shape(task.colours)
        decoded = decode_video(data, task.frames, task.num_frames, is_regular=task.is_regular, shape=shape)
        return task.cut.windows(decoded)
    except MemoryError:
        reason = f"the decoder takes more than {MEMORY_BYTES / 1e9:g} GB of memory"
        raise (RejectedVideo if is_probe else DecodeError)(reason) from None


def prepare() -> None:
    """Begin what workers start from, while this process imports torch and loads a model."""
    worker_pool.prepare(PRELOAD)


class Workers:
    """The processes that probe and decode for this one."""

    def __init__(self, num: int) -> None:
        limits = Limits(LIMIT_SECONDS, MEMORY_BYTES)
        self._pool: Pool[ProbeTask | DecodeTask, Any] = Pool(work, num, PRELOAD, limits)

    def probe(self, path: Path, faces: FaceOptions | None = None) -> Future[tuple[Probe, Track | None] | WorkerDied]:
        """What a video file holds, and its face if that is wanted.

        RejectedVideo, OSError or UserError as the future's exception.
        """
        return self._pool.submit(ProbeTask(path, faces))

    def decode(self, task: DecodeTask) -> NDArray[np.uint8]:
        """uint8 RGB [len(frames), size, size, 3]. Raises DecodeError, OSError, UserError."""
        found = self._pool.submit(task).result()
        if isinstance(found, WorkerDied):
            raise DecodeError(f"the decoder {found.reason}")
        pictures: NDArray[np.uint8] = found
        return pictures
