"""One update: forward and backward over the accumulated micro-batches, clipping, optimizer, average of the weights.

The loss of an update is the sum over its valid clips of the loss of a clip, over the *constant* global batch. So it
does not depend on how the batch is cut into processes and micro-batches, and a clip that could not be decoded
contributes nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor

from livetrain.config import Config
from livetrain.core.errors import NonFiniteLoss
from livetrain.data import Batch
from livetrain.distributed import fsdp
from livetrain.model import clip_by_unit
from livetrain.model.keyed_dropout import batch_keys
from livetrain.model.losses import Loss
from livetrain.training.objective import Objective

ADVICE = "Try a lower optim.lr, optim.clip_grad_norm, or train.precision=fp32"
HEADS = ("head.", "attack_head.", "domain_head.")
MAX_SKIPPED_IN_A_ROW = 10  # updates: weights or data that give no numbers so often do not recover


@dataclass
class StepResult:
    """What an update did. Its figures are on their way to the host; `figures` waits until they are there.

    left_out: the weights are as before it (train.on_non_finite=skip).
    A read of a device tensor would wait for everything that was asked of the device since, the next update included.
    """

    step: int
    learning_rate: float
    losses: list[torch.Tensor]
    keys: list[str]
    left_out: bool
    _host: torch.Tensor
    _arrived: torch.cuda.Event | None

    def figures(self) -> Figures:
        """Over all processes."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return Figures(*self._host.tolist())


@dataclass(frozen=True)
class Figures:
    """Figures of a step, over all processes.

    Sum of losses, number of valid clips, of clips with a non-finite loss, of processes that were asked to stop and that
    want a checkpoint, norm of the gradient before clipping.
    """

    loss: float
    num_clips: float
    num_bad: float
    num_stopping: float
    num_saving: float
    grad_norm: float


class Updater:
    """Does updates of a prepared model; `ema` (or None) follows each of them."""

    def __init__(
        self,
        accelerator: Accelerator,
        config: Config,
        model: torch.nn.Module,
        loss: Loss,
        optimizer: Any,
        schedule: Any,
        ema: Any | None,
    ) -> None:
        self.accelerator, self.config = accelerator, config
        self.model, self.optimizer, self.schedule, self.ema = model, optimizer, schedule, ema
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # The last layer is left out, as its authors do (Brock et al., 2021, section 4.1).
        self.clipped_by_unit = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not name.removeprefix("module.").startswith(HEADS)
        ]
        bare = accelerator.unwrap_model(model)
        self.noise, self.objective = bare.noise, Objective(accelerator, config, loss, bare)
        self.skips = config.train.on_non_finite == "skip"
        self.buffers = list(model.buffers()) if self.skips else []

    def update(self, step: int, batches: Sequence[Batch], *, stop: bool = False, save: bool = False) -> StepResult:
        """Update number `step` (from 0) on this process's micro-batches of it.

        `stop`: this one was asked to stop; `save`: it wants a checkpoint.
        """
        accelerator, config = self.accelerator, self.config
        if not self.model.training:  # walks over all modules
            self.model.train()
        self.schedule.step_update(step)
        learning_rate = max(group["lr"] for group in self.optimizer.param_groups)
        # DDP averages gradients over the processes: multiplied by their number, the average is the sum.
        scale = accelerator.num_processes / config.train.global_batch
        self.objective.begin(batches)
        losses = []
        before = [buffer.clone() for buffer in self.buffers]
        for micro, batch in enumerate(batches):
            # Shards are added up shard by shard: kept for the last micro-batch, gradients would be whole.
            averages = micro == len(batches) - 1 or fsdp.is_sharded(self.model)
            chunk = micro * accelerator.num_processes + accelerator.process_index
            seed_torch(config.seed, step, chunk)  # whatever draws beside the noise layers
            positions = chunk * len(batch.rows) + torch.arange(len(batch.rows), device=batch.clips.device)
            self.noise.clips = batch_keys(config.seed, step, positions)
            with contextlib.nullcontext() if averages else accelerator.no_sync(self.model):
                reversal = self.objective.reversal(step, batch.clips.device)
                with accelerator.autocast():
                    outputs = self.model(batch.clips, **({} if reversal is None else {"reversal": reversal}))
                total, clip_losses = self.objective(outputs, batch)
                accelerator.backward(total * scale)
            losses.append(clip_losses.detach())
        self.noise.clips = None
        grad_norm = self._clip()
        totals = self._totals(losses, batches, stop, save)
        figures = torch.cat([totals, grad_norm.detach().double().reshape(1)])
        left_out = self.skips and self._has_bad_numbers(Figures(*figures.tolist()))
        if left_out:
            for buffer, value in zip(self.buffers, before, strict=True):  # batch norm has seen the bad numbers too
                buffer.copy_(value)
        if not left_out or accelerator.scaler is not None:  # fp16's scaler sees bad gradients too: it lowers its scale
            self.optimizer.step()
        if self.ema is not None and not left_out:
            self.ema.update(accelerator.unwrap_model(self.model), step=step)
        self.optimizer.zero_grad()
        keys = [key for batch in batches for key in batch.keys]
        if figures.is_cuda:
            host = torch.empty(6, dtype=torch.float64, pin_memory=True).copy_(figures, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            return StepResult(step, learning_rate, losses, keys, left_out, host, arrived)
        return StepResult(step, learning_rate, losses, keys, left_out, figures, None)

    def _totals(self, losses: list[torch.Tensor], batches: Sequence[Batch], stop: bool, save: bool) -> torch.Tensor:
        """The first five of `Figures`, summed over the processes, float64 on the device."""
        joined = torch.cat(losses).double()
        valid = torch.cat([batch.valid for batch in batches])
        # Filled on the device: a tensor of Python numbers would be copied there, and waited for.
        asked = [torch.full((), float(it), dtype=torch.float64, device=joined.device) for it in (stop, save)]
        counts = [joined.sum(), valid.sum().double(), (~joined.isfinite()).sum().double()]
        totals = torch.stack([*counts, *asked])
        return self.accelerator.reduce(totals, reduction="sum")

    def _clip(self) -> torch.Tensor:
        """Clip the gradient; its norm before. Without clipping there is a norm and no second pass over gradients."""
        options = self.config.optim
        # Not Accelerate's clip_grad_norm_: over shards with frozen parameters it unscales fp16's gradients twice.
        self.accelerator.unscale_gradients()
        if options.clip_grad_norm:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, options.clip_grad_norm)
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if options.clip_grad_value:
            torch.nn.utils.clip_grad_value_(self.parameters, options.clip_grad_value)
        if options.clip_agc:
            clip_by_unit(self.clipped_by_unit, options.clip_agc)
        return norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)

    def _has_bad_numbers(self, figures: Figures) -> bool:
        """Whether a loss or the gradient is NaN or Inf.

        A non-finite gradient under fp16 is the gradient scaler's business, which skips such an update.
        """
        return bool(figures.num_bad) or (self.config.train.precision != "fp16" and not math.isfinite(figures.grad_norm))

    def check(self, result: StepResult) -> str:
        """What was not finite in the update, with the clips, the same on all processes; "" when all was.

        Raises NonFiniteLoss, on all processes together, where that ends the run.
        """
        figures = result.figures()
        if not self._has_bad_numbers(figures):
            return ""
        num_bad = int(figures.num_bad)
        finite = torch.cat(result.losses).isfinite().tolist()
        suspects = [key for key, good in zip(result.keys, finite, strict=True) if not good or not num_bad]
        named = gather_object(suspects)
        what = f"the loss of {num_bad} clips is" if num_bad else "the gradient is"
        message = f"step {result.step}: {what} not finite; clips: {', '.join(named[:32])}" + (
            f" and {len(named) - 32} more" if len(named) > 32 else ""
        )
        if result.left_out:
            return message
        raise NonFiniteLoss(f"{message}. {ADVICE}")


def seed_torch(seed: int, step: int, chunk: int) -> None:
    """Seed Torch's generators for one micro-batch, so that dropout needs no saved state to resume."""
    state = np.random.SeedSequence([seed, step, chunk]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) >> 1)
