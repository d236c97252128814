"""Loops that others would write, on the processes of `livetrain bench ddp`: the same network, batch, loss, optimizer.

All processes have the same batch. Seconds of an update are the median of those of the first process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

PEERS = PLAIN, TIMM, LIGHTNING = "plain PyTorch loop, DDP", "timm's train.py, its loop, DDP", "Lightning, DDP"


def measure(name: str, parts: Any, batch: Any, warm_up: int, num_updates: int) -> float:
    """Seconds of an update of the side `name`; parts: livetrain's Updater, for its network and loss."""
    import torch

    model, loss = parts.model, parts.objective.loss
    model.train()
    if name == LIGHTNING:
        return _lightning(model, loss, batch, warm_up, num_updates)
    network = torch.nn.parallel.DistributedDataParallel(model)
    update = (_timm if name == TIMM else _plain)(network, loss, batch)
    for step in range(warm_up):
        update(step)
    times = []
    for step in range(warm_up, warm_up + num_updates):
        started = time.perf_counter()
        update(step)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _plain(network: Any, loss: Any, batch: Any) -> Callable[[int], None]:
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)

    def update(step: int) -> None:
        loss(network(batch.clips).float(), batch.labels).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def _timm(network: Any, loss: Any, batch: Any) -> Callable[[int], None]:
    """Timm's train_one_epoch: see livetrain.bench.step."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import dispatch_clip_grad

    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-4, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=2, step_on_epochs=False,
                                      updates_per_epoch=50)  # fmt: skip
    assert schedule is not None

    def update(step: int) -> None:
        loss(network(batch.clips).float(), batch.labels).mean().backward()
        dispatch_clip_grad(network.parameters(), 1.0, mode="norm")
        optimizer.step()
        optimizer.zero_grad()
        schedule.step_update(num_updates=step + 1)

    return update


def _lightning(model: Any, loss: Any, batch: Any, warm_up: int, num_updates: int) -> float:
    import lightning as L
    import torch
    from lightning.fabric.plugins.environments import TorchElasticEnvironment

    class Here(TorchElasticEnvironment):
        """The processes that are there already, whoever started them."""

        @staticmethod
        def detect() -> bool:
            return True

    clock: list[float] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, given: Any, index: int) -> torch.Tensor:
            clock.append(time.perf_counter())
            return loss(self.model(given[0]).float(), given[1]).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=0.05)

    batches: Any = [(batch.clips, batch.labels)] * (warm_up + num_updates + 1)
    trainer = L.Trainer(
        accelerator="cpu", devices=torch.distributed.get_world_size(), strategy="ddp", plugins=[Here()], max_epochs=1,
        logger=False, gradient_clip_val=1.0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(batches, batch_size=None))
    return statistics.median(b - a for a, b in zip(clock[warm_up:], clock[warm_up + 1 :], strict=False))
