"""What is done to weights that may be in shards (FSDP2: DTensors, cut along the first dimension)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, Shard


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, in the same memory; a tensor that is whole, itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def clip_by_unit(parameters: Iterable[nn.Parameter], factor: float, eps: float = 1e-3) -> None:
    """Adaptive gradient clipping, in place.

    The gradient of each unit (the first dimension; a vector is one unit) gets at most `factor` times the norm of its
    weights, which counts as `eps` at least.

    Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021, equation 3. Units lie
    whole within a shard; only vectors' norms are summed over the processes, all of them at once.
    """
    pairs = [(item.detach(), item.grad) for item in parameters if item.grad is not None]
    vectors = [tensor for pair in pairs if pair[0].ndim <= 1 for tensor in pair]
    norms = iter(_sums_of_squares(vectors).sqrt())
    with torch.no_grad():
        for weight, gradient in pairs:
            if weight.ndim <= 1:
                weight_norm, gradient_norm = next(norms), next(norms)
            else:
                over = tuple(range(1, weight.ndim))
                weight_norm, gradient_norm = (local(t).norm(2.0, dim=over, keepdim=True) for t in (weight, gradient))
            limit = weight_norm.clamp(min=eps) * factor
            local(gradient).mul_(torch.where(gradient_norm < limit, 1.0, limit / gradient_norm.clamp(min=1e-6)))


def _sums_of_squares(tensors: list[Tensor]) -> Tensor:
    """Of each tensor, whole; float [n]."""
    if not tensors:
        return torch.empty(0)
    sums = torch.stack([local(tensor).float().square().sum() for tensor in tensors])
    first = tensors[0]
    if isinstance(first, DTensor):
        for dim, placement in enumerate(first.placements):
            if isinstance(placement, Shard):
                distributed.all_reduce(sums, group=first.device_mesh.get_group(dim))
    return sums
