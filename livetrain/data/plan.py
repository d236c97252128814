"""What every clip of every step is: which sample, which frames of it, how it is cropped and augmented.

Pure functions of (index columns, config, seed, step): no state, no files, no randomness but a counter-based generator
(Philox; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) keyed by (seed, epoch, sample). So step
100,000 is planned without planning the 99,999 before it, and a clip's plan does not depend on who asks.

The stream of samples has no seams between epochs: position p of the run is sample `permute(p % N, epoch = p // N)`.
Every batch is full, an epoch covers each sample exactly once, and the batch that crosses an epoch's end takes its last
samples and the first of the next. With `data.weights` and `data.order=windows` other rules say which sample stands
where: see mixture.py and shard_order.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.data import augment, mixup, recapture, region
from livetrain.data.clip_facts import SIZES, FaceOf, Facts, FrameSeconds, evenly_spaced, nobody
from livetrain.data.clip_plan import ClipPlan, evaluation_batch_size, plan_views
from livetrain.data.dataset import Dataset
from livetrain.data.frame_choice import chosen_frames
from livetrain.data.mixture import Mixture, balanced, mixture_of
from livetrain.data.permutation import permute
from livetrain.data.philox import uniforms
from livetrain.data.shard_order import ShardOrder, shard_order, shards_of

COLUMNS = (
    "label",
    "num_frames",
    "duration_seconds",
    "fps",
    *SIZES,
    "sample_aspect_ratio",
)  # what planning needs of the index

# Addresses of independent random numbers within one (seed, epoch, sample).
STREAM_FRAMES, STREAM_CROP, STREAM_AUGMENT = range(3)  # 3 is mixup.py's, 4 recapture.py's


@dataclass(frozen=True)
class Samples:
    """The samples of a split: their rows in the index, ascending, and the index's columns.

    The columns are views of a mapped file and are looked at a batch at a time, so ten million samples cost what their
    row numbers cost.
    """

    rows: NDArray[np.integer]
    columns: Mapping[str, NDArray[Any]]
    mixture: Mixture | ShardOrder | None = None
    frame_seconds: FrameSeconds = evenly_spaced
    face: FaceOf = nobody

    @staticmethod
    def of_training(dataset: Dataset, config: Config) -> Samples:
        """The samples of the training split, mixed by `data.weights` or `data.balance`, or in windows of shards.

        Raises UserError when it is empty.
        """
        found = Samples.of(dataset, config.data.train_split, config)
        if config.data.balance != "none":
            groups, parents = _groups(dataset, found.rows, config.data.balance)
            return dataclasses.replace(found, mixture=balanced(groups, parents, config.data.balance_strength))
        if config.data.order == "windows":
            data, shards = config.data, shards_of(dataset, found.rows)
            order = shard_order(shards, data.window_shards, data.window_lanes, config.train.global_batch)
            return dataclasses.replace(found, mixture=order)
        if not config.data.weights:
            return found
        first_rows = [source.first_row for source in dataset.shard_sets]
        return dataclasses.replace(found, mixture=mixture_of(found.rows, first_rows, config.data.weights))

    @staticmethod
    def of(dataset: Dataset, split: str, config: Config) -> Samples:
        """The samples of a split; with data.face_missing=skip those with a face.

        Raises UserError when it is empty, or when faces are wanted that nobody has looked for.
        """
        columns = {name: dataset.column(name) for name in COLUMNS}
        rows: NDArray[np.integer] = dataset.rows(split)
        seconds = dataset.frame_seconds
        if config.data.crop == "whole":
            return Samples(rows, columns, frame_seconds=seconds)
        rows = dataset.faces.usable(rows, split, config.data.face_missing)
        return Samples(rows, columns, frame_seconds=seconds, face=dataset.faces.track)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, positions: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epochs and samples at `positions` of the run's stream, int64 [n] each."""
        if self.mixture is not None:
            return self.mixture.at(positions, seed)
        epochs, offsets = np.divmod(positions, len(self))
        samples = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = permute(offsets[here], len(self), seed, int(epoch))
        return epochs, samples

    def facts(self, samples: NDArray[np.int64]) -> Facts:
        """Of the samples numbered `samples` (int64 [n], each in [0, len(self)))."""
        rows = self.rows[samples].astype(np.int64)
        return Facts.of(rows, self.columns, self.frame_seconds, self.face)


def _groups(dataset: Dataset, rows: NDArray[np.integer], by: str) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The group of each of `rows`, and the parent of each group (see mixture.balanced), for `data.balance`."""
    is_live = (dataset.column("label")[rows] >= 0.5).astype(np.int64)
    if by == "class":
        return is_live, np.zeros(2, np.int64)
    if by == "domain_class":
        codes, words = dataset.codes("domain")
        return codes[rows] * 2 + is_live, np.repeat(np.arange(len(words)), 2)
    codes, words = dataset.codes("domain" if by == "domain" else "attack_type")
    if by == "domain":
        return codes[rows], np.zeros(len(words), np.int64)
    # A kind of attack is a part of the attacks, whatever live clips are called.
    return codes[rows] * 2 + is_live, np.tile([0, 1], len(words))


def micro_batch_size(config: Config, world: int) -> int:
    """Clips a process handles at once. Raises UserError when the global batch does not divide."""
    parts = world * config.train.accumulation
    if config.train.global_batch % parts:
        batch, accumulation = config.train.global_batch, config.train.accumulation
        good = [n for n in range(1, batch + 1) if batch % (n * accumulation) == 0]
        raise UserError(
            f"train.global_batch={config.train.global_batch} does not divide over {world} processes x "
            f"train.accumulation={config.train.accumulation}; numbers of processes that work: "
            f"{', '.join(map(str, good)) or 'none'}"
        )
    size = config.train.global_batch // parts
    if size % 2 and config.augment.enabled and (config.augment.mixup or config.augment.cutmix):
        raise UserError(
            f"augment.mixup and augment.cutmix blend pairs of clips, but a process has {size} of them at once "
            f"(train.global_batch={config.train.global_batch} over {world} processes x "
            f"train.accumulation={config.train.accumulation}); "
            "choose a batch that gives each an even number"
        )
    return size


def num_train_steps(num_samples: int, config: Config) -> int:
    """Updates of the whole run: `train.max_steps`, or as many as `train.epochs` passes over the samples take."""
    if config.train.max_steps > 0:
        return config.train.max_steps
    return max(1, math.ceil(config.train.epochs * num_samples / config.train.global_batch))


def epoch_of_step(step: int, num_samples: int, config: Config) -> float:
    """Epochs (passes over the samples) completed after `step` updates."""
    return step * config.train.global_batch / num_samples


def plan_train(split: Samples, config: Config, step: int, micro: int, rank: int, world: int) -> ClipPlan:
    """Micro-batch `micro` of update `step` for process `rank` of `world`."""
    size = micro_batch_size(config, world)
    first = step * config.train.global_batch + (micro * world + rank) * size
    positions = np.arange(first, first + size, dtype=np.int64)
    epochs, samples = split.at(positions, config.seed)
    facts = split.facts(samples)
    active = augment.active_augmentations(config.augment)
    u_frames, u_crop, u_augment = uniforms(
        config.seed,
        epochs,
        facts.rows,
        [
            (STREAM_FRAMES, config.data.num_frames),
            (STREAM_CROP, 8),
            (STREAM_AUGMENT, len(augment.AUGMENTATIONS) * augment.NUM_UNIFORMS if active else 0),
        ],
    )
    frames = chosen_frames(facts, config, config.data.num_frames, u_frames)
    params = region.random_region(u_crop, frames, facts, config) | {
        "angle": -facts.rotation.astype(np.float32),
        "flip": (u_crop[:, 4] < (config.augment.flip if config.augment.enabled else 0.0)).astype(np.int32),
    }
    for item in active:
        params |= item.draw(u_augment[:, augment.uniform_columns(item)], config.augment, config.data.image_size)
    recaptured = np.zeros(size, np.int64)
    if recapture.is_active(config.augment):
        live = split.columns["label"][facts.rows] >= 0.5
        recaptured, drawn = recapture.planned(
            config.augment, config.seed, epochs, facts.rows, live, config.data.image_size
        )
        params |= drawn
    return ClipPlan(step, facts.rows, frames, params, recaptured, mixup.planned(config, positions))


def plan_evaluation(split: Samples, config: Config, batch: int, rank: int, world: int) -> ClipPlan:
    """Batch `batch` of process `rank` of `world`: each sample once in row order, padded with `PADDING` at the end."""
    size = evaluation_batch_size(config)
    first = (batch * world + rank) * size
    samples = np.arange(first, first + size, dtype=np.int64)
    inside = samples < len(split)
    facts = split.facts(np.where(inside, samples, 0))
    return plan_views(facts, inside, config, batch)


def num_evaluation_batches(num_samples: int, config: Config, world: int) -> int:
    """Batches of every process: equally many on each."""
    return math.ceil(num_samples / (evaluation_batch_size(config) * world))
