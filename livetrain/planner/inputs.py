"""What a run asks of a machine, taken from its configuration, its model and its shards."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import Dataset, train_loader
from livetrain.data.decoders import decoder_of
from livetrain.data.graph import depth
from livetrain.data.plan import Samples, plan_train
from livetrain.model import LivenessModel, count_parameters, count_training_flops
from livetrain.model.cost import saved_activation_bytes
from livetrain.planner.formulas import Demand
from shards.format.container import open_bytes

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

NUM_CLIPS = 16  # looked at for their GOPs, and loaded to know what the CPU needs for one


def demand(config: Config, dataset: Dataset, model: LivenessModel) -> Demand:
    """The demand of one clip of the training split; loads and decodes a few clips on this machine's CPU."""
    side = config.data.image_size
    clip = (config.data.num_frames, 3, side, side)
    _, trained = count_parameters(model)
    recomputes = config.model.grad_checkpointing and not config.model.freeze_backbone
    return Demand(
        flops=count_training_flops(model, clip, config),
        computed_share=4 / 3 if recomputes else 1.0,  # a second forward pass
        saved_bytes=saved_activation_bytes(model, (1, *clip), config.train.precision),
        trained_parameters=trained,
        stored_bytes=stored_bytes(config, dataset),
        decoded_pixels=decoded_pixels(config, dataset) if config.data.decoder != "cpu" else 0.0,
        core_seconds=core_seconds(config, dataset, model),
        precision=config.train.precision,
        bucket_bytes=config.ddp.bucket_mb * 2**20,
        gradient_bytes_each=4.0 if config.ddp.compression == "none" else 2.0,
        accumulation=config.train.accumulation,
    )


def stored_bytes(config: Config, dataset: Dataset) -> float:
    """Mean bytes that the loader reads for a clip of the training split: the whole video, or the wanted JPEGs."""
    rows = dataset.rows(config.data.train_split)
    size = dataset.column("size")[rows].astype(np.float64)
    stored = dataset.column("num_frames")[rows]
    if dataset.manifest.get("store") == "frames":
        size = size * np.minimum(1.0, config.data.num_frames / np.maximum(1, stored))
    return float(size.mean())


def decoded_pixels(config: Config, dataset: Dataset) -> float:
    """Mean pixels of a clip's frames that NVDEC must decode: from the key frame before each wanted frame up to it.

    From the packets of a few clips, without decoding them. 0 where NVDEC takes none of them (JPEGs, other codecs).
    """
    samples = _samples(config, dataset)
    plan = plan_train(samples, _small(config, len(samples)), 0, 0, 0, 1)
    pixels = []
    for row, frames in zip(plan.rows.tolist(), plan.frames, strict=True):
        if decoder_of(dataset, row, on_gpu=True) != "nvdec":
            continue
        num_frames = frames_from_keys(dataset.video_bytes(row), frames)
        pixels.append(num_frames * int(dataset.column("coded_width")[row]) * int(dataset.column("coded_height")[row]))
    return float(np.mean(pixels)) if pixels else 0.0


def frames_from_keys(data: bytes, wanted: NDArray[np.integer]) -> int:
    """Frames of a video file that a decoder goes through for frames `wanted` (display order), each GOP once."""
    with open_bytes(data) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    shown = np.argsort(np.argsort([packet.pts or 0 for packet in packets], kind="stable"), kind="stable")
    keys = np.array([index for index, packet in enumerate(packets) if packet.is_keyframe])
    positions = np.sort([int(np.flatnonzero(shown == min(frame, len(shown) - 1))[0]) for frame in np.unique(wanted)])
    total, reached = 0, -1
    for position in positions.tolist():
        start = max(int(keys[keys <= position].max(initial=0)), reached + 1)
        total += position - start + 1
        reached = position
    return total


def core_seconds(config: Config, dataset: Dataset, model: LivenessModel) -> float:
    """Seconds of a core that the training loader takes for a clip when it decodes on the CPU: measured here.

    All threads' time, so that neighbours on the machine hardly change it.
    """
    steps, batch = 6, NUM_CLIPS // 2
    loader = train_loader(
        dataset, _small(config, batch), world=World(torch.device("cpu")), mean=model.mean,
        std=model.std, num_steps=steps, samples=_samples(config, dataset),
    )  # fmt: skip
    with loader:
        batches = iter(loader)
        next(batches)  # builds the graph
        started = time.process_time()
        num_clips = sum(len(batch.keys) for batch in batches)
        # About half of the second batch was done when the clock started.
        return (time.process_time() - started) / (num_clips - batch / 2)


def loader_rate(config: Config, dataset: Dataset, model: LivenessModel, device: torch.device, local_size: int) -> float:
    """Clips/s of one process's training loader as it is configured.

    One of `local_size` on the machine; measured here on a few clips, which the system's cache may hold.
    """
    steps, batch = 12, NUM_CLIPS // 2
    loader = train_loader(
        dataset, _small(config, batch, decoder=config.data.decoder), world=World(device, local_size=local_size),
        mean=model.mean, std=model.std, num_steps=steps, samples=_samples(config, dataset),
    )  # fmt: skip
    with loader:
        batches = iter(loader)
        for _ in range(depth(device) + 2):  # builds the graph; then what is ahead stays as much
            next(batches)
        started = time.perf_counter()
        num_clips = sum(len(batch.keys) for batch in itertools.islice(batches, steps - 2 * (depth(device) + 2)))
        return num_clips / (time.perf_counter() - started)


def compute_rate(model: LivenessModel, loss: Loss, config: Config, num_clips: int, device: torch.device) -> float:
    """Clips/s of forward and backward passes, measured on `device`, where the model is.

    Over micro-batches of `num_clips` random clips. Leaves no gradient; batch statistics move.
    """
    side = config.data.image_size
    clips = torch.randn(num_clips, config.data.num_frames, 3, side, side, device=device)
    labels = torch.ones(num_clips, device=device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.train.precision)

    def update() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = model(clips)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        loss(logits.float(), labels).mean().backward()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    update()
    started = time.perf_counter()
    update()
    update()
    return 2 * num_clips / (time.perf_counter() - started)


def _samples(config: Config, dataset: Dataset) -> Samples:
    """A few clips of the training split; of one shard where shards are downloaded."""
    every = Samples.of(dataset, config.data.train_split, config)
    rows = every.rows
    if dataset.is_remote:
        rows = rows[dataset.column("shard")[rows] == dataset.column("shard")[rows[0]]]
    return dataclasses.replace(every, rows=np.sort(np.random.default_rng(0).permutation(rows)[:NUM_CLIPS]))


def _small(config: Config, batch: int, decoder: str = "cpu") -> Config:
    """The configuration with a batch of `batch` clips, not loaded further ahead than needed."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, global_batch=batch, accumulation=1),
        data=dataclasses.replace(config.data, prefetch=1, decoder=decoder),
        augment=dataclasses.replace(config.augment, mixup=0.0, cutmix=0.0),
    )
