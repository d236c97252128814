"""Batch statistics of an average of weights: those of its own batches, the same on all processes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from accelerate import Accelerator

from livetrain.core.world import World
from livetrain.data import Dataset, train_loader
from livetrain.training import batch_statistics, setup
from tests.runs import forget_accelerator, small_config

BN = ("model.backbone=test_efficientnet", "model.dropout=0.3", "model.drop_path=0.2")


def test_they_are_the_mean_over_the_first_updates_clips(demo_shards: Path, tmp_path: Path) -> None:
    config, dataset = small_config(demo_shards, tmp_path / "run", *BN), Dataset.open(demo_shards)
    forget_accelerator()
    accelerator = Accelerator(cpu=True)
    model = setup.make_model(config, accelerator).eval()
    before = copy.deepcopy(model.state_dict())
    batch_statistics.estimate(model, config, accelerator, dataset, 2)
    first = batch_statistics.with_statistics(model)[0]
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with (
        torch.no_grad(),
        train_loader(
            dataset, config, world=World(torch.device("cpu")), mean=model.mean, std=model.std, num_steps=2
        ) as loader,
    ):
        for batch in loader:
            model(batch.clips)
    assert len(seen) == 2 and not model.training and first.momentum is not None
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(first.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, variance, rtol=1e-4, atol=1e-5)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in parameters.items())
