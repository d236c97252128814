"""FSDP2: weights, gradients and optimizer states in shards over the processes, for what DDP cannot hold.

Chosen by Accelerate's configuration (launch/fsdp2.yaml, launch/hsdp.yaml), not by a key: how a run is spread over
processes is the launcher's business. With fsdp.param_dtype and fsdp.reduce_dtype as they are by default the arithmetic
is that of DDP: weights travel in float32 and autocast works as it does there.

No process but the first ever holds the whole model, and that one on the CPU and only where weights come from the seed
or from a backbone's file: the others build it without numbers, and a checkpoint is read by each process straight into
its shards. Each process writes its shards; what reads a checkpoint knows nothing of shards, so a run may resume with or
without, on any number of processes.

    with sharded.hidden_from_accelerate(): accelerator = Accelerator(fsdp_plugin=plugin(config))
    enable(accelerator, chosen)
    cut(model, accelerator, config)      # or, from a checkpoint: to_meta, shard, read
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from livetrain.checkpoint import safetensors_io
from livetrain.checkpoint.folders import CheckpointReader
from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.model import LivenessModel, is_element_wise

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZES = "PARALLELISM_CONFIG_"
# What `accelerate launch` sets for launch/fsdp2.yaml, for processes that are started in another way.
ENVIRONMENT = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}


def plugin(config: Config) -> FullyShardedDataParallelPlugin | None:
    """What Accelerate's launcher was given for FSDP; None without. Raises UserError for what would not be right."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("Accelerate's configuration asks for FSDP 1; set fsdp_version: 2, as in launch/fsdp2.yaml")
    for name, instead in (
        ("OFFLOAD_PARAMS", "more processes"),
        ("ACTIVATION_CHECKPOINTING", "model.grad_checkpointing"),
    ):
        if os.environ.get(f"FSDP_{name}", "false").lower() == "true":
            raise UserError(
                f"fsdp_{name.lower()} in Accelerate's configuration has no effect: set it to false, use {instead}"
            )
    name = config.optim.name.lower()
    if name.startswith(("bnb", "fused")):
        raise UserError(f"optim.name={name} has kernels that do not take shards: choose another, as adamw")
    if not is_element_wise(config.optim):
        raise UserError(
            f"optim.name={name} needs whole weights (norms or factors of them), and FSDP2 has shards: choose one that "
            "goes number by number, as adamw, or launch without FSDP"
        )
    _sizes(int(os.environ.get("WORLD_SIZE", "1")))
    return FullyShardedDataParallelPlugin(mixed_precision_policy=_policy(config))


def _policy(config: Config) -> MixedPrecisionPolicy:
    param, reduce = DTYPES[config.fsdp.param_dtype], DTYPES[config.fsdp.reduce_dtype]
    return MixedPrecisionPolicy(
        param_dtype=None if param == torch.float32 else param, reduce_dtype=None if reduce == param else reduce
    )


def _sizes(world: int) -> tuple[int, int]:
    """(replicas, shards of each), by Accelerate's parallelism_config. Raises UserError for what does not fit."""
    if os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() != "true":
        return 1, world
    sizes = {name: int(os.environ.get(f"{SIZES}{name}_SIZE", "1")) for name in ("TP", "CP", "SP")}
    others = [f"parallelism_config_{name.lower()}_size" for name, size in sizes.items() if size > 1]
    if others:
        raise UserError(f"{others[0]} in Accelerate's configuration is not for vision models: set it to 1")
    replicas, shards = (int(os.environ.get(f"{SIZES}DP_{name}_SIZE", "1")) for name in ("REPLICATE", "SHARD"))
    if replicas * shards != world or shards == 1:
        raise UserError(
            f"parallelism_config_dp_replicate_size={replicas} and parallelism_config_dp_shard_size={shards} in "
            f"Accelerate's configuration must multiply to the {world} processes, with at least two shards"
        )
    return replicas, shards


@contextlib.contextmanager
def hidden_from_accelerate() -> Iterator[None]:
    """Hide the parallelism configuration from Accelerate.

    The mesh is made here, the same on the CPU, where Accelerate 1.15 refuses it.
    """
    name = "ACCELERATE_USE_PARALLELISM_CONFIG"
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def enable(accelerator: Accelerator, chosen: FullyShardedDataParallelPlugin | None) -> None:
    """Set what Accelerate sets for FSDP2, in one place for both devices.

    On the CPU Accelerate 1.15 silently falls back to DDP. Nothing without FSDP, nor for one CPU process, which has
    nothing to share.
    """
    if chosen is None:
        return
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = chosen
        # As it does itself at the end for GPUs: every later look at its state copies from here.
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    replicas, shards = _sizes(accelerator.num_processes)
    names, sizes = (("dp_replicate", "dp_shard"), (replicas, shards)) if replicas > 1 else (("dp_shard",), (shards,))
    accelerator.state.device_mesh = init_device_mesh(accelerator.device.type, sizes, mesh_dim_names=names)


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's weights are in shards."""
    return isinstance(model, FSDPModule)


def to_meta(model: nn.Module) -> dict[str, torch.Tensor]:
    """Take the numbers out of a model's parameters, in place: what they were, by name; {} of a model without any.

    Buffers stay. Raises UserError for a model with a weight in two places, which shards cannot keep the same.
    """
    if len(list(model.named_parameters())) != len(list(model.named_parameters(remove_duplicate=False))):
        raise UserError("this backbone has weights that layers share, which FSDP2 does not keep so: launch without it")
    numbers = {name: tensor.detach() for name, tensor in model.named_parameters() if not tensor.is_meta}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            blank = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")  # dense: shards have no layout
            setattr(module, name, nn.Parameter(blank, requires_grad=parameter.requires_grad))
    return numbers


def shard(model: LivenessModel, accelerator: Accelerator, config: Config) -> None:
    """Shard a model on the meta device, in place.

    The backbone's repeated blocks are gathered one by one, the rest as one. Its parameters then hold anything; its
    buffers are on the device.
    """
    # The logits are a view, and nothing is done to them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    options: dict[str, Any] = {"mesh": accelerator.torch_device_mesh, "mp_policy": _policy(config)}
    reshard = accelerator.state.fsdp_plugin.reshard_after_forward
    for unit in reversed(units(model.backbone)):
        fully_shard(unit, **options, reshard_after_forward=reshard)
    fully_shard(model, **options)
    blank = {
        name: DTensor.from_local(
            torch.zeros_like(parameter.to_local(), device=accelerator.device),
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
        for name, parameter in model.named_parameters()
        if isinstance(parameter, DTensor)
    }
    model.load_state_dict(blank, assign=True, strict=False)


def spread(model: nn.Module, numbers: Mapping[str, torch.Tensor]) -> None:
    """Give each process its shards of the first one's `numbers`, and the first one's buffers. All processes call it."""
    first = distributed.get_rank() == 0
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if isinstance(tensor, DTensor):
                local = tensor.to_local()
                whole = numbers[name].to(local.device) if first else local.new_empty(tensor.shape)
                mine = distribute_tensor(whole.contiguous(), tensor.device_mesh, tensor.placements)
                local.copy_(mine.to_local())
    agree_on_buffers(model)


def cut(model: LivenessModel, accelerator: Accelerator, config: Config) -> None:
    """Bring a model that the first process has into shards, in place. All processes call it."""
    numbers = to_meta(model)
    shard(model, accelerator, config)
    spread(model, numbers)


def read(model: nn.Module, stored: safetensors_io.Stored, prefix: str, what: str) -> None:
    """Read a model's tensors, each process its shards, in place; in `stored` their names begin with `prefix`.

    Raises UserError when they are of another model.
    """
    mine = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    there = {name for name in stored.shapes if name.startswith(prefix)}
    wrong = [name for name in mine if name in there and stored.shapes[name] != tuple(mine[name].shape)]
    wrong += sorted(mine.keys() ^ there)
    if wrong:
        raise UserError(
            f"{what} does not fit the model ({len(wrong)} tensors, as {wrong[0].removeprefix(prefix)}); use the "
            "options it was trained with"
        )
    with torch.no_grad():
        stored.read(list(mine), into=mine)


def units(backbone: nn.Module) -> list[nn.Module]:
    """The modules that are gathered one by one: see `unit_names`."""
    names = unit_names(backbone)
    return [module for module in backbone.modules() if type(module).__name__ in names]


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


def read_optimizer_state(optimizer: torch.optim.Optimizer, saved: CheckpointReader) -> dict[str, Any]:
    """A checkpoint's optimizer state as the `load_state_dict` of one over shards takes it: each reads its own."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    into: dict[str, torch.Tensor] = {}
    for index, values in saved.outline["state"]["optimizer"]["state"].items():
        like = parameters[index]
        for name in safetensors_io.names_in(values):
            if isinstance(like, DTensor) and saved.stored.shapes[name] == tuple(like.shape):
                into[name] = torch.zeros_like(like, dtype=saved.stored.dtypes[name], requires_grad=False)
    state: dict[str, Any] = saved.part("state", "optimizer", into=into)
    return state


def agree_on_buffers(model: nn.Module) -> None:
    """Batch statistics of the first process for all, as DDP does it: they are not in shards."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)
