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

from livetrain.core.files import patiently
from livetrain.core.worker_pool import Limits, Pool, WorkerDied
from livetrain.data.crop import CropAndResize
from livetrain.data.decode import DecodeError, decode_video
from shards.format.colour import Colours
from shards.format.probe import MAX_SECONDS, Probe, RejectedVideo, probe

PRELOAD = ("livetrain.data.isolated_decode",)
LIMIT_SECONDS = MAX_SECONDS + 60  # of a task; probing ends by itself before that, where it can
MEMORY_BYTES = 6 * 10**9  # of a worker, beside what it has at its start: ten times what 8K needs, and a file of 2 GB


@dataclass(frozen=True)
class ProbeTask:
    """A file to describe."""

    path: Path


@dataclass(frozen=True)
class DecodeTask:
    """Frames of a file, cut by `box` and resized to `size`: see decode_video and CropAndResize."""

    path: Path
    frames: NDArray[np.int64]
    num_frames: int
    is_regular: bool
    box: NDArray[np.floating]
    size: int
    colours: Colours


def work(task: ProbeTask | DecodeTask) -> Any:
    """What a worker does. Raises RejectedVideo, DecodeError; FileNotFoundError and the like; UserError."""
    is_probe = isinstance(task, ProbeTask)
    try:
        data = patiently(task.path.read_bytes, task.path)
        if isinstance(task, ProbeTask):
            return probe(data, quick=True)
        shape = CropAndResize(task.box, task.size, task.colours)
        return decode_video(data, task.frames, task.num_frames, is_regular=task.is_regular, shape=shape)
    except MemoryError:
        reason = f"the decoder takes more than {MEMORY_BYTES / 1e9:g} GB of memory"
        raise (RejectedVideo if is_probe else DecodeError)(reason) from None


class Workers:
    """The processes that probe and decode for this one."""

    def __init__(self, num: int) -> None:
        limits = Limits(LIMIT_SECONDS, MEMORY_BYTES)
        self._pool: Pool[ProbeTask | DecodeTask, Any] = Pool(work, num, PRELOAD, limits)

    def probe(self, path: Path) -> Future[Probe | WorkerDied]:
        """What a video file holds; RejectedVideo, OSError or UserError as the future's exception."""
        return self._pool.submit(ProbeTask(path))

    def decode(self, task: DecodeTask) -> NDArray[np.uint8]:
        """uint8 RGB [len(frames), size, size, 3]. Raises DecodeError, OSError, UserError."""
        found = self._pool.submit(task).result()
        if isinstance(found, WorkerDied):
            raise DecodeError(f"the decoder {found.reason}")
        pictures: NDArray[np.uint8] = found
        return pictures
