"""The exponential moving average of the weights."""

from __future__ import annotations

from timm.utils import ModelEmaV3
from torch import nn


class Ema(ModelEmaV3):
    """A copy of the model, `.module`, in evaluation mode; `.update(model)` after each update of the optimizer.

    average ← decay * average + (1 - decay) * weights, for parameters and floating-point buffers (batch statistics);
    integer buffers are copied. It starts as the weights it is built from. `.module.state_dict()` is its whole state:
    loaded into a new Ema of the same decay, it goes on exactly.

    warmup: the decay is min(decay, 1 - (1 + n)^(-2/3)) at update n (timm's, from 0): an average that is used early is
    not of the initial weights. At a decay of 0.999 they would still be 39 % of it after 940 updates.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = False) -> None:
        super().__init__(model, decay=decay, use_warmup=warmup)
        self.module.requires_grad_(False)
