"""Fine-tune a packaged model on other shards: its backbone's weights are the start, the head is new.

    .venv/bin/livetrain package runs/quickstart --out package
    .venv/bin/python examples/finetune_package.py package data/demo-shards runs/finetuned train.epochs=2

A package's config.json and model.safetensors are timm's layout, so `model.weights` reads them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livetrain.config import load_config
from livetrain.distributed.preemption import StopRequest
from livetrain.inference.package import read_config
from livetrain.train import train


def main(package: str, shards: str, run_dir: str, *overrides: str) -> Path:
    """One run. Returns its folder."""
    before = read_config(Path(package))
    keys = [
        f"model.backbone={before.model.backbone}",
        f"model.weights={package}/model.safetensors",
        f"data.image_size={before.data.image_size}",
        f"data.num_frames={before.data.num_frames}",
        f"data.shards={shards}",
        f"run_dir={run_dir}",
    ]
    with StopRequest() as stop:
        train(load_config([], [*keys, *overrides]), stop)
    return Path(run_dir)


if __name__ == "__main__":
    main(*sys.argv[1:])
