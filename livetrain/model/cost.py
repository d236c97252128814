"""What a model costs, found out without computing anything: parameters, FLOPs, memory.

Forward passes here run on fake tensors (livetrain.model.fake_forward): a huge model costs no more than a small one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from livetrain.config import Config
from livetrain.config.checks import averages
from livetrain.model.fake_forward import fake_forward
from livetrain.model.optim import num_states

BYTES = 4  # of a float32 number: weights, gradients and optimizer states are float32 whatever train.precision is


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all parameters, those that are trained)."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def count_flops(model: nn.Module, clip_shape: Sequence[int]) -> int:
    """FLOPs of the forward pass of one clip [F,3,H,W]: matrix products and convolutions, two a multiply-add.

    By torch.utils.flop_counter; attention is counted as its two matrix products.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        fake_forward(model, (1, *clip_shape))
    return int(counter.get_total_flops())


def count_training_flops(model: nn.Module, clip_shape: Sequence[int], config: Config) -> int:
    """FLOPs that training needs for one clip: three times the forward pass.

    Backward costs twice as much as forward. Only once with model.freeze_backbone, whose head is too small to count.
    What gradient checkpointing computes again is not part of it (Chowdhery et al., "PaLM", 2022, appendix B). With
    model.freeze it is too many: frozen parts have less of a backward pass.
    """
    return (1 if config.model.freeze_backbone else 3) * count_flops(model, clip_shape)


def estimate_memory_bytes(model: nn.Module, config: Config, micro_batch: int) -> int:
    """Bytes that training takes on one device, for micro-batches of `micro_batch` clips of the configured shape.

        weights        4 x parameters
        gradients      4 x trained parameters
        optimizer      4 x states x trained parameters (`num_states`: AdamW 2, SGD with momentum 1)
        average        4 x parameters, with train.ema_decay or train.swa_start
        activations    what autograd saves of a micro-batch for its backward pass
        input          4 x values of a micro-batch

    What autograd saves is counted on a fake forward pass in training mode, under the configured precision, each storage
    once. Not in it: the allocator's slack, workspaces of convolutions, DDP's buckets (again the gradients), the CUDA
    context (about half a GiB), the decoder's buffers.
    """
    total, trained = count_parameters(model)
    side = config.data.image_size
    states = num_states(config.optim)
    fixed = BYTES * round(total + trained * (1 + states) + (total if averages(config) else 0))
    shape = (micro_batch, config.data.num_frames, 3, side, side)
    return fixed + saved_activation_bytes(model, shape, config.train.precision) + BYTES * math.prod(shape)


def saved_activation_bytes(model: nn.Module, shape: Sequence[int], precision: str = "fp32") -> int:
    """Bytes that autograd keeps from the forward pass of an input of `shape` for its backward pass, weights aside."""
    saved: dict[int, Tensor] = {}  # by storage; holding the tensor keeps its id from being used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved.setdefault(storage._cdata, tensor)
        return tensor

    weights: dict[str, Tensor] = {}
    was_training = model.training
    model.train()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    autocast = torch.autocast("cpu", dtype=dtype) if dtype else contextlib.nullcontext()
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad(), autocast:
            fake_forward(model, shape, weights)
    finally:
        model.train(was_training)
    own = {tensor.untyped_storage()._cdata for tensor in weights.values()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)
