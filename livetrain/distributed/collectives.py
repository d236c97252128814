"""One decision for all processes of a run: the first one looks at the disk, the others do as it found.

Each looking for itself, on a file system that shows them different things, they would start at different updates.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from torch import distributed

from livetrain.checkpoint.folders import MANIFEST, SECONDS_TO_BE_SEEN
from livetrain.core.errors import MachineFault, UserError
from livetrain.core.files import file_sha256

Decision = TypeVar("Decision")


def is_single_process() -> bool:
    """Whether this process is the only one of its run."""
    return not distributed.is_initialized() or distributed.get_world_size() == 1


def is_rank_zero() -> bool:
    """Whether this is the process that decides."""
    return is_single_process() or distributed.get_rank() == 0


def decide_on_rank_zero(decide: Callable[[], Decision]) -> Decision:
    """What `decide()` returns on the first process, on all of them.

    All processes call it; `decide` runs on the first one alone and returns what can be pickled.

    A UserError that it raises is raised on all of them; after any other exception the others end with RuntimeError, in
    place of waiting for an answer.
    """
    if is_single_process():
        return decide()
    answer: list[Any] = [None, None]
    if is_rank_zero():
        try:
            answer[0] = decide()
        except UserError as error:
            answer[1] = error
        except Exception as error:
            broadcast_object_list([None, RuntimeError(f"the first process failed: {type(error).__name__}: {error}")])
            raise
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    found: Decision = answer[0]
    return found


def await_manifest(folder: Path, sha256: str) -> None:
    """Return when this process sees the checkpoint that the first one does. Raises MachineFault when it does not."""
    patience = time.monotonic() + SECONDS_TO_BE_SEEN
    while True:
        try:
            seen = file_sha256(folder / MANIFEST)
        except OSError as error:
            seen = error.strerror or str(error)
        if seen == sha256:
            return
        if time.monotonic() > patience:
            raise MachineFault(
                f"{socket.gethostname()} does not see {folder / MANIFEST} as the first process does ({seen[:80]}): "
                "run_dir must be one folder for all machines"
            )
        time.sleep(0.2)


def broadcast_tensors(tensors: Iterable[torch.Tensor], device: torch.device) -> None:
    """Make tensors what the first process has in them, in place.

    All processes call it with the same shapes in the same order.
    """
    if is_single_process():
        return
    with torch.no_grad():
        for tensor in tensors:
            moved = tensor.detach().to(device).contiguous()
            distributed.broadcast(moved, 0)
            if moved.data_ptr() != tensor.data_ptr():
                tensor.copy_(moved)
