"""The training loop: updates in order, a log line now and then, dev evaluations, checkpoints.

`step` counts finished updates. What the loop carries from one update to the next, beyond weights and optimizer, is
`Carry`: it is in every checkpoint, so that a run that goes on logs and chooses what it would have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from livetrain.checkpoint import folders
from livetrain.checkpoint.async_writer import CheckpointWriter
from livetrain.checkpoint.barrier import Team
from livetrain.checkpoint.folders import Checkpoint, Saved
from livetrain.config import Config
from livetrain.core.errors import MachineFault, NonFiniteLoss, Stopped
from livetrain.core.files import file_sha256, write_json
from livetrain.core.progress import progress, warn_stderr
from livetrain.data import Dataset, epoch_of_step, train_loader
from livetrain.data.loader_stages import Stages
from livetrain.distributed import collectives, fsdp, oom
from livetrain.distributed.load_weights import load_checked
from livetrain.distributed.preemption import StopRequest
from livetrain.distributed.watchdog import Heartbeat
from livetrain.evaluation.evaluator import evaluate, local_world
from livetrain.evaluation.lost_clips import LostClips
from livetrain.tracking import environment
from livetrain.tracking.metrics_log import MetricsLog, read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.tracking.wandb_run import Wandb
from livetrain.training import gc_control, resume
from livetrain.training.profiler import recording
from livetrain.training.setup import Parts
from livetrain.training.step import ADVICE, MAX_LEFT_OUT_IN_A_ROW, StepResult
from livetrain.training.throughput import Meter, over_processes
from livetrain.verdict import metrics


@dataclass
class Carry:
    """Loss sum and clips since the last log line, clips skipped so far, updates left out so far and in a row, the best
    dev figure (lower is better), whether the dev evaluation of this step is still to be done, evaluations since then
    that were no better, and clips that failed when they were last wanted (see LostClips.state)."""

    window_loss: float = 0.0
    window_clips: float = 0.0
    num_skipped: int = 0
    num_left_out: int = 0
    left_out_in_a_row: int = 0
    best: float = math.inf
    best_loss: float = math.inf
    eval_due: bool = False
    num_worse: int = 0
    lost: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


class Loop:
    """One run's training. Use as a context manager: however the run ends, it finishes writing what was begun."""

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        dataset: Dataset,
        parts: Parts,
        start: Saved | None,
        warn: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self.config, self.accelerator, self.dataset, self.parts, self.warn = config, accelerator, dataset, parts, warn
        self.start_step = start.step if start else 0
        self.carry = Carry(**start.part("state", "carry")) if start else Carry()
        self.skipped_before = self.carry.num_skipped
        self.lost = LostClips(len(dataset), self.carry.lost)
        self.run_dir = Path(config.run_dir)
        self.checkpoints = RunDir(self.run_dir).checkpoints
        self.wandb: Wandb | None = None
        self.log: MetricsLog | None = None
        self.pending: StepResult | None = None
        self.stop = stop
        self.heartbeat = Heartbeat(
            self.run_dir,
            accelerator.process_index,
            config.train.hang_timeout_seconds,
            world=accelerator.num_processes,
        )
        self.writer = CheckpointWriter(
            self.checkpoints,
            keep_last=config.train.keep_last,
            keep_every=config.train.keep_every_steps,
            tell=warn,
            team=Team.of_this_run(2 * config.train.hang_timeout_seconds),
        )
        self.open = contextlib.ExitStack()
        if accelerator.is_main_process:
            resume.write_config(config)
            write_json(
                RunDir(self.run_dir).environment, environment.describe(accelerator.device, accelerator.num_processes)
            )
            self.log = MetricsLog(RunDir(self.run_dir).metrics, start_anew=start is None)
            self.wandb = Wandb(config, self.run_dir, warn)
            if start is not None:
                self.wandb.send_missing(read_metrics(RunDir(self.run_dir).metrics))
        self.meter = Meter(
            clips_per_step=config.train.global_batch,
            frames_per_clip=config.data.num_frames,
            flops_per_clip=parts.flops_per_clip,
            device=accelerator.device,
            precision=config.train.precision,
            world=accelerator.num_processes,
        )
        self.window_loss = self.window_clips = 0.0  # since the last look at them
        self.stages: Stages | None = None  # of the loader, once there is one
        self.saved_at, self.save_due = time.monotonic(), False

    def __enter__(self) -> Loop:
        for part in (self.heartbeat, self.writer):
            self.open.enter_context(part)
        self.open.callback(self.meter.close)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None and issubclass(kind, Stopped | NonFiniteLoss):
            # All processes end so. None leaves before the last piece of a checkpoint is on the disk and announced: a
            # launcher ends the others half a minute after the first.
            self.heartbeat.beat(self.heartbeat.step, "saving")
            self.writer.wait()
            self.accelerator.wait_for_everyone()
        self.open.__exit__(kind, *rest)
        if self.wandb:
            self.wandb.finish(exit_code=0 if kind is None else 1)

    def train(self) -> None:
        """All updates from the start to the end of the run. Raises NonFiniteLoss, UserError, Stopped."""
        config, parts, accelerator = self.config, self.parts, self.accelerator
        self.heartbeat.beat(self.start_step, "starting")
        if RunDir(self.run_dir).best() is None:  # the disk was full then: what comes next is the best there is
            self.carry.best = self.carry.best_loss = math.inf
            self.carry.eval_due |= self.start_step >= parts.num_steps
        if self.carry.eval_due:
            self._evaluate(self.start_step)
        if self.start_step >= parts.num_steps or self._is_patience_over():
            self._check_lost()
            return
        loader = train_loader(
            self.dataset,
            config,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            local_world=local_world(accelerator),
            device=accelerator.device,
            mean=parts.model.mean,
            std=parts.model.std,
            start_step=self.start_step,
            num_steps=parts.num_steps,
        )
        self.stages = loader.stages
        title = f"training {config.name}"
        bar = progress(title, parts.num_steps, "steps", start=self.start_step, enabled=accelerator.is_main_process)
        profiler = recording(config.profile, self.run_dir, accelerator.process_index, self.warn)
        with loader, bar as advance, profiler as profiled, gc_control.at_rest() as collect:
            batches = iter(loader)
            waited = 0.0
            num_failures = num_notices = 0
            for step in range(self.start_step, parts.num_steps):
                micro_batches = list(itertools.islice(batches, config.train.accumulation))
                with oom.told_to_the_user(f"step {step}", oom.advice_for_training(config), self.run_dir):
                    result = parts.updater.update(
                        step, micro_batches, stop=self.stop.requested, save=self._wants_save()
                    )
                self.lost.add(step, micro_batches)
                stopping = self._settle()
                self.pending = result
                self.meter.add(loader.wait_seconds - waited)
                waited = loader.wait_seconds
                for failure in loader.failures[num_failures:]:
                    warn_stderr(f"warning: skipped {failure.shard}, key {failure.key}: {failure.reason}")
                num_failures = len(loader.failures)
                for notice in loader.refusals.notices[num_notices:]:
                    warn_stderr(notice)
                num_notices = len(loader.refusals.notices)
                counts = num_failures, len(loader.refusals.rows)
                advance(1, self._after(step + 1, result, counts, stopping))
                profiled()
                collect(step)
                self.heartbeat.beat(step + 1, "training")
                if stopping:
                    raise self._stopped(step + 1)
                if self._is_patience_over():
                    break
            self._settle()
        self._check_lost()

    def _wants_save(self) -> bool:
        """Whether it is time for a checkpoint, by the first process's clock; the others learn of it with the update."""
        minutes = self.config.train.save_every_minutes
        due = minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes
        return due and self.accelerator.is_main_process

    def _is_patience_over(self) -> bool:
        """Whether dev has not become better for train.patience evaluations; the same on all processes."""
        return 0 < self.config.train.patience <= self.carry.num_worse

    def _check_lost(self) -> None:
        """Raises UserError where too many of the clips that this run wanted are lost."""
        wanted = self.parts.num_steps * self.config.train.global_batch
        self.lost.check(self.config, self.dataset, min(wanted, self.parts.num_samples))

    def pause_point(self) -> None:
        """To be called by all processes between the batches of an evaluation. Raises Stopped when one was asked to."""
        self.heartbeat.beat(self.heartbeat.step, "evaluating")
        if self.stop.agree(self.accelerator):
            raise self._stopped(self.heartbeat.step)

    def scored(self) -> None:
        """To be called when an evaluation has scored its last batch: what follows tells of no progress."""
        self.heartbeat.beat(self.heartbeat.step, "verdict")

    def load_best(self) -> Path:
        """Put the weights that dev chose into the bare model. Returns the folder they are in."""
        self.heartbeat.beat(self.heartbeat.step, "saving")
        self.writer.wait()
        self.accelerator.wait_for_everyone()
        folder, manifest, sha256 = collectives.first_decides(self._find_best)
        collectives.await_manifest(folder, sha256)
        load_checked(self.parts.model, folder, manifest, averaged=False, what="the best checkpoint")
        self.heartbeat.beat(self.heartbeat.step, "evaluating")
        return folder

    def _find_best(self) -> tuple[Path, dict[str, Any], str]:
        """(folder, its manifest, the SHA-256 of that) of the best checkpoint, which is whole."""
        folder = RunDir(self.run_dir).best()
        if folder is None:
            raise MachineFault(
                f"{self.checkpoints} holds no best-* checkpoint, it could not be written; free some space and start "
                "the same command again: it goes on from the newest checkpoint"
            )
        return folder, folders.check(folder), file_sha256(folder / folders.MANIFEST)

    # --- after an update ----------------------------------------------------------------------------------------------

    def _settle(self) -> bool:
        """Look at the update before this one: its figures are here, or will be while the device does this one.

        Returns whether a process was asked to stop by then, the same on all of them.
        """
        if self.pending is None:
            return False
        trouble = self.parts.updater.check(self.pending)
        figures = self.pending.figures()
        self.pending = None
        if trouble:
            self._left_out(trouble)
        else:
            self.carry.left_out_in_a_row = 0
            self.window_loss += figures.loss
            self.window_clips += figures.num_clips
        self.save_due |= figures.num_saving > 0
        return figures.num_stopping > 0

    def _left_out(self, trouble: str) -> None:
        """Count an update without effect. Raises NonFiniteLoss when there were too many in a row."""
        self.carry.num_left_out += 1
        self.carry.left_out_in_a_row += 1
        if self.carry.left_out_in_a_row >= MAX_LEFT_OUT_IN_A_ROW:
            raise NonFiniteLoss(f"{trouble}; the {self.carry.left_out_in_a_row}th such update in a row. {ADVICE}")
        self.warn(f"warning: {trouble}; the update is left out")

    def _after(self, done: int, result: StepResult, counts: tuple[int, int], stopping: bool) -> str:
        """What is due when `done` updates are finished. Returns a note for the progress line."""
        config, last = self.config, done == self.parts.num_steps
        due_log = done % config.train.log_every == 0 or last
        self.carry.eval_due = last or self._epochs_due(done)
        due_eval = self.carry.eval_due and not stopping
        due_save = last or stopping or (config.train.save_every_steps and done % config.train.save_every_steps == 0)
        due_save = due_save or self.save_due
        note = ""
        if due_log or due_eval or due_save:
            self._settle()
            note = self._write_train_line(done, result, counts, due_log)
        started = time.perf_counter()
        if due_eval:
            try:
                self._evaluate(done)
            except Stopped:
                self._save(done)
                raise
            if self._is_patience_over():
                self.warn(f"dev was not better in {self.carry.num_worse} evaluations: training ends at {done} steps")
                due_save = True
        if due_save:
            self._save(done)
        if due_eval or due_save:
            self.meter.pause(time.perf_counter() - started)
        return note

    def _epochs_due(self, done: int) -> bool:
        every = self.config.train.eval_every_epochs
        if not every:
            return False
        before, now = (epoch_of_step(n, self.parts.num_samples, self.config) for n in (done - 1, done))
        return math.floor(now / every + 1e-9) > math.floor(before / every + 1e-9)

    def _write_train_line(self, done: int, result: StepResult, counts: tuple[int, int], due_log: bool) -> str:
        """counts: clips skipped, and those that the GPU's decoder refused, of this process in this attempt."""
        self.carry.window_loss += self.window_loss
        self.carry.window_clips += self.window_clips
        self.window_loss = self.window_clips = 0.0
        of_all = self.accelerator.reduce(torch.tensor(counts, device=self.accelerator.device), reduction="sum")
        skipped, refused = of_all.tolist()
        if self.skipped_before + skipped > self.carry.num_skipped or self.lost.failed:
            self.lost.agree()
            if self.accelerator.is_main_process:
                self.lost.write(self.run_dir, self.dataset)
            # Not at the end alone: what is spent until then would be for nothing.
            self.lost.check(self.config, self.dataset, self.parts.num_samples)
        self.carry.num_skipped = self.skipped_before + skipped
        self.carry.lost = self.lost.state()
        loss = self.carry.window_loss / self.carry.window_clips if self.carry.window_clips else math.nan
        if due_log:
            record = {
                "kind": "train",
                "step": done,
                "epoch": epoch_of_step(done, self.parts.num_samples, self.config),
                "loss": loss,
                "lr": result.learning_rate,
                "grad_norm": result.figures().grad_norm,
                "num_skipped": self.carry.num_skipped,
                "num_refused": refused,
                "num_left_out": self.carry.num_left_out,
                **over_processes(self.meter.read(), self.accelerator),
                **(self.stages.read() if self.stages else {}),
                "time": time.time(),
            }
            self._write(record)
            self.carry.window_loss = self.carry.window_clips = 0.0
        return f"loss {loss:.4f}"

    def _write(self, record: dict[str, Any]) -> None:
        if self.log and self.log.write(record) and self.wandb:
            self.wandb.log(record)

    def _evaluate(self, done: int) -> None:
        """Score dev; keep the weights when they are the best so far."""
        config, parts = self.config, self.parts
        self.heartbeat.beat(done, "evaluating")
        scored = parts.ema.module if parts.ema is not None and config.eval.use_ema else parts.model
        if self.accelerator.num_processes > 1:
            # Each process has the batch statistics of its own last update, and average of its own: those that are
            # saved are the first one's, so they are what is scored. DDP gives them to all before the next update, too.
            fsdp.agree_on_buffers(scored)
        result = evaluate(
            self.accelerator,
            config,
            self.dataset,
            config.data.dev_split,
            scored,
            parts.loss,
            after_batch=self.pause_point,
            after_scoring=self.scored,
            with_details=False,
        )

        def summary() -> dict[str, Any]:
            return {"loss": result.loss, **metrics.summary(result.scores)}

        figures = collectives.first_decides(summary)
        dev_loss = float(figures["loss"])
        epoch = epoch_of_step(done, parts.num_samples, config)
        self._write({"kind": "dev", "step": done, "epoch": epoch, **figures, "time": time.time()})
        if self.accelerator.is_main_process:
            told = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if isinstance(v, float))
            self.warn(f"dev after {done} steps ({epoch:.2f} epochs): {told}")
        self.carry.eval_due = False
        value = figures.get(config.eval.criterion)
        value = math.inf if value is None or math.isnan(value) else -value if config.eval.criterion == "auc" else value
        # Small dev splits tie often: then the smaller loss is the better model.
        self.carry.num_worse += 1
        if (value, dev_loss) < (self.carry.best, self.carry.best_loss):
            self.carry.num_worse = 0
            self.carry.best, self.carry.best_loss = value, dev_loss
            in_shards = fsdp.is_sharded(scored)
            if in_shards or self.accelerator.is_main_process:
                dev = {"dev": _finite(figures)}
                self.writer.save_best(done, scored.state_dict(), dev, in_shards=in_shards)

    def _stopped(self, done: int) -> Stopped:
        self.heartbeat.beat(done, "saving")
        self.writer.wait()
        names = gather_object([self.stop.name])
        why = ", ".join(sorted({name for name in names if name}))
        if self.wandb:
            self.wandb.mark_preempting()
        return Stopped(f"stopped by {why} after {done} updates; the same command goes on from there")

    def _save(self, done: int) -> None:
        self.heartbeat.beat(done, "saving")  # it may wait for the one before
        self.saved_at, self.save_due = time.monotonic(), False
        parts, scaler = self.parts, self.accelerator.scaler
        if fsdp.is_sharded(parts.model):
            fsdp.agree_on_buffers(parts.model)
        state = {
            "optimizer": parts.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "carry": dataclasses.asdict(self.carry),
            "data": self.dataset.fingerprint,
        }
        ema = parts.ema.module.state_dict() if parts.ema is not None else None
        own = each_ones_own(parts.model)
        self.writer.save(Checkpoint(done, parts.model.state_dict(), ema, state), lambda name: name not in own)


def each_ones_own(model: torch.nn.Module) -> set[str]:
    """What processes do not hold alike of a checkpoint, by the names in it: batch statistics are each one's own until
    DDP gives the first one's to all, before the next update."""
    return {f"{field}/{name}" for field in ("model", "ema") for name, _ in model.named_buffers()}


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not (isinstance(v, float) and not math.isfinite(v))}
