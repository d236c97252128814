"""What a run reports while it trains: metrics.jsonl, W&B, the clips that failed to load."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator

from livetrain.config import Config
from livetrain.core.files import write_json
from livetrain.core.progress import warn_stderr
from livetrain.data import Batch, Dataset, Loader, epoch_of_step
from livetrain.evaluation.lost_clips import LostClips
from livetrain.tracking import environment
from livetrain.tracking.metrics_log import MetricsLog, read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.tracking.wandb_run import Wandb
from livetrain.training.resume import write_config
from livetrain.training.setup import RunObjects
from livetrain.training.state import TrainState
from livetrain.training.step import StepResult
from livetrain.training.throughput import Meter, over_processes


class RunLog:
    """The figures of a run. All processes make one and call it alike; the first one writes."""

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        dataset: Dataset,
        objects: RunObjects,
        state: TrainState,
        *,
        is_new: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._config, self._accelerator, self._dataset, self._objects = config, accelerator, dataset, objects
        self._state, self._warn = state, warn
        self._skipped_before = state.num_skipped
        self._lost = LostClips(len(dataset), state.lost)
        self._window_loss = self._window_clips = 0.0  # since the last look at them
        self._waited, self._num_failures, self._num_notices = 0.0, 0, 0
        self._loader: Loader | None = None
        self.meter = Meter(
            clips_per_step=config.train.global_batch,
            frames_per_clip=config.data.num_frames,
            flops_per_clip=objects.flops_per_clip,
            device=accelerator.device,
            precision=config.train.precision,
            world=accelerator.num_processes,
        )
        self.run = RunDir.of(config)
        self.wandb: Wandb | None = None
        self._metrics: MetricsLog | None = None
        if accelerator.is_main_process:
            write_config(config)
            write_json(self.run.environment, environment.describe(accelerator.device, accelerator.num_processes))
            self._metrics = MetricsLog(self.run.metrics, is_new=is_new)
            self.wandb = Wandb(config, self.run.path, warn)
            if not is_new:
                self.wandb.send_missing(read_metrics(self.run.metrics))

    def write(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl, and the same to W&B."""
        if self._metrics and self._metrics.write(record) and self.wandb:
            self.wandb.log(record)

    def watch(self, loader: Loader) -> None:
        """Report on this loader from now on."""
        self._loader = loader

    def step_done(self, step: int, batches: Iterable[Batch]) -> None:
        """Note which clips of a step were loaded and how long it waited for them; warn about those that failed."""
        self._lost.add(step, batches)
        loader = self._loader
        assert loader is not None, "call watch first"
        self.meter.add(loader.wait_seconds - self._waited)
        self._waited = loader.wait_seconds
        for failure in loader.failures[self._num_failures :]:
            warn_stderr(f"warning: skipped {failure.shard}, key {failure.key}: {failure.reason}")
        self._num_failures = len(loader.failures)
        for notice in loader.refusals.notices[self._num_notices :]:
            warn_stderr(notice)
        self._num_notices = len(loader.refusals.notices)

    def add_loss(self, loss: float, num_clips: float) -> None:
        """Add the loss sum of a step's clips to the window of the next log line."""
        self._window_loss += loss
        self._window_clips += num_clips

    def close_window(self, step: int, result: StepResult, *, write: bool) -> str:
        """Bring the state up to date after `step` steps and, with `write`, log a line. All processes call it.

        Returns a note for the progress line. Raises UserError when too many clips have failed to load.
        """
        state, accelerator, loader = self._state, self._accelerator, self._loader
        assert loader is not None, "call watch first"
        state.window_loss += self._window_loss
        state.window_clips += self._window_clips
        self._window_loss = self._window_clips = 0.0
        # Clips that failed, and those that the GPU's decoder refused, of this process in this attempt.
        counts = [len(loader.failures), len(loader.refusals.rows)]
        of_all = accelerator.reduce(torch.tensor(counts, device=accelerator.device), reduction="sum")
        skipped, refused = of_all.tolist()
        if self._skipped_before + skipped > state.num_skipped or self._lost.failed:
            self._lost.agree()
            if accelerator.is_main_process:
                self._lost.write(self.run.path, self._dataset)
            # Not at the end alone: what is spent until then would be for nothing.
            self._lost.check(self._config, self._dataset, self._objects.num_samples)
        state.num_skipped = self._skipped_before + skipped
        state.lost = self._lost.state()
        loss = state.window_loss / state.window_clips if state.window_clips else math.nan
        if write:
            record = {
                "kind": "train",
                "step": step,
                "epoch": self.epoch(step),
                "loss": loss,
                "lr": result.learning_rate,
                "grad_norm": result.figures().grad_norm,
                "num_skipped": state.num_skipped,
                "num_refused": refused,
                "num_left_out": state.num_left_out,
                **over_processes(self.meter.read(), accelerator),
                **loader.stages.read(),
                "time": time.time(),
            }
            self.write(record)
            state.window_loss = state.window_clips = 0.0
        return f"loss {loss:.4f}"

    def write_dev(self, step: int, kind: str, figures: dict[str, Any]) -> None:
        """Log an evaluation: of `dev`, of `shifted` dev, or of the split that eval.watch names."""
        epoch = self.epoch(step)
        self.write({"kind": kind, "step": step, "epoch": epoch, **figures, "time": time.time()})
        if self._accelerator.is_main_process:
            shown = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if isinstance(v, float))
            what = {"dev": "dev", "shifted": "dev, shifted,", "watch": self._config.eval.watch}[kind]
            self._warn(f"{what} after {step} steps ({epoch:.2f} epochs): {shown}")

    def epoch(self, step: int) -> float:
        """Passes over the training split after `step` steps."""
        return epoch_of_step(step, self._objects.num_samples, self._config)

    def check_lost(self) -> None:
        """Raises UserError where too many of the clips of this run failed to load."""
        wanted = self._objects.num_steps * self._config.train.global_batch
        self._lost.check(self._config, self._dataset, min(wanted, self._objects.num_samples))

    def close(self, *, failed: bool) -> None:
        """End the measuring, and the W&B run."""
        self.meter.close()
        if self.wandb:
            self.wandb.finish(exit_code=1 if failed else 0)
