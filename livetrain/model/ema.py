"""Averages of the weights over the updates of a run: an exponential one, and an even one."""

from __future__ import annotations

import copy

import torch
from timm.utils import ModelEmaV3
from torch import nn

from livetrain.model.local_shards import local


class Ema(ModelEmaV3):
    """A copy of the model, `.module`, in evaluation mode; `.update(model)` after each update of the optimizer.

    average ← decay * average + (1 - decay) * weights, for parameters and floating-point buffers (batch statistics);
    integer buffers are copied. It starts as the weights it is built from. `.module.state_dict()` is its whole state:
    loaded into a new Ema of the same decay, it continues exactly.

    warmup: the decay is min(decay, 1 - (1 + n)^(-2/3)) at update n (timm's, from 0): an average that is used early is
    not of the initial weights. At a decay of 0.999 they would still be 39 % of it after 940 updates.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = False) -> None:
        # timm asks for the device of the weights, which a model that is to be cut into shards has not got yet.
        super().__init__(nn.Linear(1, 1), decay=decay, use_warmup=warmup)
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    def _foreach_lerp_(self, ema_values: list[torch.Tensor], model_values: list[torch.Tensor], weight: float) -> None:
        # Number by number, so shards are averaged as the whole would be; torch refuses lists of shards and buffers.
        super()._foreach_lerp_([local(v) for v in ema_values], [local(v) for v in model_values], weight)


class EvenAverage(Ema):
    """The mean of the weights after each update from number `first` (from 0) on; before that, the weights themselves.

    Stochastic weight averaging with an average after every update, as SWAD has it: Izmailov et al., UAI 2018; Cha et
    al., "SWAD: domain generalization by seeking flat minima", NeurIPS 2021. Its window ends where dev is best, since
    dev chooses among the averages of a run. Batch statistics are not those of the mean weights: see
    livetrain.training.batch_statistics.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__(model, 0.0)
        self.first = first

    def get_decay(self, step: int | None = None) -> float:
        """Of update number `step`: n / (n + 1), with n weights in the mean so far."""
        assert step is not None
        so_far = max(0, step - self.first)
        return so_far / (so_far + 1)
