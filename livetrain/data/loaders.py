"""The loaders of training, evaluation and prediction: which clips, in which order, on which process."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import augment, perturb, plan, recapture
from livetrain.data.batch import Plans
from livetrain.data.clip_plan import ClipPlan
from livetrain.data.dataset import Dataset
from livetrain.data.loader import Loader
from livetrain.data.shard_order import ShardOrder
from livetrain.data.video_files import VideoFiles


def train_loader(
    dataset: Dataset,
    config: Config,
    *,
    world: World,
    mean: Sequence[float],
    std: Sequence[float],
    start_step: int = 0,
    num_steps: int,
    samples: plan.Samples | None = None,
) -> Loader:
    """Micro-batches of the steps start_step … num_steps-1 for this process.

    Yields `train.accumulation` batches an update. `mean`, `std`: of RGB in [0, 1]. `samples`: of these, instead of the
    whole training split.
    """
    samples = samples or plan.Samples.of_training(dataset, config)
    plan.micro_batch_size(config, world.size)  # tells a global batch that does not divide before anything starts

    def plans() -> Iterator[ClipPlan]:
        for step in range(start_step, num_steps):
            for micro in range(config.train.accumulation):
                yield plan.plan_train(samples, config, step, micro, world.rank, world.size)

    num_batches = (num_steps - start_step) * config.train.accumulation
    example = plan.plan_train(samples, config, start_step, 0, world.rank, world.size)
    planned = Plans(plans, num_batches, example, _changes(config))
    if isinstance(samples.mixture, ShardOrder):
        # All processes of a node read the same window. `prefetch` takes half of the share: here three quarters of the
        # cache, for most of what is being read is announced as well.
        ahead = samples.mixture.ahead(config.train.accumulation)
        planned = dataclasses.replace(planned, ahead=ahead, cache_share=1.5)
    return Loader(dataset, config, planned, world=world, mean=mean, std=std)


def _changes(config: Config) -> list[augment.Change]:
    operators = recapture.active_operators(config.augment)
    first: list[augment.Change] = [recapture.Recapture(operators)] if operators else []
    return [*first, *augment.active_augmentations(config.augment)]


def eval_loader(
    dataset: Dataset,
    config: Config,
    split: str,
    *,
    world: World,
    mean: Sequence[float],
    std: Sequence[float],
    shifts: perturb.Shifts | None = None,
) -> Loader:
    """Batches of a split without augmentation: each sample once over all processes, equally many batches on each.

    With `shifts` every clip comes changed by the one it is under.
    """
    samples = plan.Samples.of(dataset, split, config)
    num_batches = plan.num_evaluation_batches(len(samples), config, world.size)

    def planned(batch: int) -> ClipPlan:
        item = plan.plan_evaluation(samples, config, batch, world.rank, world.size)
        return item if shifts is None else perturb.perturb(item, samples, config, shifts)

    def plans() -> Iterator[ClipPlan]:
        return map(planned, range(num_batches))

    example = planned(0)
    if not config.eval.num_frames:  # room for the longest
        longest = int(samples.columns["num_frames"][samples.rows].max())
        example = dataclasses.replace(example, frames=np.zeros((1, longest), np.int64))
    augmentations = [] if shifts is None else shifts.augmentations()
    return Loader(dataset, config, Plans(plans, num_batches, example, augmentations), world=world, mean=mean, std=std)


def files_loader(
    files: VideoFiles,
    config: Config,
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    world: World,
    mean: Sequence[float],
    std: Sequence[float],
) -> Loader:
    """Batches of the files `rows` (int64, at least one), without augmentation, the last one padded.

    Every batch comes, also one whose files all fail; nothing is raised for files that fail (data.on_error aside).
    """
    example = files.plan(config, rows, 0, batch_size)
    batches = Plans(lambda: files.plans(config, rows, batch_size), math.ceil(len(rows) / batch_size), example)
    return Loader(files, config, batches, world=world, mean=mean, std=std, patience=math.inf)
