"""Load weights into a model on all processes: read once and broadcast, or each process its own shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from livetrain.checkpoint import folders
from livetrain.core.errors import UserError
from livetrain.distributed import collectives, fsdp


def load_for_all(model: torch.nn.Module, read: Callable[[], dict[str, torch.Tensor]], what: str) -> None:
    """`load_weights` of what `read()` gives on the first process, for all of them.

    The model is not in shards (see sharded.read).
    """

    def load() -> None:
        load_weights(model, read(), what)

    collectives.decide_on_rank_zero(load)
    device = next(model.parameters()).device
    collectives.broadcast_tensors(model.state_dict().values(), device)


def load_checked(model: torch.nn.Module, folder: Path, manifest: dict[str, Any], *, averaged: bool, what: str) -> None:
    """Load the weights of a checkpoint's folder of either kind on all processes.

    Its manifest was checked before. averaged: the moving average, where there is one beside the weights.
    """
    if fsdp.is_sharded(model):
        stored, prefix = folders.stored_weights(folder, manifest, averaged=averaged)
        fsdp.read(model, stored, prefix, what)
    else:
        load_for_all(model, lambda: folders.read_weights(folder, manifest, averaged=averaged)[0], what)


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], what: str) -> None:
    """Load `weights` into `model`. Raises UserError when they are of another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise UserError(f"{what} does not fit the model ({first}); use the options it was trained with") from None
