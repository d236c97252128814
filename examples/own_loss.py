"""Train with a loss that livetrain does not have, without changing livetrain.

The run is built as `livetrain train` builds it, and the loss is replaced.

    .venv/bin/python examples/own_loss.py data/demo-shards runs/own-loss

Dev evaluations report config.loss; the checkpoint is chosen by the EER. To add a loss for good, see
docs/develop/adding-x.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn.functional import softplus

from livetrain.config import load_config
from livetrain.core.progress import warn_stderr
from livetrain.data import Dataset
from livetrain.distributed.preemption import StopRequest
from livetrain.evaluation.final import Origin, final_evaluation
from livetrain.training import setup
from livetrain.training.trainer import Trainer


def asymmetric(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each clip [B]: accepting an attack costs twice as much as rejecting a live person.

    Args:
        logits: [B] of "live".
        labels: [B] in [0, 1], live = 1.
    """
    return labels * softplus(-logits) + 2 * (1 - labels) * softplus(logits)


def main(shards: str, run_dir: str, *overrides: str) -> Path:
    """One run. Returns the path of its report."""
    config = load_config([], [f"data.shards={shards}", f"run_dir={run_dir}", *overrides])
    accelerator = setup.make_accelerator(config)
    dataset = Dataset.of(config.data)
    model = setup.make_model(config, accelerator)
    objects = setup.make_objects(config, accelerator, dataset, model, start=None)
    objects.updater.objective.loss = asymmetric
    with StopRequest() as stop, Trainer(config, accelerator, dataset, objects, None, warn_stderr, stop) as trainer:
        trainer.train()
        origin = Origin(objects.num_steps, trainer.load_best())
        return final_evaluation(accelerator, config, dataset, model, origin)


if __name__ == "__main__":
    main(*sys.argv[1:])
