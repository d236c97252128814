"""Checkpoints of a run: when one is due, what is in it, and writing it beside training."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from livetrain.checkpoint.async_writer import CheckpointWriter
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.checkpoint.folders import Checkpoint
from livetrain.config import Config
from livetrain.distributed import fsdp
from livetrain.tracking.run_dir import RunDir
from livetrain.training.setup import RunObjects
from livetrain.training.state import STORED_AS, TrainState


class Saver:
    """Saves a run's checkpoints. Use as a context manager: it finishes writing what was begun.

    fingerprint: of the data set, kept in every checkpoint.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        objects: RunObjects,
        run: RunDir,
        fingerprint: str,
        warn: Callable[[str], None],
    ) -> None:
        self._config, self._accelerator, self._objects = config, accelerator, objects
        self._fingerprint = fingerprint
        self._saved_at = time.monotonic()
        self._writer = CheckpointWriter(
            run.checkpoints,
            keep_last=config.train.keep_last,
            keep_every=config.train.keep_every_steps,
            tell=warn,
            team=RankBarrier.of_this_run(2 * config.train.hang_timeout_seconds),
        )
        self.is_due = False  # a process has asked for a checkpoint

    def __enter__(self) -> Saver:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def wants_save(self) -> bool:
        """Whether it is time for a checkpoint, by the first process's clock; the others learn of it with the step."""
        minutes = self._config.train.save_every_minutes
        due = minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes
        return due and self._accelerator.is_main_process

    def save(self, step: int, state: TrainState) -> None:
        """Begin a checkpoint after `step` steps. All processes call it; it may wait for the one before."""
        self._saved_at, self.is_due = time.monotonic(), False
        objects, scaler = self._objects, self._accelerator.scaler
        if fsdp.is_sharded(objects.model):
            fsdp.agree_on_buffers(objects.model)
        content = {
            "optimizer": objects.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            STORED_AS: dataclasses.asdict(state),
            "data": self._fingerprint,
        }
        ema = objects.ema.module.state_dict() if objects.ema is not None else None
        own = rank_specific(objects.model)
        checkpoint = Checkpoint(step, objects.model.state_dict(), ema, content)
        self._writer.save(checkpoint, lambda name: name not in own)

    def save_best(self, step: int, model: torch.nn.Module, figures: dict[str, Any]) -> None:
        """Begin writing the weights that dev chose. All processes call it."""
        in_shards = fsdp.is_sharded(model)
        if in_shards or self._accelerator.is_main_process:
            self._writer.save_best(step, model.state_dict(), {"dev": _finite(figures)}, in_shards=in_shards)

    def wait(self) -> None:
        """Return when what was begun is on the disk."""
        self._writer.wait()


def rank_specific(model: torch.nn.Module) -> set[str]:
    """The names in a checkpoint whose values differ between processes.

    Batch statistics, until DDP broadcasts those of the first process before the next step.
    """
    return {f"{field}/{name}" for field in ("model", "ema") for name, _ in model.named_buffers()}


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not (isinstance(v, float) and not math.isfinite(v))}
