"""Copies of tensors in host memory, so that a checkpoint can be written while training continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


def snapshot(value: Any, buffers: dict[str, torch.Tensor], path: str = "") -> Any:
    """A copy of nested dicts, lists and tuples with every tensor dense and on the CPU.

    Each has memory of its own; a DTensor stays one, over this process's shard.

    `buffers` holds that memory from call to call (pinned where the tensor is on CUDA, and then the copy is under way
    until the device is synchronised): the copy before must be done with.
    """
    if isinstance(value, DTensor):
        mesh = DeviceMesh("cpu", value.device_mesh.mesh, _init_backend=False)  # says who has what; none talks over it
        shard = snapshot(value.to_local(), buffers, path)
        return DTensor.from_local(
            shard, mesh, value.placements, run_check=False, shape=value.shape, stride=value.stride()
        )
    if isinstance(value, torch.Tensor):
        buffer = buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = buffers[path] = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        buffer.copy_(value.detach(), non_blocking=True)
        return buffer
    if isinstance(value, Mapping):
        return {key: snapshot(item, buffers, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, buffers, f"{path}/{number}") for number, item in enumerate(value))
    return value
