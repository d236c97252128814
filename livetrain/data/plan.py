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
from livetrain.data.clip_facts import FaceOf, Facts, FrameSeconds, evenly_spaced, nobody
from livetrain.data.dataset import Dataset
from livetrain.data.mixture import Mixture, balanced, mixture_of
from livetrain.data.mixup import Blend
from livetrain.data.permutation import permute
from livetrain.data.philox import uniforms
from livetrain.data.shard_order import ShardOrder, shard_order, shards_of

PADDING = -1

SIZES = ("height", "width", "rotation", "coded_height", "coded_width")
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
class ClipPlan:
    """The plan of n clips of one micro-batch.

    rows: int64 [n], row of the index, or `PADDING`. frames: int64 [n, F], indices in display order. params: inputs of
    the graph by name, each [n, …]: `box` and `window` (see livetrain.data.region), `angle` float32 [n] (degrees
    counter-clockwise), `flip` int32 [n], and what the augmentations drew. recaptured: int64 [n], which operator makes
    an attack of a live clip (livetrain.data.recapture.attack_type), 0 for none. blend: what neighbours take from each
    other.
    """

    step: int
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    params: dict[str, NDArray[Any]]
    recaptured: NDArray[np.int64]
    blend: Blend


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
        num_frames = self.columns["num_frames"][rows].astype(np.int64)
        sizes = {name: self.columns[name][rows].astype(np.int64) for name in SIZES}
        seconds = self.columns["duration_seconds"][rows].astype(np.float64)
        known = np.isfinite(seconds) & (seconds > 0)
        # Stored JPEGs are thinner than the video they come from: frames a second of what is stored.
        rate = np.where(known, num_frames / np.where(known, seconds, 1), self.columns["fps"][rows].astype(np.float64))
        aspect = self.columns["sample_aspect_ratio"][rows].astype(np.float64)
        return Facts(
            rows, num_frames, rate, **sizes, sample_aspect_ratio=aspect, seconds=self.frame_seconds, face=self.face
        )


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
    frames = _frames(facts, config, config.data.num_frames, u_frames)
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


def plan_views(facts: Facts, inside: NDArray[np.bool_], config: Config, batch: int) -> ClipPlan:
    """How evaluation sees n clips: frames evenly spaced, or all; the whole frame, its centre, or the face.

    Those not `inside` are `PADDING`.
    """
    size = len(inside)
    frames = evaluation_frames(facts, config)
    params = region.fixed_region(frames, facts, config) | {
        "angle": -facts.rotation.astype(np.float32),
        "flip": np.zeros(size, np.int32),
    }
    return ClipPlan(
        batch, np.where(inside, facts.rows, PADDING), frames, params, np.zeros(size, np.int64), Blend.none(size)
    )


def evaluation_frames(facts: Facts, config: Config) -> NDArray[np.int64]:
    """Which frames of n clips evaluation sees, int64 [n, eval.num_frames]; all those of the only clip for 0."""
    if not config.eval.num_frames:
        return np.arange(facts.num_frames[0], dtype=np.int64)[None]
    return _frames(facts, config, config.eval.num_frames, None)


def num_evaluation_batches(num_samples: int, config: Config, world: int) -> int:
    """Batches of every process: equally many on each."""
    return math.ceil(num_samples / (evaluation_batch_size(config) * world))


def evaluation_batch_size(config: Config) -> int:
    """Clips that a process scores at once: one where all frames are wanted, since videos differ in length."""
    return config.eval.batch_size if config.eval.num_frames else 1


def segment_frames(num_frames: NDArray[np.int64], count: int, u: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """One frame of each of `count` equal segments: at u [n, count] within it, or in its middle.

    num_frames: int64 [n]. Returns int64 [n, count], ascending; frames repeat where a video has fewer than `count`.
    Source: temporal segment networks (Wang et al., ECCV 2016).
    """
    inside = 0.5 if u is None else u
    frames = np.floor((np.arange(count) + inside) * num_frames[:, None] / count).astype(np.int64)
    return np.minimum(frames, num_frames[:, None] - 1)


def interval_frames(
    num_frames: NDArray[np.int64],
    frames_per_second: NDArray[np.float64],
    seconds: float,
    count: int,
    u: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """`count` frames `seconds` apart, starting at u [n] of the room there is, or centred.

    Returns int64 [n, count], ascending. A video too short for the span repeats its last frame.
    """
    return spaced_frames(num_frames, np.arange(count) * seconds * frames_per_second[:, None], u)


def timed_frames(times: NDArray[np.floating], seconds: float, count: int, u: float | None) -> NDArray[np.int64]:
    """`interval_frames` of one clip whose frames have `times`, ascending from 0: of each moment, the nearest frame.

    Returns int64 [count], ascending. A video too short for the span repeats its last frame.
    """
    offsets = np.arange(count) * seconds
    moments = max(0.0, float(times[-1]) - offsets[-1]) * (0.5 if u is None else u) + offsets
    middles = (times[1:].astype(np.float64) + times[:-1]) / 2
    return np.searchsorted(middles, moments, side="right").astype(np.int64)


def spaced_frames(
    num_frames: NDArray[np.int64], offsets: NDArray[np.floating], u: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """The frames `offsets` ([n, count], ascending from 0) after a start: at u [n] of the room there is, or centred.

    Returns int64 [n, count], ascending. A video too short for the span repeats its last frame.
    """
    room = np.maximum(0.0, num_frames - 1 - offsets[:, -1])
    start = room * (0.5 if u is None else u)
    # Half a frame of rounding: 0.2 s at 29.97 fps is frame 6, not 5.
    frames = np.floor(start[:, None] + offsets + 0.5).astype(np.int64)
    return np.clip(frames, 0, num_frames[:, None] - 1)


def _frames(facts: Facts, config: Config, count: int, u: NDArray[np.float64] | None) -> NDArray[np.int64]:
    if config.data.sampling == "segments":
        return segment_frames(facts.num_frames, count, u)
    start = None if u is None else u[:, 0]
    if config.data.sampling == "stride":
        offsets = np.arange(count) * float(config.data.frame_stride)
        return spaced_frames(facts.num_frames, np.broadcast_to(offsets, (len(facts.rows), count)), start)
    seconds = config.data.frame_interval_seconds
    frames = interval_frames(facts.num_frames, facts.frames_per_second, seconds, count, start)
    for clip, row in enumerate(facts.rows.tolist()):
        times = facts.seconds(row)[: facts.num_frames[clip]]
        if len(times):
            frames[clip] = timed_frames(times, seconds, count, None if start is None else float(start[clip]))
    return frames
