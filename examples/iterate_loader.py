"""The loader in a training loop of your own: batches from shards, everything else plain PyTorch.

.venv/bin/python examples/iterate_loader.py data/demo-shards
"""

from __future__ import annotations

import sys

import timm
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from livetrain.config import load_config
from livetrain.core.world import World
from livetrain.data import Dataset, train_loader

STEPS = 5


def main(shards: str) -> float:
    """Train a frame classifier for a few steps. Returns the last loss."""
    overrides = [f"data.shards={shards}", "train.global_batch=8", "data.num_frames=2", "data.image_size=64"]
    config = load_config([], overrides)
    dataset = Dataset.of(config.data)
    model = timm.create_model("test_resnet", num_classes=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    world = World(torch.device("cpu"))  # World.of(accelerator) under DDP: each rank gets its slice
    with train_loader(dataset, config, world=world, mean=(0.5,) * 3, std=(0.5,) * 3, num_steps=STEPS) as loader:
        for batch in loader:
            logits = model(batch.clips.flatten(0, 1)).unflatten(0, batch.clips.shape[:2]).mean(1)[:, 0]
            losses = binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
            loss = losses[batch.valid].mean()  # clips that failed to load are masked
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"step {batch.step}: loss {loss.item():.4f}")
    return loss.item()


if __name__ == "__main__":
    main(sys.argv[1])
