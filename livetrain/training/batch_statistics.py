"""Statistics of batch norm for weights that never saw a batch: an average of many updates' weights."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import Dataset, train_loader
from livetrain.distributed.fsdp import is_sharded
from livetrain.evaluation.scoring import autocast
from livetrain.model import LivenessModel


def with_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Its batch norms that keep statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def estimate(
    model: LivenessModel, config: Config, accelerator: Accelerator, dataset: Dataset, num_updates: int
) -> None:
    """Set the model's batch statistics to their mean over the clips of the run's first updates, on all processes alike.

    All else stays in evaluation mode. Means of micro-batches, as torch.optim.swa_utils.update_bn makes them (Izmailov
    et al., "Averaging weights leads to wider optima and better generalization", UAI 2018, section 3.2).
    """
    layers = with_statistics(model)
    if not layers or model.frozen:
        return
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
    was_training = model.training
    model.eval()
    for layer in layers:
        layer.train()
    loader = train_loader(
        dataset, config, world=World.of(accelerator), mean=model.mean, std=model.std, num_steps=num_updates
    )
    without_gradients = torch.no_grad() if is_sharded(model) else torch.inference_mode()
    with loader, without_gradients:
        for batch in loader:
            with autocast(config, accelerator.device):
                model(batch.clips)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
        for name in ("running_mean", "running_var"):
            statistic = layer.get_buffer(name)
            statistic.copy_(accelerator.reduce(statistic.clone(), reduction="mean"))
    model.train(was_training)
