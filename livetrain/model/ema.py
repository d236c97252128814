"""The exponential moving average of the weights."""

from __future__ import annotations

from timm.utils import ModelEmaV3
from torch import nn


class Ema(ModelEmaV3):
    """A copy of the model, `.module`, in evaluation mode; `.update(model)` after each update of the optimizer.

    average ← decay * average + (1 - decay) * weights, for parameters and floating-point buffers (batch statistics);
    integer buffers are copied. It starts as the weights it is built from. `.module.state_dict()` is its whole state:
    loaded into a new Ema of the same decay, it goes on exactly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay=decay)
        self.module.requires_grad_(False)
