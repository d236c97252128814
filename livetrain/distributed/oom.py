"""A device without memory left says what to change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from livetrain.config import Config
from livetrain.core.errors import MachineFault, first_line


@contextlib.contextmanager
def oom_advice(what: str, advice: str, folder: Path | None = None) -> Iterator[None]:
    """Raise MachineFault with `advice` where the block runs out of memory.

    Of a GPU or of the machine; of a GPU with a snapshot of its memory in `folder`.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        kept = _keep_snapshot(folder) if folder and isinstance(error, torch.OutOfMemoryError) else ""
        raise MachineFault(f"{what}: out of memory ({first_line(error)}); {advice}{kept}") from error


def _keep_snapshot(folder: Path) -> str:
    """Write what lies in the GPU's memory, for https://pytorch.org/memory_viz. Returns a clause that says where."""
    path = folder / f"out-of-memory-{os.environ.get('RANK', '0')}.pickle"
    try:
        torch.cuda.memory._dump_snapshot(str(path))
    except (RuntimeError, OSError):  # a disk that is full too is no reason to hide the advice
        return ""
    return f". What lay in it: {path} (open it at https://pytorch.org/memory_viz)"


def advice_for_training(config: Config) -> str:
    """What makes an update smaller without changing what is learned, before what does."""
    accumulation = config.train.accumulation
    ways = [f"train.accumulation={2 * accumulation} halves it for the same update, batch norm aside"]
    if not config.model.grad_checkpointing:
        ways.append("model.grad_checkpointing=true keeps less of it")
    if config.train.precision == "fp32":
        ways.append("train.precision=bf16 takes about half")
    return ", ".join(ways) + "; or fewer data.num_frames, a smaller data.image_size or train.global_batch"


def advice_for_evaluation(config: Config) -> str:
    """What makes a batch of an evaluation smaller."""
    if config.eval.num_frames == 0:
        return "set eval.num_frames: with 0 all frames of a video are there at once"
    return f"set eval.batch_size below {config.eval.batch_size}; scores do not depend on it"
