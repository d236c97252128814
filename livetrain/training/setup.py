"""From the configuration to the objects of a run, in the order they depend on each other."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs, InitProcessGroupKwargs

from livetrain.checkpoint.folders import CheckpointReader
from livetrain.config import Config
from livetrain.config.checks import averages
from livetrain.core.errors import UserError
from livetrain.core.progress import warn_stderr
from livetrain.data import Dataset, num_train_steps
from livetrain.data.plan import micro_batch_size
from livetrain.distributed import collectives, fsdp, watchdog
from livetrain.distributed.load_weights import load_for_all
from livetrain.model import (
    Ema,
    EvenAverage,
    LivenessModel,
    build_loss,
    build_model,
    build_optimizer,
    build_schedule,
    check_single_frame,
    count_training_flops,
    fits,
    keeping_options,
    load_optimizer,
    prepare_model,
    warmup_steps,
)
from livetrain.model.losses import Loss
from livetrain.training.step import Updater, seed_torch


@dataclass
class RunObjects:
    """What the training loop works with.

    `model` is bare (or in shards, in place); `updater.model` is it as DDP wraps it. flops_per_clip: of training
    (count_training_flops); 0 on the CPU, whose peak nobody knows.
    """

    model: LivenessModel
    loss: Loss
    ema: Ema | None
    optimizer: Any
    updater: Updater
    num_samples: int
    num_steps: int
    flops_per_clip: float


def check_batch(config: Config) -> None:
    """Raise UserError when the global batch does not divide over the processes.

    Call it before they meet: each finds out by itself, and none waits for one that has ended.
    """
    micro_batch_size(config, int(os.environ.get("WORLD_SIZE", "1")))


def make_accelerator(config: Config) -> Accelerator:
    """Accelerate's view of the processes and the device. Raises UserError for arithmetic the device does not have."""
    if config.train.precision == "fp16" and not torch.cuda.is_available():
        # Told here, before Accelerate does in its own words: the gradient scaler needs CUDA.
        raise UserError("train.precision=fp16 needs a CUDA device; bf16 and fp32 run on the CPU")
    # The watchdog (distributed/watchdog.py) ends the run first and names the rank; then the collectives time out.
    patience = InitProcessGroupKwargs(timeout=timedelta(seconds=2 * config.train.hang_timeout_seconds))
    _keep_flight_records(Path(config.run_dir))
    _set_arithmetic(config)
    precision = "no" if config.train.precision == "fp32" else config.train.precision
    shards = fsdp.plugin(config)
    handlers = [patience, _ddp_options(config)]
    with fsdp.hidden_from_accelerate():
        accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=handlers, fsdp_plugin=shards)
    fsdp.enable(accelerator, shards)
    return accelerator


def _set_arithmetic(config: Config) -> None:
    """How CUDA does what it may do in several ways. cuBLAS reads its variable when it starts."""
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.train.deterministic)
    torch.backends.cudnn.deterministic = config.train.deterministic
    torch.backends.cudnn.benchmark = config.train.cudnn_benchmark
    torch.set_float32_matmul_precision("high" if config.train.tf32 else "highest")


def _ddp_options(config: Config) -> DistributedDataParallelKwargs:
    hooks = {
        "none": DDPCommunicationHookType.NO,
        "bf16": DDPCommunicationHookType.BF16,
        "fp16": DDPCommunicationHookType.FP16,
    }
    return DistributedDataParallelKwargs(
        bucket_cap_mb=config.ddp.bucket_mb,
        gradient_as_bucket_view=config.ddp.bucket_view,
        static_graph=config.ddp.static_graph,
        comm_hook=hooks[config.ddp.compression],
    )


def _keep_flight_records(run_dir: Path) -> None:
    """Have NCCL write its last collectives to run_dir/heartbeats/nccl-<rank> when one times out."""
    for name, value in (
        ("TORCH_FR_BUFFER_SIZE", "2000"),
        ("TORCH_NCCL_DUMP_ON_TIMEOUT", "1"),
        ("TORCH_FR_DUMP_TEMP_FILE", str(run_dir / watchdog.FOLDER / "nccl-")),
    ):
        os.environ.setdefault(name, value)


def make_model(config: Config, accelerator: Accelerator, *, with_weights: bool = True) -> LivenessModel:
    """The model on the device, with the seed's initial weights.

    with_weights=False leaves out pretrained backbone weights, for a model whose own are about to be loaded. Where
    weights will be in shards the first process has the model on the CPU, and the others one without numbers; without
    weights none has them.
    """
    seed_torch(config.seed, 0, 0)
    in_shards = accelerator.is_fsdp2
    has_numbers = not in_shards or (with_weights and accelerator.is_main_process)
    reads = with_weights and has_numbers
    options = config.model if reads else dataclasses.replace(config.model, weights="", pretrained=False)
    with contextlib.nullcontext() if has_numbers else init_empty_weights(include_buffers=False):
        model = build_model(options, config.loss, config.data.image_size, config.domains)
    return model if in_shards else model.to(accelerator.device)


def make_objects(
    config: Config,
    accelerator: Accelerator,
    dataset: Dataset,
    model: LivenessModel,
    start: CheckpointReader | None,
) -> RunObjects:
    """Everything else, set to where `start` left off."""
    loss = build_loss(config.loss)
    # What cannot work is refused before anything costs time.
    at_once = micro_batch_size(config, accelerator.num_processes) * config.data.num_frames
    if at_once == 1 and not config.model.freeze_backbone:
        check_single_frame(config.model.backbone, model.backbone, config.data.image_size)
    num_samples = len(dataset.rows(config.data.train_split))
    num_steps = num_train_steps(num_samples, config)
    asked, warmup = config.optim.warmup_steps, warmup_steps(config.optim, num_steps)
    if warmup != asked and accelerator.is_main_process:
        warn_stderr(f"warning: optim.warmup_steps={asked} in a run of {num_steps} steps: it warms up over {warmup}")
    if start is not None and averages(config) and start.outline["ema"] is None:
        raise UserError(
            "train.ema_decay or train.swa_start is set, but the checkpoint has no average of the weights; resume=never "
            "starts a new run"
        )
    if start is not None and not accelerator.is_fsdp2:
        load_for_all(model, lambda: start.part("model"), "the checkpoint")
    side = config.data.image_size
    on_cuda = accelerator.device.type == "cuda"
    flops_per_clip = count_training_flops(model, (config.data.num_frames, 3, side, side), config) if on_cuda else 0
    blocks = fsdp.units(model.backbone) if accelerator.is_fsdp2 else None
    prepare_model(model, config.model, accelerator.device, accelerator.num_processes, blocks=blocks)
    numbers = fsdp.to_meta(model) if accelerator.is_fsdp2 else {}
    ema = _average(model, config, num_steps)
    averaged = [] if ema is None else [(ema.module, "ema", "the checkpoint's average of the weights")]
    if accelerator.is_fsdp2:
        for module, field, what in [(model, "model", "the checkpoint"), *averaged]:
            fsdp.shard(module, accelerator, config)
            if start is None:
                fsdp.spread(module, numbers)
            else:
                fsdp.read(module, start.stored, f"{field}/", what)
        del numbers
    elif start is not None:
        for module, field, what in averaged:
            load_for_all(module, lambda: start.part(field), what)  # noqa: B023
    optimizer = build_optimizer(model, config.optim)
    schedule = build_schedule(optimizer, config.optim, num_steps)
    wrapped, prepared_optimizer = prepare(accelerator, model, optimizer)
    if start is not None:
        if not fits(optimizer, start.outline["state"]["optimizer"]):
            if not config.run.fork:
                raise UserError(
                    f"{start.path} was made with another optim.name or other groups of parameters (optim.layer_decay, "
                    "model.freeze): set them as they were, or resume from its weights with a new optimizer by "
                    "run.fork=true"
                )
            if accelerator.is_main_process:
                warn_stderr("warning: the optimizer is another one than the checkpoint's: it starts without a history")
        elif fsdp.is_sharded(model):
            with keeping_options(optimizer):
                optimizer.load_state_dict(fsdp.read_optimizer_state(optimizer, start))
        else:
            # Read once, and given to all; the others know the shapes from the files' heads.
            read = start.part if collectives.is_rank_zero() else start.blank
            load_optimizer(optimizer, read("state", "optimizer"))
            states = [optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]]
            tensors = (state[name] for state in states for name in sorted(state) if torch.is_tensor(state[name]))
            collectives.broadcast_tensors(tensors, accelerator.device)
        if accelerator.scaler is not None and start.outline["state"]["scaler"]:
            accelerator.scaler.load_state_dict(start.part("state", "scaler"))
    updater = Updater(accelerator, config, wrapped, loss, prepared_optimizer, schedule, ema)
    return RunObjects(model, loss, ema, optimizer, updater, num_samples, num_steps, flops_per_clip)


def _average(model: LivenessModel, config: Config, num_steps: int) -> Ema | None:
    if config.train.swa_start < 1:
        return EvenAverage(model, math.ceil(config.train.swa_start * num_steps))
    return Ema(model, config.train.ema_decay, warmup=config.train.ema_warmup) if config.train.ema_decay else None


def prepare(accelerator: Accelerator, model: LivenessModel, optimizer: Any) -> tuple[Any, Any]:
    """Model and optimizer as training calls them.

    A model in shards is left out of Accelerate's `prepare`, which looks for weights by their addresses: empty shards
    all have the same.
    """
    if fsdp.is_sharded(model):
        return model, accelerator.prepare_optimizer(optimizer)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    return wrapped, prepared
