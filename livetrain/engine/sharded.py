"""FSDP2: weights, gradients and optimizer states in shards over the processes, for what DDP cannot hold.

Chosen by Accelerate's configuration (launch/fsdp2.yaml), not by a key: how a run is spread over processes is the
launcher's business. The arithmetic is that of DDP: weights travel in float32 and autocast works as it does there.
Each process writes its shards; what reads a checkpoint knows nothing of shards, so a run may go on with or without, on
any number of processes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from livetrain.config import Config
from livetrain.engine import pieces
from livetrain.engine.checkpoint import Saved
from livetrain.errors import UserError

# Element by element, so that a shard's update is the same as the whole's.
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum")


def plugin(config: Config) -> FullyShardedDataParallelPlugin | None:
    """What Accelerate's launcher was told of FSDP; None without. Raises UserError for what would not be right."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("Accelerate's configuration asks for FSDP 1; set fsdp_version: 2, as in launch/fsdp2.yaml")
    if config.train.ema_decay:
        raise UserError("train.ema_decay is not kept with FSDP2: set it to 0, or launch without FSDP")
    if config.model.compile:
        raise UserError("model.compile=true is not tried with FSDP2: set it to false, or launch without FSDP")
    if config.optim.clip_agc:
        raise UserError("optim.clip_agc needs whole weights: set it to 0, or launch without FSDP")
    if config.optim.name.lower() not in OPTIMIZERS:
        raise UserError(f"optim.name={config.optim.name} is not tried with FSDP2; choose of {', '.join(OPTIMIZERS)}")
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def make_it_so(accelerator: Accelerator, chosen: FullyShardedDataParallelPlugin | None) -> None:
    """On the CPU Accelerate 1.15 leaves FSDP out without a word and takes DDP; there it works as on CUDA."""
    if chosen is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = chosen
        # As it does itself at the end for GPUs: every later look at its state copies from here.
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's weights are in shards."""
    return isinstance(model, FSDPModule)


def before_prepare(accelerator: Accelerator, model: nn.Module, backbone: nn.Module) -> None:
    """What the model needs before Accelerate cuts it into shards: dense weights, and which classes are gathered as one
    (the backbone's repeated blocks, the outermost ones). Without FSDP nothing is done."""
    if accelerator.is_fsdp2:
        model.to(memory_format=torch.contiguous_format)
        # The logits are a view, and nothing is done to them in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        model._no_split_modules = unit_names(backbone)  # type: ignore[assignment]


def unit_names(backbone: nn.Module) -> list[str]:
    """Classes with parameters, at least two of which follow each other in one list of modules; outermost lists only."""
    found: set[str] = set()

    def look(module: nn.Module) -> None:
        for child in module.children():
            members = list(child.children()) if isinstance(child, nn.Sequential | nn.ModuleList) else []
            kinds = [type(m) for m in members if any(True for _ in m.parameters())]
            repeated = {kind.__name__ for kind in kinds if kinds.count(kind) > 1}
            # Stages of a network are lists of blocks: the blocks are the units.
            if repeated and not any(_holds_list(m) for m in members if type(m).__name__ in repeated):
                found.update(repeated)
            else:
                look(child)

    look(backbone)
    return sorted(found)


def _holds_list(module: nn.Module) -> bool:
    """Whether several modules of one kind with parameters follow each other in it."""
    lists = [m for m in module.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    for item in lists:
        kinds = [type(m) for m in item.children() if len(list(m.parameters())) > 2]
        if any(kinds.count(kind) > 1 for kind in kinds):
            return True
    return False


def whole(value: Any, *, keep: bool) -> Any:
    """Nested dicts and lists with every shard gathered into a tensor on the CPU. All processes call it; without `keep`
    a process helps to gather and has None in place of the tensors."""
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, torch.Tensor):
        return value if keep else None
    if isinstance(value, Mapping):
        return {key: whole(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, keep=keep) for item in value)
    return value


def _shard(value: Any, like: Any) -> Any:
    """A whole tensor in shards as `like` is; anything else as it is."""
    if isinstance(like, DTensor) and isinstance(value, torch.Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def shard_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Whole weights as the model's `load_state_dict` takes them. All processes call it with the same."""
    mine = model.state_dict()
    return {name: _shard(value, mine.get(name)) for name, value in weights.items()}


def read_optimizer_state(optimizer: torch.optim.Optimizer, saved: Saved) -> dict[str, Any]:
    """A checkpoint's optimizer state as the `load_state_dict` of one over shards takes it: each reads its own."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    into: dict[str, torch.Tensor] = {}
    for index, values in saved.outline["state"]["optimizer"]["state"].items():
        like = parameters[index]
        for name in pieces.names_in(values):
            if isinstance(like, DTensor) and saved.stored.shapes[name] == tuple(like.shape):
                into[name] = torch.zeros_like(like, dtype=saved.stored.dtypes[name], requires_grad=False)
    state: dict[str, Any] = saved.part("state", "optimizer", into=into)
    return state


def agree_on_buffers(model: nn.Module) -> None:
    """Batch statistics of the first process for all, as DDP does it: they are not in shards."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)
