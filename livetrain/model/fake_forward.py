"""A forward pass on fake tensors: shapes and types without numbers.

It takes as long for a huge model on a laptop as for a small one, needs no device and leaves batch statistics alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call


def fake_forward(model: nn.Module, shape: Sequence[int], weights: dict[str, Tensor] | None = None) -> Tensor:
    """The model's output (fake: shape and dtype, no numbers) for a float32 input of `shape`, on the CPU.

    `weights`, if given, is filled with the fake stand-ins of parameters and buffers. The model itself is not touched,
    also where it updates batch statistics, and runs as it is written even if it is compiled.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins: dict[str, Any] = {} if weights is None else weights
    with mode:
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            stand_ins[name] = fake.requires_grad_(tensor.requires_grad)
        compiled, model._compiled_call_impl = model._compiled_call_impl, None
        try:
            # Tied: torch would put the stand-in back where one layer is in two places (CoaT).
            return functional_call(model, stand_ins, (torch.empty(tuple(shape)),), tie_weights=False)
        finally:
            model._compiled_call_impl = compiled
