"""Checkpoints written while training continues: an update waits for a copy of the tensors, not for the disk.

Each process copies and writes its share, so that the copy costs as much memory again as weights, average and optimizer
states take, once over all processes. One write is under way at a time: a save that comes before the last one is on the
disk waits for it, so the disk sets the pace, not the memory. A full disk is reported, and the checkpoint skipped:
the checkpoints before stay, and the run continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from livetrain.checkpoint import folders, host_copy
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.checkpoint.folders import Checkpoint
from livetrain.core.errors import UserError


class CheckpointWriter:
    """Saves into `folder` in the background; use it as a context manager: leaving it waits.

    tell: gets a line when a checkpoint to resume from is on the disk, and when one could not be written. stall_seconds:
    how long the calls kept the caller so far. num_failed: checkpoints that could not be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        keep_every: int,
        tell: Callable[[str], None],
        team: RankBarrier | None = None,
    ) -> None:
        self.folder, self.keep_last, self.keep_every, self.tell = folder, keep_last, keep_every, tell
        self.team = team or RankBarrier()
        self.stall_seconds = 0.0
        self.num_failed = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="livetrain-checkpoint")  # one: writes keep their order
        self._pending: dict[str, Future[Any]] = {}
        self._buffers: dict[str, dict[str, torch.Tensor]] = {"step": {}, "best": {}}

    def save(self, whole: Checkpoint, alike: Callable[[str], bool] = lambda name: True) -> None:
        """Write a checkpoint to resume from. All processes call it; alike: as in folders.share_of."""
        outline, share = folders.share_of(whole, alike, self.team)

        def write(copied: dict[str, torch.Tensor]) -> None:
            path = folders.save(
                self.folder,
                outline,
                keep_last=self.keep_last,
                keep_every=self.keep_every,
                share=copied,
                team=self.team,
            )
            if self.team.is_first:
                self.tell(f"saved {path}")

        self._start("step", share, write)

    def save_best(
        self, step: int, model: Mapping[str, torch.Tensor], figures: dict[str, Any], *, in_shards: bool = False
    ) -> None:
        """Write the weights that dev chose.

        Call it on one process; of weights in shards, on all: each copies and writes its own, and none has them whole.
        """
        team = self.team if in_shards else RankBarrier()
        share = folders.own_share(model, team) if in_shards else model

        def write(copied: dict[str, torch.Tensor]) -> None:
            folders.save_best(self.folder, step, copied, figures, team)

        self._start("best", share, write)

    def wait(self) -> None:
        """Return when everything asked for is on the disk, or reported as failed."""
        for pending in self._pending.values():
            pending.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, RuntimeError):
            self.team.broken.set()  # a collective that failed: what another process has not reported by now never comes
        self._pool.shutdown(wait=True)

    def _start(self, kind: str, value: Any, write: Callable[[Any], Any]) -> None:
        started = time.perf_counter()
        if kind in self._pending:
            self._pending[kind].result()  # its buffers are this one's
        copied = host_copy.snapshot(value, self._buffers[kind])
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # copies to pinned memory run beside the host

        def job() -> None:
            try:
                write(copied)
            except UserError as error:
                self.num_failed += 1
                self.tell(f"warning: {error}. The run continues; the checkpoints before this one are whole")

        self._pending[kind] = self._pool.submit(job)
        self.stall_seconds += time.perf_counter() - started
