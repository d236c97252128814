"""A device without memory left says what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from livetrain.config import Config
from livetrain.errors import MachineFault, first_line


@contextlib.contextmanager
def told_to_the_user(what: str, advice: str) -> Iterator[None]:
    """Raises MachineFault with `advice` where the block runs out of memory, of a GPU or of the machine."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise MachineFault(f"{what}: out of memory ({first_line(error)}); {advice}") from error


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
