"""The training loop: steps in order, dev evaluations and checkpoints when they are due.

`step` counts finished steps. One step is an optimizer update: `train.accumulation` micro-batches on each process.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from livetrain.checkpoint import folders
from livetrain.checkpoint.folders import CheckpointReader
from livetrain.config import Config
from livetrain.core.errors import MachineFault, NonFiniteLoss, Stopped
from livetrain.core.files import file_sha256
from livetrain.core.progress import progress
from livetrain.core.world import World
from livetrain.data import Dataset, train_loader
from livetrain.data.perturb import Shifts
from livetrain.distributed import collectives, fsdp, oom
from livetrain.distributed.load_weights import load_checked
from livetrain.distributed.preemption import StopRequest
from livetrain.distributed.watchdog import Heartbeat
from livetrain.evaluation.evaluator import Hooks, evaluate
from livetrain.model import EvenAverage, LivenessModel
from livetrain.training import batch_statistics, gc_control
from livetrain.training.profiler import recording
from livetrain.training.run_log import RunLog
from livetrain.training.saving import Saver
from livetrain.training.setup import RunObjects
from livetrain.training.state import TrainState, chosen_by
from livetrain.training.step import ADVICE, MAX_SKIPPED_IN_A_ROW, StepResult
from livetrain.verdict import metrics


class Trainer:
    """One run's training. Use as a context manager: however the run ends, it finishes writing what was begun."""

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        dataset: Dataset,
        objects: RunObjects,
        start: CheckpointReader | None,
        warn: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self.config, self.accelerator, self.dataset, self.objects = config, accelerator, dataset, objects
        self.warn, self.stop = warn, stop
        self.start_step = start.step if start else 0
        self.state = TrainState.of(start)
        self.log = RunLog(config, accelerator, dataset, objects, self.state, is_new=start is None, warn=warn)
        self.run = self.log.run
        self.saver = Saver(config, accelerator, objects, self.run, dataset.fingerprint, warn)
        self.heartbeat = Heartbeat(
            self.run.path,
            accelerator.process_index,
            config.train.hang_timeout_seconds,
            world=accelerator.num_processes,
        )
        self.pending: StepResult | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Trainer:
        for part in (self.heartbeat, self.saver):
            self._open.enter_context(part)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None and issubclass(kind, Stopped | NonFiniteLoss):
            # All processes end so. None leaves before the last piece of a checkpoint is on the disk and announced: a
            # launcher ends the others half a minute after the first.
            self.heartbeat.beat(self.heartbeat.step, "saving")
            self.saver.wait()
            self.accelerator.wait_for_everyone()
        self._open.__exit__(kind, *rest)
        self.log.close(failed=kind is not None)

    def train(self) -> None:
        """All steps from the start to the end of the run. Raises NonFiniteLoss, UserError, Stopped."""
        num_steps = self.objects.num_steps
        self.heartbeat.beat(self.start_step, "starting")
        if self.run.best() is None:  # the disk was full then
            self.state.forget_best()
            self.state.eval_due |= self.start_step >= num_steps
        if self.state.eval_due:
            self._evaluate(self.start_step)
        if self.start_step < num_steps and not self._is_patience_over():
            self._train()
        self.log.check_lost()

    def _train(self) -> None:
        config, objects, accelerator = self.config, self.objects, self.accelerator
        model = objects.model
        loader = train_loader(
            self.dataset,
            config,
            world=World.of(accelerator),
            mean=model.mean,
            std=model.std,
            start_step=self.start_step,
            num_steps=objects.num_steps,
        )
        self.log.watch(loader)
        title = f"training {config.name}"
        bar = progress(title, objects.num_steps, "steps", start=self.start_step, enabled=accelerator.is_main_process)
        profiler = recording(config.profile, self.run.path, accelerator.process_index, self.warn)
        with loader, bar as advance, profiler as profiled, gc_control.paused_gc() as collect:
            batches = iter(loader)
            for step in range(self.start_step, objects.num_steps):
                micro_batches = list(itertools.islice(batches, config.train.accumulation))
                with oom.oom_advice(f"step {step}", oom.advice_for_training(config), self.run.path):
                    stop, save = self.stop.requested, self.saver.wants_save()
                    result = objects.updater.update(step, micro_batches, stop=stop, save=save)
                stopping = self._settle()
                self.pending = result
                self.log.step_done(step, micro_batches)
                advance(1, self._after(step + 1, result, stopping))
                profiled()
                collect(step)
                self.heartbeat.beat(step + 1, "training")
                if stopping:
                    raise self._stopped(step + 1)
                if self._is_patience_over():
                    break
            self._settle()

    def _is_patience_over(self) -> bool:
        """Whether dev has not become better for train.patience evaluations; the same on all processes."""
        return 0 < self.config.train.patience <= self.state.num_worse

    @property
    def hooks(self) -> Hooks:
        """What an evaluation within this run calls."""
        return Hooks(self.pause_point, self.scored)

    def pause_point(self) -> None:
        """To be called by all processes between the batches of an evaluation. Raises Stopped when one was asked to."""
        self.heartbeat.beat(self.heartbeat.step, "evaluating")
        if self.stop.agree(self.accelerator):
            raise self._stopped(self.heartbeat.step)

    def scored(self) -> None:
        """To be called when an evaluation has scored its last batch: what follows reports no progress."""
        self.heartbeat.beat(self.heartbeat.step, "verdict")

    def load_best(self) -> Path:
        """Put the weights that dev chose into the bare model. Returns the folder they are in."""
        self.heartbeat.beat(self.heartbeat.step, "saving")
        self.saver.wait()
        self.accelerator.wait_for_everyone()
        folder, manifest, sha256 = collectives.decide_on_rank_zero(self._find_best)
        collectives.await_manifest(folder, sha256)
        load_checked(self.objects.model, folder, manifest, averaged=False, what="the best checkpoint")
        self.heartbeat.beat(self.heartbeat.step, "evaluating")
        return folder

    def _find_best(self) -> tuple[Path, dict[str, Any], str]:
        """(folder, its manifest, the SHA-256 of that) of the best checkpoint, which is whole."""
        folder = self.run.best()
        if folder is None:
            raise MachineFault(
                f"{self.run.checkpoints} has no best-* checkpoint, it could not be written; free some space and start "
                "the same command again: it resumes from the newest checkpoint"
            )
        return folder, folders.check(folder), file_sha256(folder / folders.MANIFEST)

    # --- after a step -------------------------------------------------------------------------------------------------

    def _settle(self) -> bool:
        """Look at the step before this one: its figures are here, or will be while the device does this one.

        Returns whether a process was asked to stop by then, the same on all of them.
        """
        if self.pending is None:
            return False
        trouble = self.objects.updater.check(self.pending)
        figures = self.pending.figures()
        self.pending = None
        if trouble:
            self._skipped(trouble)
        else:
            self.state.left_out_in_a_row = 0
            self.log.add_loss(figures.loss, figures.num_clips)
        self.saver.is_due |= figures.num_saving > 0
        return figures.num_stopping > 0

    def _skipped(self, trouble: str) -> None:
        """Count a skipped step. Raises NonFiniteLoss when there were too many in a row."""
        self.state.num_left_out += 1
        self.state.left_out_in_a_row += 1
        if self.state.left_out_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteLoss(f"{trouble}; the {self.state.left_out_in_a_row}th such step in a row. {ADVICE}")
        self.warn(f"warning: {trouble}; the step is skipped")

    def _after(self, done: int, result: StepResult, stopping: bool) -> str:
        """What is due when `done` steps are finished. Returns a note for the progress line."""
        config, last = self.config, done == self.objects.num_steps
        due_log = done % config.train.log_every == 0 or last
        self.state.eval_due = last or self._is_eval_due(done)
        due_eval = self.state.eval_due and not stopping
        due_save = last or stopping or (config.train.save_every_steps and done % config.train.save_every_steps == 0)
        due_save = due_save or self.saver.is_due
        note = ""
        if due_log or due_eval or due_save:
            self._settle()
            note = self.log.close_window(done, result, write=due_log)
        started = time.perf_counter()
        if due_eval:
            try:
                self._evaluate(done)
            except Stopped:
                self._save(done)
                raise
            if self._is_patience_over():
                self.warn(f"dev was not better in {self.state.num_worse} evaluations: training ends at {done} steps")
                due_save = True
        if due_save:
            self._save(done)
        if due_eval or due_save:
            self.log.meter.pause(time.perf_counter() - started)
        return note

    def _is_eval_due(self, done: int) -> bool:
        every = self.config.train.eval_every_epochs
        if not every:
            return False
        return math.floor(self.log.epoch(done) / every + 1e-9) > math.floor(self.log.epoch(done - 1) / every + 1e-9)

    def _evaluate(self, done: int) -> None:
        """Score dev; keep the weights when they are the best so far."""
        config, objects = self.config, self.objects
        self.heartbeat.beat(done, "evaluating")
        scored = objects.ema.module if objects.ema is not None and config.eval.use_ema else objects.model
        if isinstance(objects.ema, EvenAverage) and scored is objects.ema.module and done > objects.ema.first:
            num_updates = min(config.train.swa_bn_updates, objects.num_steps)
            batch_statistics.estimate(scored, config, self.accelerator, self.dataset, num_updates)
        if self.accelerator.num_processes > 1:
            # Each process has the batch statistics of its own last step, and its own average: those that are saved
            # are the first one's, so they are what is scored. DDP broadcasts them before the next step, too.
            fsdp.agree_on_buffers(scored)
        dev = config.data.dev_split
        figures = {"dev": self._figures(scored, dev)}
        if config.eval.shifted_dev:
            figures["shifted"] = self._figures(scored, dev, self._shifts)
        watched = {"watch": self._figures(scored, config.eval.watch)} if config.eval.watch else {}
        for kind, found in (figures | watched).items():
            self.log.write_dev(done, kind, found)
        if self.state.take_dev(chosen_by(figures, config.eval), config.eval.criterion):
            self.saver.save_best(done, scored, figures["dev"])

    @functools.cached_property
    def _shifts(self) -> Shifts:
        """Of shifted dev, the same at every evaluation."""
        return Shifts.spread(self.dataset, self.config.data.dev_split)

    def _figures(self, model: LivenessModel, split: str, shifts: Shifts | None = None) -> dict[str, Any]:
        """Loss and figures of a split, on all processes."""
        result = evaluate(
            self.accelerator, self.config, self.dataset, split, model,
            hooks=self.hooks, shifts=shifts, with_details=False,
        )  # fmt: skip
        return collectives.decide_on_rank_zero(lambda: {"loss": result.loss, **metrics.summary(result.scores)})

    def _stopped(self, done: int) -> Stopped:
        self.heartbeat.beat(done, "saving")
        self.saver.wait()
        names = gather_object([self.stop.name])
        why = ", ".join(sorted({name for name in names if name}))
        if self.log.wandb:
            self.log.wandb.mark_preempting()
        return Stopped(f"stopped by {why} after {done} updates; the same command resumes")

    def _save(self, done: int) -> None:
        self.heartbeat.beat(done, "saving")
        self.saver.save(done, self.state)
